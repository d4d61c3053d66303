//go:build integration

package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// crashLog is the process that logs the crash of the one that serves dir.
func crashLog(t *testing.T, dir string) int {
	t.Helper()
	i := slices.IndexFunc(processes(dir), isCrashLog)
	if i < 0 {
		t.Fatalf("nobody would log a crash of the mount at %s", dir)
	}
	return processes(dir)[i]
}

// crash has the process that serves dir crash: a signal that it does not handle makes Go end
// it as a failure of its own does. It does not wait for the one that logs it.
func crash(t *testing.T, dir string) {
	t.Helper()
	pid, log := daemon(t, dir), crashLog(t, dir)
	if err := errors.Join(unix.Kill(log, unix.SIGSTOP), unix.Kill(pid, unix.SIGABRT)); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "its end", func() bool { return len(daemons(dir)) == 0 })
	if err := unix.Kill(log, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "the end of the log", func() bool { return len(processes(dir)) == 0 })
}

// Why a mount in the background has crashed is in its log, whatever is sent to both its
// processes, without secrets, and whoever logs it has no rights to lose.
func TestCrash(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, url := serve(t, s.image)
	for _, flags := range [][]string{{"--quiet"}, {"--root-disk", "--verbose"}} {
		t.Run(strings.Join(flags, " "), func(t *testing.T) {
			log := filepath.Join(t.TempDir(), "log")
			dir := mount(t, secretURL(url), append(flags, "--log-file", log, "--header", "X-Secret: geheim4")...)
			checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
			pid := daemon(t, dir)
			for _, field := range []string{"CapPrm", "CapEff", "CapBnd"} {
				checkTasks(t, crashLog(t, dir), field, "0000000000000000")
			}
			if err := unix.Kill(crashLog(t, dir), unix.SIGTERM); err != nil {
				t.Fatal(err)
			}
			crash(t, dir)
			must(t, "umount", dir)

			text := string(readAll(t, log))
			for _, want := range []string{
				"msg=\"crashed: please report the lines that follow\" pid=" + fmt.Sprint(pid) + " mountpoint=" + dir + "\n",
				`msg="SIGABRT: abort"`, `msg="goroutine `, "main.runBackground(", "cmd/cloopfs/serve.go:",
			} {
				if !strings.Contains(text, want) {
					t.Errorf("no %q in the log: %s", want, brief(text))
				}
			}
			for line := range strings.Lines(text) {
				if strings.Contains(line, "geheim") || !strings.HasPrefix(line, "time=") {
					t.Errorf("the log has the line %q", line)
				}
			}
			if info, err := os.Stat(log); err != nil || info.Mode().Perm() != 0o600 {
				t.Errorf("the log: %v, %v", info.Mode(), err)
			}
		})
	}
}

// In syslog a crash is an error, a line at a time.
func TestCrashInSyslog(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, url := serve(t, s.image)
	m := newMachine(t)
	d := newSyslogd(t, m)
	dir := makeDir(t)
	m.must(t, cloopfs, "mount", url, dir)
	crash(t, dir)
	m.must(t, "umount", dir)
	for _, text := range []string{"crashed", "SIGABRT: abort", "main.runBackground("} {
		waitFor(t, text, func() bool { return d.with(text) != "" })
		if line := d.with(text); !strings.HasPrefix(line, "<27>") || !strings.Contains(line, " cloopfs[") {
			t.Errorf("got the line %q, want it to start with <27>, from cloopfs", line)
		}
	}
}

// A mount that ends in order has let go of its log when umount returns, and has not crashed.
func TestNoCrash(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, url := serve(t, s.image)
	log := filepath.Join(t.TempDir(), "log")
	dir := mount(t, url, "--log-file", log)
	pid := crashLog(t, dir)
	umount(t, dir)
	if err := unix.Kill(pid, 0); err == nil {
		t.Errorf("process %d is there still", pid)
	}
	if text := string(readAll(t, log)); strings.Contains(text, "crashed") {
		t.Errorf("the log: %s", text)
	}
}
