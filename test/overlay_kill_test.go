//go:build integration

package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"
)

// A process that is killed while the disk is written to leaves all that was
// flushed; of what was written since, every cluster is what it was at some time.
// Three writers have a third of the disk each: what one of them has written while
// another flushes is not flushed yet.
func TestOverlayKilled(t *testing.T) {
	const (
		writers = 3
		part    = 700 * pageSize
		anew    = 4 // so many rounds have an overlay, and with it fresh clusters
	)
	rounds := envNumber(t, "CLOOPFS_TEST_OVERLAY_KILLS", 20)
	s := makeImage(t, 64*kib, blocks(writers*part/(64*kib)+1, 8*kib)...)
	_, url := serve(t, s.image)
	overlay, flags := makeOverlay(t)
	dir := makeDir(t)
	var flushed, open, writes int
	var fresh bool
	disk := slices.Clone(s.disk)
	for round := range rounds {
		seed := rand.Uint64()
		mountAt(t, url, dir, flags...)
		var parts []*history
		var wg sync.WaitGroup
		var running, changes atomic.Int64
		for i := range writers {
			h := newHistory(disk, int64(i)*part, part)
			parts = append(parts, h)
			w := openWriter(t, diskOf(dir))
			rnd := rand.New(rand.NewPCG(seed, uint64(i)))
			running.Add(1)
			wg.Go(func() {
				defer running.Add(-1)
				for writeSome(t, w, h, rnd) {
					changes.Add(1)
				}
				w.p.kill()
			})
		}
		waitFor(t, "somebody writes", func() bool { return changes.Load() > 0 })
		time.Sleep(time.Duration(rand.Int64N(int64(150 * time.Millisecond))))
		if n := running.Load(); n != writers {
			t.Errorf("round %d (seed %d): %d writers are at work, want %d", round, seed, n, writers)
		}
		killDaemon(t, dir)
		wg.Wait()
		if t.Failed() {
			return
		}

		mountAt(t, url, dir, flags...)
		disk = []byte(must(t, "cat", diskOf(dir)))
		for i, h := range parts {
			f, o, err := h.check(disk)
			if err != nil {
				t.Fatalf("round %d (seed %d), writer %d: %v", round, seed, i, err)
			}
			flushed, open = flushed+f, open+o
		}
		checkBytes(t, "the rest of the disk", string(disk[writers*part:]), s.disk[writers*part:])
		writes += int(changes.Load())
		if fresh = round%anew == anew-1; !fresh && round%2 == 0 {
			killDaemon(t, dir) // it can be killed without having written, too
			continue
		}
		umount(t, dir)
		if fresh {
			must(t, cloopfs, "overlay", "discard", overlay)
			disk = slices.Clone(s.disk)
		}
	}
	mountAt(t, url, dir, flags...)
	checkBytes(t, "disk in the end", must(t, "cat", diskOf(dir)), disk)
	umount(t, dir)
	t.Logf("%d kills under %d writes: %d clusters were flushed, %d open", rounds, writes, flushed, open)
	if flushed < 20*rounds || open < rounds/2 {
		t.Errorf("%d clusters were compared that were flushed, %d others: that says too little", flushed, open)
	}
}

// writeSome writes, punches or flushes once, somewhere in a writer's part, and says
// whether the mount is still there.
func writeSome(t *testing.T, w *writer, h *history, rnd *rand.Rand) bool {
	size := int64(len(h.now))
	what := task{Op: "write"}
	switch n := rnd.IntN(100); {
	case n < 6:
		what.Op = "fsync"
	case n < 12:
		what.Op = "fdatasync"
	case n < 50: // a cluster
		what.Off = rnd.Int64N(size/pageSize) * pageSize
		what.Data = noise(rnd.Uint64(), pageSize)
	case n < 85:
		what.Off = rnd.Int64N(size)
		what.Data = noise(rnd.Uint64(), min(size-what.Off, 1+rnd.Int64N(5*pageSize)))
	case n < 87: // several requests
		what.Off = rnd.Int64N(size - 2*mib)
		what.Data = noise(rnd.Uint64(), mib+rnd.Int64N(mib))
	default:
		what.Op, what.Off = "punch", rnd.Int64N(size)
		what.Len = min(size-what.Off, 1+rnd.Int64N(8*pageSize))
	}
	if what.Data != nil {
		h.change(what.Data, what.Off)
	} else if what.Len > 0 {
		h.change(make([]byte, what.Len), what.Off)
	}
	what.Off += h.off
	d, err := w.do(what)
	switch {
	case err != nil:
		t.Error(err)
		return false
	case d.Errno == 0:
		if what.Data == nil && what.Len == 0 {
			h.flush()
		}
		return true
	case d.Errno != syscall.ENOTCONN && d.Errno != syscall.ECONNABORTED && d.Errno != syscall.EIO:
		t.Errorf("%s at %d: %v", what.Op, what.Off, d.Errno)
	}
	return false
}

// writeFiles writes files into the directory $1, one after the other, each of some
// size, and appends to the file $3 what sha256sum says of each that is durable.
const writeFiles = `cd "$1" && i=0
while head -c $((i * 7919 % 200000)) /dev/urandom >"$2-$i" && sync "$2-$i" && sync . ; do
	sha256sum "$2-$i" >>"$3" || exit
	i=$((i + 1))
done`

// A file system on a loop device above the mount survives the process's death as it
// would a loss of power: its journal is replayed, it has no errors, and every file is
// there that was synced.
func TestOverlayKilledUnderFileSystem(t *testing.T) {
	rounds := max(4, envNumber(t, "CLOOPFS_TEST_OVERLAY_KILLS", 20)/5)
	s := makeImage(t, 64*kib, blocks(48*mib/(64*kib), 0)...)
	_, url := serve(t, s.image)
	_, flags := makeOverlay(t)
	dir := makeDir(t)
	mountAt(t, url, dir, flags...)
	must(t, "mke2fs", "-q", "-t", "ext4", diskOf(dir))
	umount(t, dir)
	sums, files, replayed := filepath.Join(t.TempDir(), "sums"), 0, 0
	for round := range rounds {
		mountAt(t, url, dir, flags...)
		device := attachWith(t, diskOf(dir))
		fs := mountDevice(t, device)
		p := start(t, "sh", "-c", writeFiles, "sh", fs, fmt.Sprint("file-", round), sums)
		waitFor(t, "a file is synced", func() bool {
			text, _ := os.ReadFile(sums)
			return strings.Contains(string(text), fmt.Sprint("file-", round, "-"))
		})
		time.Sleep(time.Duration(rand.Int64N(int64(400 * time.Millisecond))))
		killDaemon(t, dir)
		r := p.result(t)
		if !strings.Contains(r.stderr, "Input/output error") && !strings.Contains(r.stderr, "Read-only file system") {
			t.Errorf("writer: %v, want an I/O error", r)
		}
		must(t, "umount", fs)
		must(t, "losetup", "--detach", device)

		mountAt(t, url, dir, flags...)
		device = attachWith(t, diskOf(dir))
		if out := must(t, "dumpe2fs", "-h", device); strings.Contains(out, "needs_recovery") {
			replayed++
		}
		must(t, "e2fsck", "-p", "-E", "journal_only", device)
		if r := run(t, "e2fsck", "-fn", device); r.code != 0 {
			t.Fatalf("round %d: e2fsck: %v", round, r)
		}
		fs = mountDevice(t, device)
		must(t, "sh", "-c", `cd "$1" && sha256sum --check --quiet --strict "$2"`, "sh", fs, sums)
		if round%4 == 3 { // room for others
			text, err := os.ReadFile(sums)
			if err != nil {
				t.Fatal(err)
			}
			files += strings.Count(string(text), "\n")
			must(t, "sh", "-c", `rm "$1"/file-* "$2"`, "sh", fs, sums)
		}
		must(t, "umount", fs)
		must(t, "losetup", "--detach", device)
		umount(t, dir)
	}
	t.Logf("%d kills, %d journals replayed: %d files were synced", rounds, replayed, files)
	if files < 3*rounds || replayed < rounds {
		t.Error("that says too little")
	}
}
