//go:build integration

package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
)

// When the overlay's disk does not take what was written, fsync(2) says so, and so does
// every later one: nobody knows what of it is there. In the end umount says it. What
// was flushed before is there on the next mount.
//
// The disk is an ext4 in a sparse file on a tmpfs that has no room for it: writes
// to it fail after write(2) has returned.
func TestOverlayFailedFlush(t *testing.T) {
	const size = 8 * mib
	s := makeImage(t, 64*kib, blocks(size/(64*kib), 20*kib)...)
	_, url := serve(t, s.image)
	tmpfs := makeTmpfs(t, "32m")
	// A journal would make the file system read-only, and be all that fails.
	device, disk := makeExt4(t, tmpfs, "64m", "-O", "^has_journal")
	overlay := filepath.Join(disk, "overlay")
	log := filepath.Join(t.TempDir(), "log")
	flags := []string{"--overlay", overlay, "--log-file", log}
	dir := mount(t, url, flags...)
	w := openWriter(t, diskOf(dir))
	now := slices.Clone(s.disk)
	flushed := noise(1, mib+777)
	w.must(t, task{Op: "write", Off: 1000, Data: flushed})
	copy(now[1000:], flushed)
	w.must(t, task{Op: "fsync"})
	must(t, "sync", "--file-system", disk)

	ballast := fillUp(t, tmpfs, 0)
	lost := noise(2, 3*mib)
	w.must(t, task{Op: "write", Off: 3 * mib, Data: lost})
	for n, op := range []string{"fdatasync", "fsync", "fdatasync"} {
		if e := w.fails(t, task{Op: op}); e != syscall.EIO && e != syscall.ENOSPC {
			t.Errorf("%s %d: %v, want EIO or ENOSPC", op, n, e)
		}
	}
	// Room does not bring back what the kernel has thrown away.
	if err := os.Remove(ballast); err != nil {
		t.Fatal(err)
	}
	w.must(t, task{Op: "write", Off: 3 * mib, Data: lost})
	if e := w.fails(t, task{Op: "fsync"}); e != syscall.EIO && e != syscall.ENOSPC {
		t.Errorf("fsync after a failed one: %v, want EIO or ENOSPC", e)
	}
	checkBytes(t, "what was flushed", string(w.must(t, task{Op: "read", Len: 2 * mib}).Data), now[:2*mib])
	if st := statusOf(t, dir); st.Writes.Errors != 4 || st.Writes.Flushes != 1 || !strings.Contains(st.Reads.LastError, "flush the overlay: ") {
		t.Errorf("status says %+v, last error %q; want four errors and one flush", *st.Writes, st.Reads.LastError)
	}
	w.close(t)
	r := run(t, cloopfs, "umount", dir)
	checkFailure(t, r, 1, "flush the overlay: ")
	if mounted(dir) || len(daemons(dir)) > 0 {
		t.Errorf("%s is still mounted or served", dir)
	}
	if text, err := os.ReadFile(log); err != nil || !strings.Contains(string(text), "what was written may not be on the disk") {
		t.Errorf("the log is %q, %v; want the failure in it", text, err)
	}
	if got := overlayInfo(t, overlay, "state"); !strings.HasPrefix(got, "not closed") {
		t.Errorf("overlay info says %q, want that it was not closed", got)
	}

	// Not from the page cache, which may have what the disk has not.
	must(t, "umount", disk)
	must(t, "mount", device, disk)
	mountAt(t, url, dir, flags...)
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), now)
	w = openWriter(t, diskOf(dir))
	w.must(t, task{Op: "write", Off: 3 * mib, Data: lost})
	copy(now[3*mib:], lost)
	w.must(t, task{Op: "fsync"})
	w.close(t)
	umount(t, dir)
	mountAt(t, url, dir, flags...)
	checkBytes(t, "disk in the end", must(t, "cat", diskOf(dir)), now)
	umount(t, dir)
}
