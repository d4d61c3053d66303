//go:build integration

package test

import (
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// nobody and nogroup in Debian.
const nobody = 65534

// userDir makes a mountpoint for a user without rights, who may use /dev/fuse as
// users of other machines may.
func userDir(t testing.TB) string {
	t.Helper()
	info, err := os.Stat("/dev/fuse")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod("/dev/fuse", 0o666); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := os.Chmod("/dev/fuse", info.Mode().Perm()); err != nil {
			t.Error(err)
		}
	})
	// Where the sockets of a user without a session lie.
	const sockets = "/tmp/cloopfs-65534"
	if _, err := os.Stat(sockets); os.IsNotExist(err) {
		t.Cleanup(func() { _ = os.RemoveAll(sockets) }) // a killed process leaves its socket
	}
	dir := openDir(t)
	if err := os.Chown(dir, nobody, nobody); err != nil {
		t.Fatal(err)
	}
	return dir
}

// asUser runs a command as a user without rights.
func asUser(t *testing.T, name string, args ...string) result {
	t.Helper()
	return startCmd(t, asNobody(name, args...)).result(t)
}

// A user without rights can mount, read and unmount.
func TestUser(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, url := serve(t, s.image)
	dir := userDir(t)
	if r := asUser(t, cloopfs, "mount", url, dir); r.code != 0 || r.stderr != "" {
		t.Fatalf("mount: %v, want success without a word", r)
	}
	checkBytes(t, "disk", asUser(t, "cat", diskOf(dir)).stdout, s.disk)
	if r := asUser(t, "stat", "--format=%a %u:%g", diskOf(dir)); r.stdout != "400 65534:65534\n" {
		t.Errorf("stat: %v, want the user's own file", r)
	}
	if r := asUser(t, "touch", diskOf(dir)); r.code == 0 {
		t.Errorf("touch: %v, want an error", r)
	}
	// Without --allow-other it is for that user alone.
	if r := run(t, "cat", diskOf(dir)); !strings.Contains(r.stderr, "Permission denied") {
		t.Errorf("root: %v, want no permission", r)
	}
	for _, fields := range mountinfo() {
		options := strings.Split(fields[5], ",")
		if fields[4] == dir && !(slices.Contains(options, "ro") && slices.Contains(options, "nosuid") && slices.Contains(options, "nodev")) {
			t.Errorf("mounted with %q, want ro, nosuid and nodev", options)
		}
	}
	if r := asUser(t, cloopfs, "umount", dir); r.code != 0 || r.stderr != "" {
		t.Errorf("umount: %v, want success without a word", r)
	}
	if pids := daemons(dir); len(pids) > 0 {
		t.Errorf("umount has returned, and process %d lives on", pids)
	}
	if mounted(dir) {
		t.Errorf("%s is still mounted", dir)
	}
}

// A user's umount names who uses the mount, too.
func TestUserBusy(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, url := serve(t, s.image)
	dir := userDir(t)
	if r := asUser(t, cloopfs, "mount", url, dir); r.code != 0 {
		t.Fatalf("mount: %v", r)
	}
	p := startCmd(t, asNobody("sh", "-c", `cd "$1" && exec sleep 1000`, "sh", dir))
	waitFor(t, "the working directory", func() bool {
		cwd, _ := os.Readlink(filepath.Join("/proc", strconv.Itoa(p.pid()), "cwd"))
		return cwd == dir
	})
	waitFor(t, "sleep", func() bool { return slices.Contains(arguments(p.pid()), "1000") })
	checkFailure(t, asUser(t, cloopfs, "umount", dir), 1, "is in use by sleep (pid "+strconv.Itoa(p.pid())+")")
	p.kill()
	p.endsWithin(soon)
	if r := asUser(t, cloopfs, "umount", dir); r.code != 0 {
		t.Errorf("umount: %v", r)
	}
}

// A user's dead mount is cleared away.
func TestUserDead(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, url := serve(t, s.image)
	dir := userDir(t)
	kill := func() {
		t.Helper()
		if r := asUser(t, cloopfs, "mount", url, dir); r.code != 0 {
			t.Fatalf("mount: %v", r)
		}
		if err := syscall.Kill(daemon(t, dir), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "the mount is dead", func() bool { // the process may be so a moment before
			return strings.Contains(asUser(t, "stat", "--file-system", dir).stderr, "Transport endpoint is not connected")
		})
	}
	kill()
	kill() // mounts over the dead one
	if r := asUser(t, cloopfs, "umount", dir); r.code != 0 || mounted(dir) {
		t.Errorf("umount: %v, want success", r)
	}
	kill()
	umount(t, dir) // root, whom the kernel tells nothing of the mount
}

// --allow-other is refused to users where the machine does not allow it.
func TestUserAllowOther(t *testing.T) {
	conf, err := os.ReadFile("/etc/fuse.conf")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(conf)) {
		if strings.TrimSpace(line) == "user_allow_other" {
			t.Fatal("/etc/fuse.conf allows what this test expects to be refused")
		}
	}
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	dir := userDir(t)
	r := asUser(t, cloopfs, "mount", "--allow-other", url, dir)
	checkFailure(t, r, 5, "--allow-other")
	if !strings.Contains(r.stderr, "cloopfs: hint: ") || !strings.Contains(r.stderr, "user_allow_other") {
		t.Errorf("stderr is %q, want a hint", r.stderr)
	}
}
