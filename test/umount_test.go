//go:build integration

package test

import (
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/internal/testserver"
)

// What is no mount of ours can't be unmounted.
func TestUmountOther(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o644); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{t.TempDir(), file, "/proc", "/"} {
		checkFailure(t, run(t, cloopfs, "umount", path), 1, "not a cloopfs mount")
	}
	checkFailure(t, run(t, cloopfs, "umount", "/no/such/directory"), 1, "/no/such/directory")
}

// umount returns when the process has ended, however the mountpoint is written.
func TestUmount(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	tests := []struct {
		name string
		args func(dir string) []string
	}{
		{"absolute", func(dir string) []string { return []string{"umount", dir} }},
		{"unmount", func(dir string) []string { return []string{"unmount", dir} }},
		{"relative", func(dir string) []string { return []string{"umount", "./" + filepath.Base(dir) + "/"} }},
		{"through a link", func(string) []string { return []string{"umount", "link"} }},
		{"force", func(dir string) []string { return []string{"umount", "--force", dir} }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := mount(t, url)
			must(t, "cmp", diskOf(dir), diskOf(dir))
			if err := os.Symlink("mnt", filepath.Join(filepath.Dir(dir), "link")); err != nil {
				t.Fatal(err)
			}
			cmd := exec.Command(cloopfs, test.args(dir)...)
			cmd.Dir = filepath.Dir(dir)
			r := startCmd(t, cmd).result(t)
			pids := daemons(dir)
			if r.code != 0 || r.stdout != "" || r.stderr != "" {
				t.Errorf("umount: %v, want success without a word", r)
			}
			if mounted(dir) {
				t.Errorf("%s is still mounted", dir)
			}
			if len(pids) > 0 {
				t.Errorf("umount has returned, and process %d lives on", pids)
			}
		})
	}
}

// umount waits for the process, however long that takes to end.
func TestUmountWaits(t *testing.T) {
	for _, flags := range [][]string{nil, {"--force"}} {
		t.Run(strings.Join(append([]string{"umount"}, flags...), " "), func(t *testing.T) {
			s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
			_, url := serve(t, s.image)
			dir := mount(t, url)
			pid := daemon(t, dir)
			if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
			p := start(t, cloopfs, slices.Concat([]string{"umount"}, flags, []string{dir})...)
			waitFor(t, "unmounted", func() bool { return !mounted(dir) })
			if p.endsWithin(300 * time.Millisecond) {
				t.Errorf("umount has returned, and process %d lives on: %v", pid, p.result(t))
			}
			if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
				t.Fatal(err)
			}
			if r := p.result(t); r.code != 0 {
				t.Errorf("umount: %v", r)
			}
			if pids := daemons(dir); len(pids) > 0 {
				t.Errorf("umount has returned, and process %d lives on", pids)
			}
		})
	}
}

// umount(8) works too, and the process ends by itself.
func TestForeignUmount(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	for _, args := range [][]string{{"umount"}, {"fusermount3", "-u"}} {
		t.Run(args[0], func(t *testing.T) {
			dir := mount(t, url)
			must(t, args[0], append(args[1:], dir)...)
			waitFor(t, "the process has ended", func() bool { return len(daemons(dir)) == 0 })
			if mounted(dir) {
				t.Errorf("%s is still mounted", dir)
			}
		})
	}
}

// A mount in use stays, and umount says who uses it and how to end that.
func TestUmountBusy(t *testing.T) {
	f := need(t, small)
	url := serveFile(t, f.image)

	// busy tries to unmount dir, which must fail, say why, and change nothing.
	busy := func(t *testing.T, dir, used, user, hint string) {
		t.Helper()
		r := run(t, cloopfs, "umount", dir)
		want := fmt.Sprintf("cloopfs: umount %s: %s is in use by %s\n", dir, used, user)
		if hint != "" {
			want += "cloopfs: hint: " + hint + "\n"
		}
		if r.code != 1 || r.stderr != want {
			t.Errorf("umount: %v, want exit status 1 and %q", r, want)
		}
		must(t, "cmp", diskOf(dir), f.raw)
	}

	t.Run("loop device", func(t *testing.T) {
		dir := mount(t, url)
		device := attach(t, diskOf(dir))
		busy(t, dir, diskOf(dir), device, "losetup -d "+device)
		must(t, "losetup", "--detach", device)
		umount(t, dir)
	})
	t.Run("mounted loop device", func(t *testing.T) {
		dir := mount(t, url)
		tree := mountLoop(t, diskOf(dir))
		busy(t, dir, diskOf(dir), sourceOf(tree), "umount "+tree)
		must(t, "umount", tree)
		umount(t, dir)
	})
	t.Run("working directory", func(t *testing.T) {
		dir := mount(t, url)
		cmd := exec.Command("sleep", "1000")
		cmd.Dir = dir
		p := startCmd(t, cmd)
		busy(t, dir, dir, fmt.Sprintf("sleep (pid %d)", p.pid()), "")
		p.kill()
		p.endsWithin(soon)
		umount(t, dir)
	})
	t.Run("open file", func(t *testing.T) {
		dir := mount(t, url)
		p, _ := holder(t, diskOf(dir), "cat")
		busy(t, dir, diskOf(dir), fmt.Sprintf("sh (pid %d)", p.pid()), "")
		p.kill()
		p.endsWithin(soon)
		umount(t, dir)
	})
}

// holder is a shell that has file open as its input, and runs a command on it
// when proceed is called.
func holder(t *testing.T, file, command string) (p *process, proceed func()) {
	t.Helper()
	cmd := exec.Command("sh", "-c", `exec 3<"$1"; echo open >&2; read line; exec <&3 3<&-; exec $2`, "sh", file, command)
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	p = startCmd(t, cmd)
	waitFor(t, "the file is open", func() bool {
		target, _ := os.Readlink("/proc/" + strconv.Itoa(p.pid()) + "/fd/3")
		return target == file
	})
	return p, func() {
		_, _ = io.WriteString(stdin, "\n") // its result tells
	}
}

// umount --lazy detaches a mount in use at once; its user reads on.
func TestUmountLazy(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, url := serve(t, s.image)
	dir := mount(t, url)
	p, proceed := holder(t, diskOf(dir), "cat")
	must(t, cloopfs, "umount", "--lazy", dir)
	if mounted(dir) {
		t.Errorf("%s is still mounted", dir)
	}
	proceed()
	checkBytes(t, "file that was open", p.result(t).stdout, s.disk)
	waitFor(t, "the process has ended", func() bool { return len(daemons(dir)) == 0 })
}

// A signal detaches a mount in use; its user reads on, and when the last one has
// let go the process ends.
func TestTerminateBusy(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, url := serve(t, s.image)
	dir := mount(t, url)
	pid := daemon(t, dir)
	p, proceed := holder(t, diskOf(dir), "cat")
	if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "detached", func() bool { return !mounted(dir) })
	if pids := daemons(dir); len(pids) != 1 {
		t.Fatalf("processes are %d, want %d alone to serve on", pids, pid)
	}
	proceed()
	checkBytes(t, "file that was open", p.result(t).stdout, s.disk)
	waitFor(t, "the process has ended", func() bool { return len(daemons(dir)) == 0 })
}

// A second signal ends the process whoever uses the mount.
func TestTerminateTwice(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, url := serve(t, s.image)
	dir := makeDir(t)
	p := start(t, cloopfs, "mount", "--foreground", url, dir)
	waitFor(t, "mounted", func() bool { return mounted(dir) })
	user, proceed := holder(t, diskOf(dir), "cat")
	for range 2 {
		if err := p.cmd.Process.Signal(syscall.SIGTERM); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "detached", func() bool { return !mounted(dir) })
	}
	if r := p.result(t); r.code != 1 {
		t.Errorf("mount: %v, want exit status 1", r)
	}
	proceed()
	if r := user.result(t); r.code == 0 || r.stdout != "" {
		t.Errorf("user: %v, want an error", r)
	}
}

// A signal unmounts the disk also where a directory above it has been renamed.
func TestTerminateRenamed(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	tests := []struct {
		name string
		dir  func(t testing.TB) string
		run  func(t *testing.T, name string, args ...string) result
	}{
		{"root", makeDir, func(t *testing.T, name string, args ...string) result { return run(t, name, args...) }},
		{"user", userDir, asUser},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := test.dir(t)
			if r := test.run(t, cloopfs, "mount", url, dir); r.code != 0 {
				t.Fatalf("mount: %v", r)
			}
			above := filepath.Dir(dir)
			renamed := above + "-renamed"
			if err := os.Rename(above, renamed); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { _ = os.Rename(renamed, above) }) // for what clears up
			point := filepath.Join(renamed, filepath.Base(dir))
			if !mounted(point) {
				t.Fatalf("%s is not mounted", point)
			}
			if err := syscall.Kill(daemon(t, dir), syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "unmounted, the process has ended", func() bool { return !mounted(point) && len(daemons(dir)) == 0 })
		})
	}
}

// Signals that mount was started to ignore, as by nohup(1), end neither it nor the process in
// the background; SIGTERM does.
func TestTerminateIgnored(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	for _, flags := range []string{"", "--foreground"} {
		t.Run("mount "+flags, func(t *testing.T) {
			dir := makeDir(t)
			p := start(t, "sh", "-c", `trap "" HUP INT; exec "$1" mount $2 "$3" "$4"`, "sh", cloopfs, flags, url, dir)
			waitFor(t, "mounted", func() bool { return mounted(dir) })
			if flags == "" {
				p.result(t)
			}
			pid := daemon(t, dir)
			for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT} {
				if err := syscall.Kill(pid, signal); err != nil {
					t.Fatal(err)
				}
			}
			time.Sleep(300 * time.Millisecond) // for what must not happen
			checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the process has ended", func() bool { return !mounted(dir) && len(daemons(dir)) == 0 })
		})
	}
}

// A mount whose process was killed can be unmounted.
func TestUmountDead(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	dir := deadMount(t, url)
	umount(t, dir)
}

// removeSocket removes the control socket of the mount at dir.
func removeSocket(t *testing.T, dir string) {
	t.Helper()
	for _, fields := range mountinfo() {
		if fields[4] == dir {
			_, minor, _ := strings.Cut(fields[2], ":")
			if err := os.Remove("/run/cloopfs/" + minor + ".sock"); err != nil {
				t.Fatal(err)
			}
			return
		}
	}
	t.Fatalf("%s is not mounted", dir)
}

// A process that lives and can't be waited for is not taken for a dead one: umount unmounts,
// and says that it does not know the end.
func TestUmountWithoutSocket(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	const unknown = "unmounted, but can't wait for its process: "
	for _, flags := range [][]string{nil, {"--force"}} {
		t.Run(strings.Join(append([]string{"umount"}, flags...), " "), func(t *testing.T) {
			dir := mount(t, url)
			removeSocket(t, dir)
			checkFailure(t, run(t, cloopfs, slices.Concat([]string{"umount"}, flags, []string{dir})...), 1, unknown)
			waitFor(t, "unmounted, the process has ended", func() bool { return !mounted(dir) && len(daemons(dir)) == 0 })
		})
	}
	t.Run("stopped", func(t *testing.T) {
		dir := mount(t, url)
		pid := daemon(t, dir)
		removeSocket(t, dir)
		if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
		waitFor(t, "all threads have stopped", func() bool {
			threads, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
			return !slices.ContainsFunc(threads, func(thread string) bool {
				stat, _ := os.ReadFile(thread)
				return !strings.Contains(string(stat), ") T ")
			})
		})
		checkFailure(t, run(t, cloopfs, "umount", dir), 1, "in use") // by the question whether it lives
		checkFailure(t, run(t, cloopfs, "umount", "--force", dir), 1, unknown)
		if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
			t.Fatal(err)
		}
		waitFor(t, "unmounted, the process has ended", func() bool { return !mounted(dir) && len(daemons(dir)) == 0 })
	})
}

// What somebody else has mounted over a mount is left alone: by umount, and by
// a signal to the daemon.
func TestUmountCovered(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	dir := mount(t, url)
	must(t, "mount", "-t", "tmpfs", "cover", dir)
	covered := func() bool { return slices.Contains(mountpoints("tmpfs"), dir) }
	t.Cleanup(func() {
		if covered() {
			try("umount", dir)
		}
	})
	checkFailure(t, run(t, cloopfs, "umount", dir), 1, "cover (tmpfs) is mounted over it")
	if err := syscall.Kill(daemon(t, dir), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // for what must not happen
	if !covered() {
		t.Error("the file system above is gone")
	}
	must(t, "umount", dir)
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
	umount(t, dir)
}

// A mount that lives on elsewhere is said to: umount does not wait for ever.
func TestUmountElsewhere(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	dir := mount(t, url)
	other := makeDir(t)
	must(t, "mount", "--bind", dir, other)
	t.Cleanup(func() { try("umount", other) })
	checkFailure(t, run(t, cloopfs, "umount", dir), 1, "still in use")
	checkBytes(t, "disk at the other place", must(t, "cat", diskOf(other)), s.disk)
	// Nor does a signal end what somebody else has made.
	if err := syscall.Kill(daemon(t, dir), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	time.Sleep(300 * time.Millisecond) // for what must not happen
	checkBytes(t, "disk after a signal", must(t, "cat", diskOf(other)), s.disk)
	must(t, "umount", other)
	waitFor(t, "the process has ended", func() bool { return len(daemons(dir)) == 0 })
}

// A process that is writing to its cache still is waited for, however long that takes.
func TestUmountSlowCache(t *testing.T) {
	srv, url := serve(t, clooptest.Assemble(512, make([][]byte, 100_000)))
	srv.Set(func(c *testserver.Config) { c.RTT = time.Second })
	_, disk := makeExt4(t, t.TempDir(), "64m")
	dir := mount(t, url, append(cacheFlags(filepath.Join(disk, "cache"), "1GiB"), "--background-fill")...)
	// The rest of the index is on its way, and can't be stored.
	must(t, "fsfreeze", "--freeze", disk)
	thaw := sync.OnceFunc(func() { must(t, "fsfreeze", "--unfreeze", disk) })
	defer thaw()
	time.Sleep(2 * time.Second)
	p := start(t, cloopfs, "umount", dir)
	p.endsWithin(12 * time.Second) // after ten it asks
	thaw()
	if r := p.result(t); r.code != 0 || r.stderr != "" || mounted(dir) {
		t.Errorf("umount: %v, and still mounted: %v", r, mounted(dir))
	}
}

// The shell completes the mountpoints that one may unmount.
func TestUmountCompletion(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	dir := mount(t, url)
	offered := func(r result) bool { return slices.Contains(strings.Split(r.stdout, "\n"), dir) }
	if r := run(t, cloopfs, "__complete", "umount", ""); !offered(r) {
		t.Errorf("root: %v, want %s", r, dir)
	}
	if r := asUser(t, cloopfs, "__complete", "umount", ""); r.code != 0 || offered(r) {
		t.Errorf("user: %v, want nothing of root's", r)
	}
	umount(t, dir)
}
