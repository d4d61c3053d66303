//go:build integration

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// makeExt4 makes an ext4 file system of some size in a file in dir, and mounts it until
// the test's end.
func makeExt4(t *testing.T, dir, size string, flags ...string) (device, mountpoint string) {
	t.Helper()
	file := filepath.Join(dir, "ext4.img")
	must(t, "truncate", "--size="+size, file)
	must(t, "mke2fs", slices.Concat([]string{"-q", "-t", "ext4"}, flags, []string{file})...)
	device = attachWith(t, file)
	return device, mountDevice(t, device)
}

// fillUp makes a file in dir that takes the room that is left but for so many bytes.
func fillUp(t *testing.T, dir string, left int64) (ballast string) {
	t.Helper()
	ballast = filepath.Join(dir, "ballast")
	var st syscall.Statfs_t
	if err := syscall.Statfs(dir, &st); err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(ballast)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := syscall.Fallocate(int(f.Fd()), 0, 0, int64(st.Bavail)*st.Bsize-left); err != nil {
		t.Fatal(err)
	}
	return ballast
}

// When the overlay's disk is full the writer is told, and nobody loses anything: what
// was flushed is there, reads go on, and when there is room again so do writes.
func TestOverlayOnFullDisk(t *testing.T) {
	const size = 8 * mib
	s := makeImage(t, 64*kib, blocks(size/(64*kib), 20*kib)...)
	_, url := serve(t, s.image)
	for _, test := range []struct {
		name  string
		disk  func(t *testing.T) string
		piece int64
	}{
		{"tmpfs", func(t *testing.T) string { return makeTmpfs(t, "16m") }, 64 * kib},
		{"tmpfs, parts of clusters", func(t *testing.T) string { return makeTmpfs(t, "16m") }, 5001},
		{"ext4", func(t *testing.T) string {
			_, dir := makeExt4(t, t.TempDir(), "16m", "-m", "0")
			return dir
		}, 64 * kib},
	} {
		t.Run(test.name, func(t *testing.T) {
			disk := test.disk(t)
			overlay := filepath.Join(disk, "overlay")
			log := filepath.Join(t.TempDir(), "log")
			flags := []string{"--overlay", overlay, "--log-file", log}
			dir := mount(t, url, flags...)
			now := slices.Clone(s.disk)
			w := openWriter(t, diskOf(dir))
			flushed := noise(1, mib+777)
			w.must(t, task{Op: "write", Off: 1000, Data: flushed})
			copy(now[1000:], flushed)
			w.must(t, task{Op: "fsync"})
			before := overlayInfo(t, overlay, "changed")

			ballast := fillUp(t, disk, mib)
			full := syscall.Errno(0)
			off := int64(2 * mib)
			for n := int64(0); full == 0 && off < size-test.piece; n++ {
				what := task{Op: "write", Off: off, Data: noise(uint64(n), test.piece)}
				d, err := w.do(what)
				if err != nil {
					t.Fatal(err)
				}
				// Of the write that failed the first requests may be done.
				copy(now[off:], what.Data[:d.N])
				if full = d.Errno; full == 0 {
					off += test.piece
				}
			}
			if full != syscall.ENOSPC {
				t.Fatalf("writing %d bytes to a disk with room for 1 MiB: %v, want ENOSPC", off-2*mib, full)
			}
			if off < 2*mib+mib/2 {
				t.Errorf("%d bytes were written where there was room for 1 MiB", off-2*mib)
			}
			p := task{Op: "write", Off: off, Data: noise(1000, test.piece)}
			if e := w.fails(t, p); e != syscall.ENOSPC {
				t.Errorf("writing once more: %v, want ENOSPC", e)
			}
			// A cluster that was flushed has its room.
			again := noise(2, 20*pageSize)
			w.must(t, task{Op: "write", Off: 10 * pageSize, Data: again})
			copy(now[10*pageSize:], again)
			w.must(t, task{Op: "fsync"})
			for _, direct := range []bool{false, true} {
				read := w.must(t, task{Op: "read", Len: off, Direct: false}).Data
				checkBytes(t, "what was written", string(read), now[:off])
				rest := (off + test.piece + pageSize) &^ (pageSize - 1)
				read = w.must(t, task{Op: "read", Off: rest, Len: size - rest, Direct: direct}).Data
				checkBytes(t, "what was not", string(read), now[rest:])
			}
			if st := statusOf(t, dir); st.Writes.Errors < 2 || !strings.Contains(st.Reads.LastError, "no space left") {
				t.Errorf("status says %+v, %+v; want errors, and the last one", *st.Writes, st.Reads)
			}

			// It is all the same if the process is killed now.
			w.close(t)
			killDaemon(t, dir)
			mountAt(t, url, dir, flags...)
			checkBytes(t, "disk after a kill", must(t, "head", "--bytes", strconv.FormatInt(off, 10), diskOf(dir)), now[:off])
			if got := overlayInfo(t, overlay, "changed"); got == before {
				t.Errorf("overlay info says %s are changed, as it did before more was", got)
			}

			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			w = openWriter(t, diskOf(dir))
			w.must(t, p)
			copy(now[off:], p.Data)
			w.must(t, task{Op: "punch", Off: 3 * pageSize, Len: 7 * pageSize})
			clear(now[3*pageSize : 10*pageSize])
			w.must(t, task{Op: "fsync"})
			w.close(t)
			for range 2 {
				checkBytes(t, "disk", must(t, "cat", diskOf(dir)), now)
				umount(t, dir)
				mountAt(t, url, dir, flags...)
			}
			umount(t, dir)
			if got := overlayInfo(t, overlay, "state"); got != "clean" {
				t.Errorf("overlay info says %q, want clean", got)
			}
		})
	}
}

// A file system on a loop device above the mount gets I/O errors when the overlay's
// disk is full, and keeps what was synced before. When there is room again it can be
// used on.
func TestOverlayOnFullDiskUnderFileSystem(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(48*mib/(64*kib), 0)...)
	_, url := serve(t, s.image)
	disk := makeTmpfs(t, "80m") // room for all of the disk
	dir := mount(t, url, "--overlay", filepath.Join(disk, "overlay"))
	must(t, "mke2fs", "-q", "-t", "ext4", diskOf(dir))
	ballast := fillUp(t, disk, 8*mib)
	device := attachWith(t, diskOf(dir))
	sums := filepath.Join(t.TempDir(), "sums")
	for round := range 2 {
		fs := mountDevice(t, device)
		r := run(t, "timeout", "60", "sh", "-c", writeFiles, "sh", fs, fmt.Sprint("file-", round), sums)
		// In the end it is the file system that is full, not its disk.
		want := []string{"Input/output error", "No space left on device"}[round]
		if !strings.Contains(r.stderr, want) && !strings.Contains(r.stderr, "Read-only file system") {
			t.Errorf("round %d: writer: %v, want %q", round, r, want)
		}
		must(t, "sh", "-c", `cd "$1" && sha256sum --check --quiet --strict "$2"`, "sh", fs, sums)
		if round == 0 {
			if err := os.Remove(ballast); err != nil {
				t.Fatal(err)
			}
			must(t, "umount", fs)
			// What could not be written may have been a part of the file system.
			if r := run(t, "e2fsck", "-fy", device); r.code > 1 {
				t.Fatalf("e2fsck: %v", r)
			}
		} else {
			must(t, "umount", fs)
		}
		must(t, "e2fsck", "-fn", device)
		fs = mountDevice(t, device, "-o", "ro")
		must(t, "sh", "-c", `cd "$1" && sha256sum --check --quiet --strict "$2"`, "sh", fs, sums)
		must(t, "umount", fs)
	}
	must(t, "losetup", "--detach", device)
	umount(t, dir)
	text, err := os.ReadFile(sums)
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d files were synced", strings.Count(string(text), "\n"))
	for _, name := range []string{"file-0-5", "file-1-50"} {
		if !strings.Contains(string(text), name+"\n") {
			t.Errorf("%s was not synced: that says too little", name)
		}
	}
}
