//go:build integration

package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

// A local image is mounted like a remote one, also by a path relative to a
// directory that the background process does not share, and from a device.
func TestLocalImage(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	file := filepath.Join(t.TempDir(), "image.cloop")
	if err := os.WriteFile(file, s.image, 0o644); err != nil {
		t.Fatal(err)
	}
	t.Run("relative path", func(t *testing.T) {
		dir := makeDir(t)
		cmd := exec.Command(cloopfs, "mount", "./image.cloop", dir)
		cmd.Dir = filepath.Dir(file)
		if r := startCmd(t, cmd).result(t); r.code != 0 {
			t.Fatalf("mount: %v", r)
		}
		checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
		umount(t, dir)
	})
	t.Run("device", func(t *testing.T) {
		// A device is a whole number of sectors: the image's end is padded.
		if err := os.Truncate(file, int64((len(s.image)+511)/512*512)); err != nil {
			t.Fatal(err)
		}
		device := attach(t, file)
		dir := mount(t, device)
		checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
		umount(t, dir)
		must(t, "losetup", "--detach", device)
	})
	t.Run("changed", func(t *testing.T) {
		dir := mount(t, file)
		must(t, "truncate", "--size=+512", file)
		if r := run(t, "cat", diskOf(dir)); r.code == 0 {
			t.Error("an image that was changed is read on")
		}
		umount(t, dir)
	})
}

// An image on a file system that hangs is like one on a server that does: reads fail
// after the timeout, what is in memory is read, and when it goes on, so do reads; of blocks
// that are larger than reads as well, which are decoded ahead.
func TestHungLocalImage(t *testing.T) {
	for name, c := range map[string]struct{ blockSize, stored int }{"64K": {64 * kib, 60 * kib}, "1M": {mib, 900 * kib}} {
		t.Run(name, func(t *testing.T) {
			s := makeImage(t, c.blockSize, blocks(32, c.stored)...)
			file := filepath.Join(t.TempDir(), "image")
			if err := os.WriteFile(file, s.image, 0o644); err != nil {
				t.Fatal(err)
			}
			below := makeDir(t)
			server := serveBareAt(t, file, below)
			dir := mount(t, diskOf(below), "--timeout", "2s")
			read := func(n int) []string { return directRead(diskOf(dir), n*c.blockSize, pageSize) }
			// In order, so that more is expected.
			must(t, "dd", "if="+diskOf(dir), "of="+os.DevNull, "iflag=direct", "bs=32K", fmt.Sprint("count=", 3*c.blockSize/(32*kib)), "status=none")
			must(t, read(2)[0], read(2)[1:]...)

			if err := server.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			checkBytes(t, "in memory", quick(t, read(2)[0], read(2)[1:]...), s.block(2)[:pageSize])
			for _, args := range [][]string{
				read(30),
				{"dd", "if=" + diskOf(dir), "of=" + os.DevNull, "iflag=direct", "bs=32K", "skip=" + fmt.Sprint(2*c.blockSize/(32*kib)), "status=none"},
			} {
				var r result
				if d := elapsed(func() { r = run(t, args[0], args[1:]...) }); r.code == 0 || d > 3*time.Second {
					t.Errorf("%s, of what hangs: %v after %v, want an I/O error after 2 seconds", args, r, d)
				}
			}
			if err := server.cmd.Process.Signal(syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "read after the hang", func() bool { return run(t, read(30)[0], read(30)[1:]...).code == 0 })
			checkBytes(t, "after", must(t, read(30)[0], read(30)[1:]...), s.block(30)[:pageSize])
			umount(t, dir)
			must(t, "umount", below)
			if r := server.result(t); r.code != 0 {
				t.Errorf("the server below: %v", r)
			}
		})
	}
}

// The index of such an image is no better than its blocks: who needs of it what was not read
// yet waits for the timeout, and is no burden on the process's end.
func TestHungLocalIndex(t *testing.T) {
	const page = 512 // entries that are read together at least
	s := makeImage(t, 4*kib, blocks(10*page, kib)...)
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, s.image, 0o644); err != nil {
		t.Fatal(err)
	}
	below := makeDir(t)
	server := serveBareAt(t, file, below)
	dir := mount(t, diskOf(below), "--timeout", "2s")
	read := func(n int) []string { return directRead(diskOf(dir), n*4*kib, pageSize) }
	signal := func(s syscall.Signal) {
		t.Helper()
		if err := server.cmd.Process.Signal(s); err != nil {
			t.Fatal(err)
		}
	}
	hang := func() {
		t.Helper()
		must(t, "dd", "if="+diskOf(below), "iflag=nocache", "count=0", "status=none") // not from the page cache
		signal(syscall.SIGSTOP)
	}
	fails := func(n int) {
		t.Helper()
		p := start(t, read(n)[0], read(n)[1:]...)
		if !p.endsWithin(3 * time.Second) {
			t.Fatalf("block %d: a read has not ended 3 seconds after it began, with a timeout of 2", n)
		}
		if r := p.result(t); r.code == 0 {
			t.Errorf("block %d: %v, want an I/O error", n, r)
		}
	}

	t.Cleanup(func() { _ = server.cmd.Process.Signal(syscall.SIGCONT) }) // it may have ended
	must(t, read(2)[0], read(2)[1:]...)
	hang()
	fails(page)
	fails(page)
	checkBytes(t, "in memory", quick(t, read(2)[0], read(2)[1:]...), s.block(2)[:pageSize])
	signal(syscall.SIGCONT)
	waitFor(t, "read after the hang", func() bool { return run(t, read(page)[0], read(page)[1:]...).code == 0 })
	checkBytes(t, "after", must(t, read(page)[0], read(page)[1:]...), s.block(page)[:pageSize])

	hang()
	fails(8 * page) // of the index
	fails(3)        // of the block
	quick(t, cloopfs, "umount", "--force", dir)
	if pids := daemons(dir); len(pids) > 0 {
		t.Errorf("umount --force has returned, and process %d lives on", pids)
	}
	signal(syscall.SIGCONT)
	must(t, "umount", below)
	if r := server.result(t); r.code != 0 {
		t.Errorf("the server below: %v", r)
	}
}
