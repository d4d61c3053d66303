//go:build integration

package test

import (
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
// after the timeout, what is in memory is read, and when it goes on, so do reads.
func TestHungLocalImage(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(64, 60*kib)...)
	file := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(file, s.image, 0o644); err != nil {
		t.Fatal(err)
	}
	below := makeDir(t)
	server := serveBareAt(t, file, below)
	dir := mount(t, diskOf(below), "--timeout", "2s")
	here, away := directRead(diskOf(dir), 2*64*kib, pageSize), directRead(diskOf(dir), 60*64*kib, pageSize)
	checkBytes(t, "before", must(t, here[0], here[1:]...), s.block(2)[:pageSize])

	if err := server.cmd.Process.Signal(syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	checkBytes(t, "in memory", quick(t, here[0], here[1:]...), s.block(2)[:pageSize])
	var r result
	if d := elapsed(func() { r = run(t, away[0], away[1:]...) }); r.code == 0 || d > 3*time.Second {
		t.Errorf("a read of what hangs: %v after %v, want an I/O error after 2 seconds", r, d)
	}
	if err := server.cmd.Process.Signal(syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "read after the hang", func() bool { return run(t, away[0], away[1:]...).code == 0 })
	checkBytes(t, "after", must(t, away[0], away[1:]...), s.block(60)[:pageSize])
	umount(t, dir)
	must(t, "umount", below)
	if r := server.result(t); r.code != 0 {
		t.Errorf("the server below: %v", r)
	}
}
