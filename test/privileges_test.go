//go:build integration

package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// taskStatus is a field of /proc/PID/task/TID/status for each thread of a process.
func taskStatus(t *testing.T, pid int, field string) []string {
	t.Helper()
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(files) == 0 {
		t.Fatalf("process %d has no threads: %v", pid, err)
	}
	var values []string
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(text)) {
			if name, value, _ := strings.Cut(line, ":"); name == field {
				values = append(values, strings.TrimSpace(value))
			}
		}
	}
	return values
}

// checkTasks checks that a field is the same for all threads of a process.
func checkTasks(t *testing.T, pid int, field, want string) {
	t.Helper()
	values := taskStatus(t, pid, field)
	if slices.Sort(values); values[0] != want || values[len(values)-1] != want {
		t.Errorf("%s of the threads is %q, want %q", field, slices.Compact(values), want)
	}
}

// capabilities are those of a list that this process has, in the form of /proc.
func capabilities(t *testing.T, list ...int) string {
	t.Helper()
	own, err := strconv.ParseUint(taskStatus(t, os.Getpid(), "CapPrm")[0], 16, 64)
	if err != nil {
		t.Fatal(err)
	}
	var set uint64
	for _, c := range list {
		set |= 1 << c
	}
	return fmt.Sprintf("%016x", own&set)
}

// root's mount keeps the capabilities that it needs, in all threads, and gets no others
// by running a program. All works with those.
func TestPrivileges(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(64, 4*kib)...)
	_, url := serve(t, s.image)
	base := []int{unix.CAP_SYS_ADMIN, unix.CAP_DAC_READ_SEARCH}
	tmp := t.TempDir()
	for _, test := range []struct {
		name  string
		flags []string
		want  string
	}{
		{"read-only", []string{"--cache-size", "1GiB", "--cache-dir", filepath.Join(tmp, "cache"), "--background-fill"}, capabilities(t, base...)},
		{"overlay", []string{"--overlay", filepath.Join(tmp, "overlay")}, capabilities(t, base...)},
		{"ephemeral", []string{"--ephemeral"}, capabilities(t, base...)},
		{"record", []string{"--record", filepath.Join(tmp, "record")}, capabilities(t, append(base, unix.CAP_DAC_OVERRIDE)...)},
		{"root disk", []string{"--root-disk"}, capabilities(t, append(base, unix.CAP_IPC_LOCK)...)},
	} {
		for _, how := range []string{"background", "foreground"} {
			t.Run(test.name+" "+how, func(t *testing.T) {
				dir := makeDir(t)
				if how == "foreground" {
					start(t, cloopfs, slices.Concat([]string{"mount", "--foreground"}, test.flags, []string{url, dir})...)
					waitFor(t, "the mount", func() bool { return mounted(dir) && run(t, cloopfs, "status", dir).code == 0 })
				} else {
					mountAt(t, url, dir, test.flags...)
				}
				checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
				if slices.Contains(test.flags, "--overlay") {
					must(t, "dd", "if="+diskOf(dir), "of="+diskOf(dir), "bs=64K", "count=4", "conv=notrunc,fsync", "status=none")
				}
				pid := daemon(t, dir)
				for _, field := range []string{"CapPrm", "CapEff", "CapBnd"} {
					checkTasks(t, pid, field, test.want)
				}
				for _, field := range []string{"CapInh", "CapAmb"} {
					checkTasks(t, pid, field, "0000000000000000")
				}
				checkTasks(t, pid, "NoNewPrivs", "1")
				if got := statusOf(t, dir); got.PID != pid {
					t.Errorf("status is of process %d, want %d", got.PID, pid)
				}
				if how == "foreground" {
					// It unmounts by itself, also where root could not get without rights.
					if err := unix.Kill(pid, unix.SIGTERM); err != nil {
						t.Fatal(err)
					}
					waitFor(t, "its end", func() bool { return len(daemons(dir)) == 0 && !mounted(dir) })
					return
				}
				umount(t, dir)
			})
		}
	}
}

// root's mount at a place where only another user may go is unmounted at a signal, too.
func TestPrivilegesElsewhere(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	dir := filepath.Join(makeDir(t), "private", "mnt")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{filepath.Dir(dir), dir} {
		if err := os.Chown(path, nobody, nobody); err != nil {
			t.Fatal(err)
		}
	}
	mountAt(t, url, dir)
	if err := unix.Kill(daemon(t, dir), unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "its end", func() bool { return len(daemons(dir)) == 0 && !mounted(dir) })
}

// A user's mount has no capabilities to lose. It keeps the way to the set-uid helper,
// which unmounts for it, and its memory is its own.
func TestUserPrivileges(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	dir := userDir(t)
	if r := asUser(t, cloopfs, "mount", url, dir); r.code != 0 || r.stderr != "" {
		t.Fatalf("mount: %v, want success without a word", r)
	}
	pid := daemon(t, dir)
	for _, field := range []string{"CapPrm", "CapEff", "CapInh", "CapAmb"} {
		checkTasks(t, pid, field, "0000000000000000")
	}
	checkTasks(t, pid, "NoNewPrivs", "0")
	if r := asUser(t, "cat", fmt.Sprintf("/proc/%d/environ", pid)); r.code == 0 {
		t.Error("another process of the user can look into the one that serves the mount")
	}
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "its end", func() bool { return len(daemons(dir)) == 0 && !mounted(dir) })
}

// What a mount makes is its user's alone, whatever his umask.
func TestMadeForOneUser(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, url := serve(t, s.image)
	tmp := t.TempDir()
	cache, overlay, record, log := filepath.Join(tmp, "cache"), filepath.Join(tmp, "overlay"), filepath.Join(tmp, "record"), filepath.Join(tmp, "log")
	dir := makeDir(t)
	must(t, "sh", "-c", `umask 0; exec "$@"`, "sh", cloopfs, "mount", "--cache-dir", cache, "--cache-size", "1GiB",
		"--overlay", overlay, "--record", record, "--log-file", log, url, dir)
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
	made := must(t, "find", cache, overlay, log, "/run/cloopfs", "-printf", "%m %y %p\n")
	if strings.Count(made, "\n") < 10 {
		t.Errorf("made %q, want a cache, an overlay, a socket and a log", made)
	}
	for line := range strings.Lines(made) {
		if !strings.HasPrefix(line, "700 d ") && !strings.HasPrefix(line, "600 f ") && !strings.HasPrefix(line, "600 s ") {
			t.Errorf("others may use %s", line)
		}
	}
	umount(t, dir)
}

// Where /proc hides processes from who can't trace them, a signal that a reader handles ends
// no read.
func TestPrivilegesAndHiddenProc(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	srv, url := serve(t, s.image)
	dir := makeDir(t)
	must(t, "unshare", "--mount", "sh", "-e", "-c",
		`mount -t proc -o hidepid=ptraceable proc /proc; exec "$@"`, "sh", cloopfs, "mount", url, dir)
	pid := daemon(t, dir)
	checkTasks(t, pid, "CapEff", capabilities(t, unix.CAP_SYS_ADMIN, unix.CAP_DAC_READ_SEARCH, unix.CAP_SYS_PTRACE))
	hang(t, srv, testserver.HangBeforeHeaders)
	startInterrupted(t, pid, dir).check(t, srv, s)
	checkBytes(t, "disk", must(t, "nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", pid), "cat", diskOf(dir)), s.disk)
	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "its end", func() bool { return len(daemons(dir)) == 0 })
}

// interruptedReader is a process that reads block 3 of a disk past the page cache, and handles
// SIGUSR1: its read fails if it is interrupted.
type interruptedReader struct{ *process }

// startInterrupted starts such a reader in the mount namespace of a process, where the disk is
// mounted at dir, and returns when it waits.
func startInterrupted(t *testing.T, pid int, dir string) interruptedReader {
	t.Helper()
	const script = `$SIG{USR1} = sub {}; sysopen(STDIN, $ARGV[0], 040000) && sysseek(STDIN, 3 << 16, 0) or die "open: $!";
		sysread(STDIN, $page, 4096) or die "read: $!"; print $page`
	p := start(t, "nsenter", fmt.Sprintf("--mount=/proc/%d/ns/mnt", pid), "perl", "-e", script, diskOf(dir))
	stuck(t, p, diskOf(dir))
	return interruptedReader{p}
}

// check signals a reader, whose server hangs, lets the server go on, and checks what was read.
func (r interruptedReader) check(t *testing.T, srv *testserver.Server, s *synthetic) {
	t.Helper()
	for range 3 {
		_ = r.cmd.Process.Signal(unix.SIGUSR1) // it may have ended
		time.Sleep(100 * time.Millisecond)
	}
	if !r.running() {
		t.Errorf("a signal that it handles has ended the read: %v", r.result(t))
	}
	unhang(srv)
	checkBytes(t, r.name, r.result(t).stdout, s.block(3)[:pageSize])
}

// Who reads the log of a mount in the foreground may go: the mount stays, and ends in order.
func TestLogReaderGoes(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, url := serve(t, s.image)
	dir := makeDir(t)
	cmd := exec.Command(cloopfs, "mount", "--foreground", "--log-level", "debug", "--timeout", "1s", url, dir)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	cmd.Stderr = write
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	write.Close()
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	waitFor(t, "the mount", func() bool { return mounted(dir) && run(t, cloopfs, "status", dir).code == 0 })
	read.Close()
	user, err := os.Open(diskOf(dir)) // so that the signal has something to say
	if err != nil {
		t.Fatal(err)
	}
	defer user.Close()
	if err := cmd.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the mount is detached", func() bool { return !mounted(dir) })
	time.Sleep(200 * time.Millisecond) // it has said so by now
	p := make([]byte, pageSize)
	if _, err := user.ReadAt(p, 3*64*kib); err != nil || string(p) != string(s.block(3)[:pageSize]) {
		t.Errorf("read after the log's reader has gone: %v", err)
	}
	user.Close()
	if err := <-ended; err != nil {
		t.Errorf("ended with %v, want success", err)
	}
}
