//go:build integration

package test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// A mount in the background shows none of its secrets: not in its arguments, nor
// in its environment, nor in its log, be it well or not.
func TestSecretsOfAMount(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	tmp := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(tmp, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	var refuse atomic.Bool
	var seen atomic.Pointer[http.Header]
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := r.Header.Clone()
		seen.Store(&h)
		if refuse.Load() {
			w.WriteHeader(http.StatusForbidden)
			return
		}
		w.Header().Set("ETag", `"a"`)
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.image))
	}))
	defer srv.Close()
	t.Setenv("NETRC", file("netrc", "default login geheim5 password geheim6\n"))
	t.Setenv("http_proxy", "http://geheim7:geheim8@127.0.0.1:1")
	t.Setenv("HTTPS_PROXY", "http://geheim7:geheim8@127.0.0.1:1")
	tests := []struct {
		name, url string
		args      []string
		want      string // Authorization
	}{
		{"URL", strings.Replace(srv.URL, "http://", "http://user:geheim1@", 1) + "/f?token=geheim2", nil, "Basic dXNlcjpnZWhlaW0x"},
		{"token", srv.URL, []string{"--bearer-token-file", file("token", "geheim3\n")}, "Bearer geheim3"},
		{"header", srv.URL, []string{"--header", "Authorization: geheim4", "--header=@" + file("headers", "X-Key: geheim4\n")}, "geheim4"},
		{"netrc", srv.URL, []string{"--netrc"}, "Basic Z2VoZWltNTpnZWhlaW02"},
	}
	for _, test := range tests {
		check := func(t *testing.T, foreground bool) {
			refuse.Store(false)
			dir, log := makeDir(t), filepath.Join(t.TempDir(), "log")
			args := append(append([]string{"mount", "-v", "--log-file", log}, test.args...), test.url, dir)
			if foreground {
				start(t, cloopfs, append(args, "--foreground")...)
				waitFor(t, "the mount", func() bool { return mounted(dir) })
			} else if r := run(t, cloopfs, args...); r.code != 0 || r.stderr != "" {
				t.Fatalf("mount: %v, want success without a word", r)
			}
			if got := seen.Load().Get("Authorization"); got != test.want {
				t.Errorf("got Authorization %q, want %q", got, test.want)
			}
			pids := daemons("")
			if len(pids) != 1 {
				t.Fatalf("got processes %d, want one", pids)
			}
			refuse.Store(true)
			if r := run(t, "cat", diskOf(dir)); r.code == 0 {
				t.Error("the disk can be read, and the log is worth nothing")
			}
			waitFor(t, "a line in the log", func() bool {
				text, err := os.ReadFile(log)
				return err == nil && bytes.Contains(text, []byte("read failed"))
			})
			proc := "/proc/" + strconv.Itoa(pids[0])
			for _, path := range []string{proc + "/cmdline", proc + "/environ", "/proc/mounts", log} {
				text, err := os.ReadFile(path)
				if err != nil || len(text) == 0 {
					t.Fatalf("%s: got %d bytes, error %v", path, len(text), err)
				}
				if i := bytes.Index(text, []byte("geheim")); i >= 0 {
					t.Errorf("%s shows a secret: %q", path, text[max(0, i-50):min(len(text), i+20)])
				}
			}
			umount(t, dir)
			r := run(t, cloopfs, append(append([]string{"mount", "-v"}, test.args...), test.url, dir)...)
			if r.code != 4 || !strings.Contains(r.stderr, "403") || strings.Contains(r.stderr, "geheim") {
				t.Errorf("mount of what is refused: %v, want exit status 4 and no secret", r)
			}
			waitFor(t, "end of the process", func() bool { return len(daemons("")) == 0 })
		}
		t.Run(test.name, func(t *testing.T) { check(t, false) })
		t.Run(test.name+", foreground", func(t *testing.T) { check(t, true) })
	}
}
