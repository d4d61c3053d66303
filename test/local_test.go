//go:build integration

package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"testing"
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
