package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"io"
	"log"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// result is what a process of the program said.
type result struct {
	code           int
	stdout, stderr string
}

// program runs the program as a process of its own, with env added to its
// environment.
func program(t *testing.T, env []string, args ...string) result {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "cloopfs", args...)
	cmd.Env = append(append(os.Environ(), "GORACE=atexit_sleep_ms=0"), env...)
	var stdout, stderr bytes.Buffer
	cmd.Stdout, cmd.Stderr = &stdout, &stderr
	var exit *exec.ExitError
	if err := cmd.Run(); err != nil && !errors.As(err, &exit) {
		t.Fatal(err)
	}
	return result{cmd.ProcessState.ExitCode(), stdout.String(), stderr.String()}
}

// smallImage returns a small disk and an image of it.
func smallImage() (disk, image []byte) {
	disk = testDisk(256 << 10)
	return disk, cloopImage{blockSize: 64 << 10, version: "V2.0", corrupt: -1}.make(disk)
}

// content answers a request with its range of data.
func content(w http.ResponseWriter, r *http.Request, data []byte) {
	if w.Header().Get("ETag") == "" {
		w.Header().Set("ETag", `"a"`)
	}
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// serve returns the URL of a server for h.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// serveTLS returns the URL of an https server for h.
func serveTLS(t *testing.T, cfg *tls.Config, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS, s.Config.ErrorLog = cfg, log.New(io.Discard, "", 0)
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

// writeFile writes a file into a directory of the test, and returns its path.
func writeFile(t *testing.T, name string, content []byte) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), name)
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

// certificate is testserver.Certificate for a test.
func certificate(t *testing.T, name string, until time.Time) (cert tls.Certificate, certPEM, keyPEM []byte) {
	t.Helper()
	cert, certPEM, keyPEM, err := testserver.Certificate(name, until)
	if err != nil {
		t.Fatal(err)
	}
	return cert, certPEM, keyPEM
}
