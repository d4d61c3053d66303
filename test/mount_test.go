//go:build integration

package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// mount returns when the disk can be read, and not before.
func TestMountReturnsReady(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	srv, url := serve(t, s.image)
	srv.Set(func(c *testserver.Config) { c.RTT = 300 * time.Millisecond })
	dir := makeDir(t)
	r := run(t, cloopfs, "mount", url, dir)
	if r.code != 0 || r.stdout != "" || r.stderr != "" {
		t.Fatalf("mount: %v, want success without a word", r)
	}
	if !mounted(dir) {
		t.Fatalf("%s is not mounted", dir)
	}
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
	umount(t, dir)
}

// secretURL is url with a password and a query that nobody may see.
func secretURL(url string) string {
	return strings.Replace(url, "http://", "http://user:geheim1@", 1) + "?token=geheim2&geheim3"
}

// The process in the background can be told by its arguments, and gives away no
// secrets.
func TestSeenFromOutside(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, url := serve(t, s.image)
	shown := url + "?token"
	tests := []struct {
		name string
		args func(dir, log string) []string
	}{
		{"flags first", func(dir, log string) []string {
			return []string{"--timeout", "5s", "--log-file", log, secretURL(url), dir}
		}},
		{"flags last", func(dir, log string) []string {
			return []string{secretURL(url), dir, "--log-file=" + log, "--timeout=5s"}
		}},
		{"relative mountpoint", func(dir, log string) []string {
			return []string{"--timeout=5s", secretURL(url), "--log-file", log, "./" + filepath.Base(dir) + "/"}
		}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dir := makeDir(t)
			log := filepath.Join(t.TempDir(), "log")
			cmd := exec.Command(cloopfs, append([]string{"mount"}, test.args(dir, log)...)...)
			cmd.Dir = filepath.Dir(dir)
			if r := startCmd(t, cmd).result(t); r.code != 0 || r.stderr != "" {
				t.Fatalf("mount: %v, want success without a word", r)
			}
			pids := daemons("")
			if len(pids) != 1 {
				t.Fatalf("got processes %d, want one", pids)
			}
			args := strings.Join(arguments(pids[0]), " ")
			if !strings.HasPrefix(args, "cloopfs mount ") || !strings.HasSuffix(args, " "+dir) {
				t.Errorf("arguments are %q, want %q", args, "cloopfs mount ... "+dir)
			}
			for _, want := range []string{shown, log, "5s"} {
				if !strings.Contains(args, want) {
					t.Errorf("arguments are %q, want %q among them", args, want)
				}
			}
			if got := sourceOf(dir); got != url {
				t.Errorf("/proc/mounts shows the source %q, want %q", got, url)
			}
			waitFor(t, "a line in the log", func() bool {
				content, err := os.ReadFile(log)
				return err == nil && len(content) > 0
			})
			proc := "/proc/" + strconv.Itoa(pids[0])
			for _, file := range []string{proc + "/cmdline", proc + "/environ", "/proc/mounts", log} {
				content, err := os.ReadFile(file)
				if err != nil {
					t.Error(err)
				}
				if strings.Contains(string(content), "geheim") {
					t.Errorf("%s has a secret in it: %q", file, content)
				}
			}
			umount(t, dir)
		})
	}
}

// Whatever makes a mount impossible is said before the command returns, with an
// exit status of its own, and leaves nothing behind.
func TestMountErrors(t *testing.T) {
	t.Setenv("NO_PROXY", "*") // a proxy would answer for a host that does not exist
	s := makeImage(t, 64*kib, blocks(40, 4*kib)...)
	html := []byte("<!DOCTYPE html>\n<html><body>" + strings.Repeat("Please log in. ", 100) + "</body></html>\n")
	uzip := slices.Clone(s.image)
	copy(uzip[11:], "L3.0")
	tests := []struct {
		name   string
		image  []byte
		config testserver.Config
		// url replaces the server's if it is not empty; so does dir.
		url, dir string
		flags    []string
		code     int
		want     string // in the message
		hint     bool
	}{
		{name: "unreachable server", url: "http://127.0.0.1:" + strconv.Itoa(freePort(t)) + "/disk.cloop", flags: []string{"--timeout", "1s"}, code: 4, want: "refused", hint: true},
		{name: "unknown host", url: "http://host.invalid/disk.cloop", flags: []string{"--timeout", "1s"}, code: 4, want: "host.invalid", hint: true},
		{name: "hung server", image: s.image, config: testserver.Config{Hang: testserver.HangBeforeHeaders}, flags: []string{"--timeout", "1s"}, code: 4, want: "1s"},
		{name: "404", image: nil, code: 4, want: "404", hint: true},
		{name: "403", image: s.image, config: testserver.Config{StatusTimes: -1, Status: 403}, code: 4, want: "403", hint: true},
		{name: "503", image: s.image, config: testserver.Config{StatusTimes: -1, Status: 503}, flags: []string{"--timeout", "1s"}, code: 4, want: "503"},
		{name: "no ranges", image: s.image, config: testserver.Config{IgnoreRange: true}, code: 4, want: "ignores Range requests", hint: true},
		{name: "HTML", image: html, code: 3, want: "an HTML page", hint: true},
		{name: "short text", image: []byte("hello\n"), code: 3, want: "neither a cloop image nor a disk", hint: true},
		{name: "image cut off in a block", image: s.image[:len(s.image)/2], code: 3, want: "cut off"},
		{name: "image cut off in the index", image: s.image[:200], code: 3, want: "cut off"},
		{name: "uzip", image: uzip, code: 3, want: "FreeBSD uzip with xz", hint: true},
		{name: "mountpoint missing", image: s.image, dir: "missing", code: 5, want: "no such directory", hint: true},
		{name: "mountpoint a file", image: s.image, dir: "file", code: 5, want: "not a directory"},
		{name: "mountpoint below a file", image: s.image, dir: "file/below", code: 5, want: "not a directory"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			srv, url := serve(t, test.image)
			if test.image == nil {
				url = srv.URL("missing.cloop")
			}
			if test.url != "" {
				url = test.url
			}
			srv.Set(func(c *testserver.Config) { *c = test.config })
			dir := makeDir(t)
			if test.dir != "" {
				if err := os.WriteFile(filepath.Join(filepath.Dir(dir), "file"), nil, 0o644); err != nil {
					t.Fatal(err)
				}
				dir = filepath.Join(filepath.Dir(dir), test.dir)
			}
			for _, foreground := range []bool{false, true} {
				flags := test.flags
				if foreground {
					flags = append([]string{"--foreground", "--quiet"}, flags...)
				}
				r := run(t, cloopfs, slices.Concat([]string{"mount"}, flags, []string{secretURL(url), dir})...)
				checkFailure(t, r, test.code, test.want)
				if got := strings.Contains(r.stderr, "cloopfs: hint: "); got != test.hint {
					t.Errorf("hint: %v, want %v: %q", got, test.hint, r.stderr)
				}
				if strings.Contains(r.stderr, "geheim") {
					t.Errorf("a secret is in the message %q", r.stderr)
				}
				if mounted(dir) {
					t.Errorf("%s is mounted", dir)
				}
				waitFor(t, "no process is left", func() bool { return len(daemons("")) == 0 })
			}
		})
	}
}

// A directory where a disk is mounted takes no second one.
func TestMountTwice(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	dir := mount(t, url)
	link := filepath.Join(filepath.Dir(dir), "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	for _, point := range []string{dir, link} {
		r := run(t, cloopfs, "mount", url, point)
		checkFailure(t, r, 5, "already a cloopfs mount")
		if !strings.Contains(r.stderr, "cloopfs: hint: cloopfs umount ") {
			t.Errorf("stderr is %q, want a hint", r.stderr)
		}
	}
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
	umount(t, dir)
}

// Wrong arguments are exit status 2.
func TestMountUsage(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	dir := makeDir(t)
	tests := []struct {
		args []string
		want string
	}{
		{[]string{"mount"}, "SOURCE and MOUNTPOINT missing"},
		{[]string{"mount", url}, "MOUNTPOINT missing"},
		{[]string{"mount", url, dir, "more"}, "arg"},
		{[]string{"mount", "--no-such-flag", url, dir}, "no-such-flag"},
		{[]string{"mount", "--timeout", "soon", url, dir}, "timeout"},
		{[]string{"mount", "--timeout", "-1s", url, dir}, "timeout"},
		{[]string{"mount", "--memory", "much", url, dir}, "memory"},
		{[]string{"mount", "--mode", "999", url, dir}, "--mode"},
		{[]string{"mount", "--mode", "4755", url, dir}, "--mode"},
		{[]string{"mount", "--uid", "root", url, dir}, "uid"},
		{[]string{"mount", "--connections", "0", url, dir}, "--connections"},
		{[]string{"mount", "--log-level", "loud", url, dir}, "--log-level"},
		{[]string{"mount", "--partition", "-1", url, dir}, "--partition"},
		{[]string{"mount", "--format", "qcow2", url, dir}, "--format"},
		{[]string{"mount", "-v", "-q", url, dir}, "exclude"},
		{[]string{"mount", "ftp://127.0.0.1/disk.cloop", dir}, "not an http or https URL"},
		{[]string{"mount", "http:///disk.cloop", dir}, "names no host"},
		{[]string{"umount"}, "MOUNTPOINT missing"},
		{[]string{"umount", "--lazy", "--force", dir}, "lazy"},
		{[]string{"no-such-command"}, "no-such-command"},
	}
	for _, test := range tests {
		t.Run(strings.Join(test.args[:min(3, len(test.args))], " "), func(t *testing.T) {
			checkFailure(t, run(t, cloopfs, test.args...), 2, test.want)
			if mounted(dir) {
				t.Errorf("%s is mounted", dir)
			}
		})
	}
}

// An interrupt while the image is being opened ends all processes.
func TestInterruptedMount(t *testing.T) {
	for _, flags := range [][]string{nil, {"--foreground"}} {
		for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
			t.Run(strings.Join(append(flags, sig.String()), " "), func(t *testing.T) {
				s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
				srv, url := serve(t, s.image)
				hang(t, srv, testserver.HangBeforeHeaders)
				dir := makeDir(t)
				p := start(t, cloopfs, slices.Concat([]string{"mount"}, flags, []string{url, dir})...)
				waitFor(t, "the first request", func() bool { return asked(srv, 0) })
				if err := p.cmd.Process.Signal(sig); err != nil {
					t.Fatal(err)
				}
				if !p.endsWithin(soon) {
					t.Fatalf("still there %v after the signal", soon)
				}
				if r := p.result(t); r.code != 130 || r.stdout != "" {
					t.Errorf("mount: %v, want exit status 130", r)
				}
				waitFor(t, "no process is left", func() bool { return len(daemons("")) == 0 })
				if mounted(dir) {
					t.Errorf("%s is mounted", dir)
				}
			})
		}
	}
}

// With --foreground the command stays, logs to stderr, and ends with SIGINT or
// SIGTERM.
func TestForeground(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		t.Run(sig.String(), func(t *testing.T) {
			s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
			_, url := serve(t, s.image)
			dir := makeDir(t)
			p := start(t, cloopfs, "mount", "--foreground", url, dir)
			waitFor(t, "mounted", func() bool { return mounted(dir) })
			checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
			if pid := daemon(t, dir); pid != p.pid() {
				t.Errorf("process %d serves the mount, want %d", pid, p.pid())
			}
			if err := p.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
			r := p.result(t)
			if r.code != 0 || r.stdout != "" || !strings.Contains(r.stderr, "mounted") || !strings.Contains(r.stderr, dir) {
				t.Errorf("mount: %v, want success and a line in the log", r)
			}
			if mounted(dir) {
				t.Errorf("%s is still mounted", dir)
			}
		})
	}
}

// A mount whose process was killed is cleared away by the next mount.
func TestMountClearsDeadMount(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	dir := deadMount(t, url)
	r := run(t, cloopfs, "mount", url, dir)
	if r.code != 0 || !strings.HasPrefix(r.stderr, "cloopfs: cleared a dead mount") {
		t.Fatalf("mount: %v, want success and a word about the dead mount", r)
	}
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
	umount(t, dir)
}

// deadMount makes a mount whose process is dead.
func deadMount(t *testing.T, url string) string {
	t.Helper()
	dir := mount(t, url)
	must(t, "cat", diskOf(dir)) // the kernel now knows the directory's attributes
	killDaemon(t, dir)
	return dir
}

// The background process holds nothing that its caller had open: the lock of a
// script, or the pipe of whoever waits for the script's output.
func TestMountInheritsNothing(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	dir := makeDir(t)
	lock := filepath.Join(t.TempDir(), "lock")
	must(t, "sh", "-c", `exec 9>"$1"; flock 9; "$2" mount "$3" "$4"`, "sh", lock, cloopfs, url, dir)
	must(t, "flock", "--nonblock", lock, "true")
	umount(t, dir)
}

// A mountpoint's name is bytes, not text.
func TestMountpointOfAnyName(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	dir := filepath.Join(makeDir(t), "m\xff \\n")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	mountAt(t, url, dir)
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
	umount(t, dir)
}
