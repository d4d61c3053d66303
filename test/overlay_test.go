//go:build integration

package test

import (
	"bytes"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// makeOverlay is a name for a new overlay, and the flags of a mount with it.
func makeOverlay(t testing.TB, more ...string) (overlay string, flags []string) {
	t.Helper()
	overlay = filepath.Join(t.TempDir(), "overlay")
	return overlay, append([]string{"--overlay", overlay}, more...)
}

// killDaemon ends the process that serves dir, and waits for the mount's end.
func killDaemon(t *testing.T, dir string) {
	t.Helper()
	if err := syscall.Kill(daemon(t, dir), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	awaitDead(t, dir)
}

// awaitDead waits until the process that serves dir, which has been killed, is gone.
func awaitDead(t *testing.T, dir string) {
	t.Helper()
	waitFor(t, "the process is dead", func() bool { return len(daemons(dir)) == 0 })
	// What was under way when it died is answered with another error.
	waitFor(t, "the mount is dead", func() bool {
		return strings.Contains(run(t, "stat", "--file-system", dir).stderr, "Transport endpoint is not connected")
	})
}

// checkNoMount checks that a mount that failed has left no mount and no process.
func checkNoMount(t *testing.T, dir string) {
	t.Helper()
	if mounted(dir) {
		t.Errorf("%s is mounted", dir)
	}
	waitFor(t, "no process is left", func() bool { return len(daemons(dir)) == 0 })
}

// overlayInfo is what overlay info prints in the row of that name.
func overlayInfo(t *testing.T, overlay, name string) string {
	t.Helper()
	out := must(t, cloopfs, "overlay", "info", overlay)
	for line := range strings.Lines(out) {
		if rest, ok := strings.CutPrefix(line, name+" "); ok {
			return strings.TrimSpace(rest)
		}
	}
	t.Fatalf("overlay info prints %q, want a row %s", out, name)
	return ""
}

// history is what a part of a disk has in it, and had since it was last flushed.
type history struct {
	off int64 // of its first byte on the disk; whole clusters, as its length
	now []byte
	// earlier is, for each cluster of the part that was written since the last
	// flush that returned, what it had in it from then on.
	earlier map[int64][][]byte
	// flushed is the clusters that were written and then flushed.
	flushed map[int64]bool
}

func newHistory(disk []byte, off, n int64) *history {
	return &history{off, bytes.Clone(disk[off:][:n]), make(map[int64][][]byte), make(map[int64]bool)}
}

// change notes that p is about to be written at off of the part.
func (h *history) change(p []byte, off int64) {
	for c := off / pageSize; c*pageSize < off+int64(len(p)); c++ {
		h.earlier[c] = append(h.earlier[c], bytes.Clone(h.now[c*pageSize:][:pageSize]))
	}
	copy(h.now[off:], p)
}

// flush notes that a flush has returned.
func (h *history) flush() {
	for c := range h.earlier {
		h.flushed[c] = true
	}
	clear(h.earlier)
}

// check compares the disk with the part, and counts the clusters that have what was
// flushed, and those that could have one of several things in them. What is there
// is what will be there from now on.
func (h *history) check(disk []byte) (flushed, open int, err error) {
	is := disk[h.off:][:len(h.now)]
	for c := range int64(len(is) / pageSize) {
		got, earlier := is[c*pageSize:][:pageSize], h.earlier[c]
		found := bytes.Equal(got, h.now[c*pageSize:][:pageSize])
		for _, e := range earlier {
			found = found || bytes.Equal(got, e)
		}
		switch {
		case !found && earlier == nil:
			return 0, 0, fmt.Errorf("the cluster at %d is not what was flushed (written in this round: %v): %.8x, want %.8x",
				h.off+c*pageSize, h.flushed[c], got, h.now[c*pageSize:])
		case !found:
			return 0, 0, fmt.Errorf("the cluster at %d is none of the %d things that it was since it was flushed: %.8x",
				h.off+c*pageSize, len(earlier)+1, got)
		case earlier != nil:
			open++
		case h.flushed[c]:
			flushed++
		}
	}
	copy(h.now, is)
	clear(h.earlier)
	clear(h.flushed)
	return flushed, open, nil
}
