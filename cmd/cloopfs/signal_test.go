package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
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
			if got := cmd.ProcessState.ExitCode(); got != exitInterrupted {
				t.Errorf("got exit status %d, want %d", got, exitInterrupted)
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

func waitFor(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(soon):
		t.Fatalf("gave up waiting: %s", what)
	}
}
