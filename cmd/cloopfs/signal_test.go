package main

import (
	"bytes"
	"errors"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/cli"
)

// soon is how long to wait for what should happen at once, before giving up.
const soon = 30 * time.Second

// A program that is told to end does so soon, says nothing more, leaves nothing
// behind, and its exit status tells.
func TestSignals(t *testing.T) {
	image := cloopImage{blockSize: 65536, version: "V2.0", corrupt: -1}.make(testDisk(1_000_000))
	tests := []struct {
		name    string
		args    []string // URL stands for the URL
		signal  syscall.Signal
		request int // at which the server stops to answer
	}{
		{"extract, opening", []string{"extract", "URL", "out"}, syscall.SIGINT, 1},
		{"extract, SIGTERM", []string{"extract", "URL", "out"}, syscall.SIGTERM, 1},
		{"extract, reading", []string{"extract", "URL", "out"}, syscall.SIGINT, 2},
		{"extract to stdout", []string{"extract", "URL", "-"}, syscall.SIGINT, 2},
		{"mount", []string{"mount", "URL", "mnt"}, syscall.SIGINT, 1},
		{"mount in the foreground", []string{"mount", "-f", "URL", "mnt"}, syscall.SIGTERM, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			stuck, left := make(chan struct{}, 100), make(chan struct{}, 100)
			requests := make(chan int, 1)
			requests <- 0
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				n := <-requests + 1
				requests <- n
				if n >= tt.request {
					stuck <- struct{}{}
					<-r.Context().Done()
					left <- struct{}{}
					return
				}
				http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(image))
			}))
			defer srv.Close()

			exe, err := os.Executable()
			if err != nil {
				t.Fatal(err)
			}
			dir := t.TempDir()
			if err := os.Mkdir(filepath.Join(dir, "mnt"), 0o700); err != nil {
				t.Fatal(err)
			}
			cmd := exec.CommandContext(t.Context(), exe)
			cmd.Args = []string{"cloopfs"} // by which TestMain knows what to do
			for _, arg := range tt.args {
				cmd.Args = append(cmd.Args, strings.Replace(arg, "URL", srv.URL+"/f", 1))
			}
			cmd.Dir = dir
			var stdout, stderr bytes.Buffer
			cmd.Stdout, cmd.Stderr = &stdout, &stderr
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			waitFor(t, "request", stuck)
			if err := cmd.Process.Signal(tt.signal); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				cmd.Wait()
				close(ended)
			}()
			waitFor(t, "end of the program", ended)
			waitFor(t, "end of its requests", left) // also those of a process in the background
			if got := cmd.ProcessState.ExitCode(); got != cli.ExitInterrupted {
				t.Errorf("got exit status %d, want %d", got, cli.ExitInterrupted)
			}
			if stdout.Len() > 0 || stderr.Len() > 0 {
				t.Errorf("got stdout %q, stderr %q, want none", stdout.Bytes(), stderr.Bytes())
			}
			entries, err := os.ReadDir(dir)
			if err != nil || len(entries) != 1 {
				t.Errorf("got the files %v, error %v, want none but mnt", entries, err)
			}
		})
	}
}

// Signals that a program was started to ignore (by nohup, or by a script in the background)
// do not end it.
func TestIgnoredSignals(t *testing.T) {
	_, image := smallImage()
	stuck, goOn := make(chan struct{}, 100), make(chan struct{})
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		stuck <- struct{}{}
		<-goOn
		content(w, r, image)
	})
	cmd := exec.CommandContext(t.Context(), "sh", "-c", `trap "" HUP INT; exec cloopfs verify "$1"`, "sh", url+"/f")
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
	var out bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &out
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer cmd.Process.Kill()
	waitFor(t, "request", stuck)
	for _, signal := range []syscall.Signal{syscall.SIGHUP, syscall.SIGINT} {
		if err := cmd.Process.Signal(signal); err != nil {
			t.Fatal(err)
		}
	}
	time.Sleep(100 * time.Millisecond) // for what must not happen
	close(goOn)
	if err := cmd.Wait(); err != nil {
		t.Errorf("got %v, output %q, want success", err, out.Bytes())
	}
}

// A file that can't be read keeps the program no longer than that.
func TestSignalWhileReadingAFile(t *testing.T) {
	for _, held := range []bool{false, true} {
		for _, flag := range []string{"--header=@", "--netrc", "--bearer-token-file=", "--cacert=", "--cert="} {
			name := "nobody writes to "
			if held {
				name = "nobody ends "
			}
			t.Run(name+flag, func(t *testing.T) {
				t.Parallel()
				first, second := makeFIFO(t), makeFIFO(t)
				if flag != "--netrc" {
					flag += second
				}
				cmd := exec.CommandContext(t.Context(), "cloopfs", "verify", "--header=@"+first, flag, "http://127.0.0.1:1/f")
				cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "NETRC="+second)
				var out bytes.Buffer
				cmd.Stdout, cmd.Stderr = &out, &out
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				defer cmd.Process.Kill()
				openFIFO(t, first).Close() // the program is here, and goes on to the other
				if held {
					defer openFIFO(t, second).Close()
				}
				if err := cmd.Process.Signal(syscall.SIGTERM); err != nil {
					t.Fatal(err)
				}
				ended := make(chan struct{})
				go func() {
					cmd.Wait()
					close(ended)
				}()
				waitFor(t, "end of the program", ended)
				if got := cmd.ProcessState.ExitCode(); got != cli.ExitInterrupted || out.Len() > 0 {
					t.Errorf("got exit status %d, output %q, want %d without a word", got, out.Bytes(), cli.ExitInterrupted)
				}
			})
		}
	}
}

func makeFIFO(t *testing.T) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "fifo")
	if err := syscall.Mkfifo(name, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

// openFIFO waits for a reader of a FIFO, and returns the end to write to.
func openFIFO(t *testing.T, name string) *os.File {
	t.Helper()
	for begin := time.Now(); time.Since(begin) < soon; time.Sleep(10 * time.Millisecond) {
		f, err := os.OpenFile(name, os.O_WRONLY|syscall.O_NONBLOCK, 0)
		if err == nil {
			return f
		}
		if !errors.Is(err, syscall.ENXIO) {
			t.Fatal(err)
		}
	}
	t.Fatalf("gave up waiting: a reader of %s", name)
	return nil
}

func waitFor(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(soon):
		t.Fatalf("gave up waiting: %s", what)
	}
}

// A disk that is a stream may hang in the middle.
func TestSignalWhileCreating(t *testing.T) {
	for _, output := range []string{"out", "-"} {
		t.Run(output, func(t *testing.T) {
			t.Parallel()
			cmd := exec.CommandContext(t.Context(), "cloopfs", "create", "-", output)
			cmd.Dir = t.TempDir()
			cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0")
			var stderr bytes.Buffer
			cmd.Stderr = &stderr
			stdin, err := cmd.StdinPipe()
			if err != nil {
				t.Fatal(err)
			}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			defer cmd.Process.Kill()
			if _, err := stdin.Write(testDisk(3_000_000)); err != nil { // more than a pipe holds: it is being read
				t.Fatal(err)
			}
			if err := cmd.Process.Signal(syscall.SIGINT); err != nil {
				t.Fatal(err)
			}
			ended := make(chan struct{})
			go func() {
				cmd.Wait()
				close(ended)
			}()
			waitFor(t, "end of the program", ended)
			if got := cmd.ProcessState.ExitCode(); got != cli.ExitInterrupted {
				t.Errorf("got exit status %d, want %d", got, cli.ExitInterrupted)
			}
			left, err := os.ReadDir(cmd.Dir)
			if err != nil || len(left) > 0 || stderr.Len() > 0 {
				t.Errorf("got the files %v, error %v, stderr %q, want none", left, err, stderr.Bytes())
			}
		})
	}
}
