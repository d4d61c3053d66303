//go:build integration

package test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// limit is how long a command may take before the test gives it up as stuck.
// No command comes near it.
const limit = 2 * time.Minute

// process is a command under way.
type process struct {
	name  string
	cmd   *exec.Cmd
	began time.Time
	done  chan struct{} // closed when it has ended
	// The fields below may be read when done is closed.
	stdout, stderr bytes.Buffer
	ended          time.Time
	err            error // of exec.Cmd.Wait, other than an exit status
}

// result is what a command has brought.
type result struct {
	code           int // -1: ended by a signal
	stdout, stderr string
}

func (r result) String() string {
	return fmt.Sprintf("exit status %d, stdout %q, stderr %q", r.code, brief(r.stdout), brief(r.stderr))
}

// brief keeps binary output out of messages.
func brief(s string) string {
	if len(s) > 1000 {
		return s[:1000] + "..."
	}
	return s
}

// launch starts cmd without a test that looks after it.
func launch(cmd *exec.Cmd) (*process, error) {
	p := &process{name: strings.Join(cmd.Args, " "), cmd: cmd, began: time.Now(), done: make(chan struct{})}
	if cmd.Stdout == nil {
		cmd.Stdout = &p.stdout
	}
	if cmd.Stderr == nil {
		cmd.Stderr = &p.stderr
	}
	cmd.WaitDelay = 5 * time.Second // for a child that keeps our pipes open
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	go func() {
		err := cmd.Wait()
		p.ended = time.Now()
		if _, ok := errors.AsType[*exec.ExitError](err); !ok {
			p.err = err
		}
		close(p.done)
	}()
	return p, nil
}

// start starts a command, which is killed at the test's end.
func start(t testing.TB, name string, args ...string) *process {
	t.Helper()
	return startCmd(t, exec.Command(name, args...))
}

func startCmd(t testing.TB, cmd *exec.Cmd) *process {
	t.Helper()
	p, err := launch(cmd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if p.running() {
			p.kill()
			if !p.endsWithin(10 * time.Second) {
				t.Errorf("can't be killed: %s", p.name)
			}
		}
	})
	return p
}

func (p *process) kill() { _ = p.cmd.Process.Kill() } // it may have ended

func (p *process) pid() int { return p.cmd.Process.Pid }

func (p *process) running() bool {
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

func (p *process) endsWithin(d time.Duration) bool {
	select {
	case <-p.done:
		return true
	case <-time.After(d):
		return false
	}
}

// result waits for the end, within limit.
func (p *process) result(t testing.TB) result {
	t.Helper()
	if !p.endsWithin(limit) {
		p.kill()
		t.Fatalf("stuck: %s", p.name)
	}
	if p.err != nil {
		t.Fatalf("%s: %v", p.name, p.err)
	}
	return result{code: p.cmd.ProcessState.ExitCode(), stdout: p.stdout.String(), stderr: p.stderr.String()}
}

// run runs a command to its end, whatever that is. Nothing of it stays: some tests run
// thousands, each of which prints megabytes.
func run(t testing.TB, name string, args ...string) result {
	t.Helper()
	p, err := launch(exec.Command(name, args...))
	if err != nil {
		t.Fatal(err)
	}
	return p.result(t)
}

// must runs a command that has to succeed, and returns what it printed.
func must(t testing.TB, name string, args ...string) string {
	t.Helper()
	r := run(t, name, args...)
	if r.code != 0 {
		t.Fatalf("%s: %v", strings.Join(append([]string{name}, args...), " "), r)
	}
	return r.stdout
}

// checkFailure checks that a command of the program under test has failed with
// an exit status, and has said why in one line that contains want, followed by
// nothing but a hint.
func checkFailure(t *testing.T, r result, code int, want string) {
	t.Helper()
	if r.code != code {
		t.Errorf("got %v, want exit status %d", r, code)
	}
	lines := strings.Split(strings.TrimSuffix(r.stderr, "\n"), "\n")
	if !strings.HasPrefix(lines[0], "cloopfs: ") || !strings.Contains(lines[0], want) {
		t.Errorf("stderr is %q, want a line that starts with %q and has %q in it", r.stderr, "cloopfs: ", want)
	}
	for _, line := range lines[1:] {
		if !strings.HasPrefix(line, "cloopfs: hint: ") {
			t.Errorf("stderr has the line %q", line)
		}
	}
	if r.stdout != "" {
		t.Errorf("stdout is %q, want nothing", r.stdout)
	}
}

// try runs a command for cleaning up: not for long, and without a word.
func try(name string, args ...string) bool {
	p, err := launch(exec.Command(name, args...))
	if err != nil {
		return false
	}
	if !p.endsWithin(10 * time.Second) {
		p.kill()
		return false
	}
	return p.err == nil && p.cmd.ProcessState.Success()
}

// elapsed is how long f takes.
func elapsed(f func()) time.Duration {
	begin := time.Now()
	f()
	return time.Since(begin)
}

// waitFor waits until cond holds, which it does soon.
func waitFor(t testing.TB, what string, cond func() bool) {
	t.Helper()
	waitLong(t, 10*time.Second, what, cond)
}

// waitLong is waitFor for what takes up to d.
func waitLong(t testing.TB, d time.Duration, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(d); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// The mmapped reader is this test program, run again with this variable set and
// the arguments FILE OFFSET.
const mmapEnv = "CLOOPFS_TEST_MMAP"

// mmapMain prints the page of a file at an offset, read through a mapping.
func mmapMain(args []string) int {
	var off int64
	if _, err := fmt.Sscan(args[1], &off); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 2
	}
	f, err := os.Open(args[0])
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	page, err := unix.Mmap(int(f.Fd()), off, pageSize, unix.PROT_READ, unix.MAP_SHARED)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	private := bytes.Clone(page) // an I/O error is a SIGBUS here
	if _, err := io.Copy(os.Stdout, bytes.NewReader(private)); err != nil {
		return 1
	}
	return 0
}
