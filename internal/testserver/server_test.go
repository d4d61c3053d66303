package testserver_test

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
	"github.com/google/go-cmp/cmp"
)

func TestRequests(t *testing.T) {
	content := pattern(100)
	tests := []struct {
		name         string
		method       string // GET if empty
		file         string // f if empty
		rng          string
		header       []string // more of them
		status       int
		contentRange string
		body         []byte // not compared for 416
		length       string // Content-Length
		off, len     int64  // as recorded
	}{
		{name: "whole", status: 200, body: content, length: "100", len: -1},
		{name: "a-b", rng: "bytes=10-19", status: 206, contentRange: "bytes 10-19/100", body: content[10:20], length: "10", off: 10, len: 10},
		{name: "a-", rng: "bytes=90-", status: 206, contentRange: "bytes 90-99/100", body: content[90:], length: "10", off: 90, len: 10},
		{name: "-n", rng: "bytes=-7", status: 206, contentRange: "bytes 93-99/100", body: content[93:], length: "7", off: 93, len: 7},
		{name: "-n longer than the file", rng: "bytes=-700", status: 206, contentRange: "bytes 0-99/100", body: content, length: "100", len: 100},
		{name: "first byte", rng: "bytes=0-0", status: 206, contentRange: "bytes 0-0/100", body: content[:1], length: "1", len: 1},
		{name: "beyond the end", rng: "bytes=95-200", status: 206, contentRange: "bytes 95-99/100", body: content[95:], length: "5", off: 95, len: 106},
		{name: "far beyond the end", rng: "bytes=0-9223372036854775807", status: 206, contentRange: "bytes 0-99/100", body: content, length: "100", len: 1<<63 - 1},
		{name: "after the end", rng: "bytes=100-109", status: 416, contentRange: "bytes */100", off: 100, len: 10},
		{name: "a- after the end", rng: "bytes=150-", status: 416, contentRange: "bytes */100", off: 150},
		{name: "no last bytes", rng: "bytes=-0", status: 416, contentRange: "bytes */100", off: 100},
		{name: "two ranges", rng: "bytes=0-1,5-6", status: 200, body: content, length: "100", len: -1},
		{name: "reversed", rng: "bytes=5-4", status: 200, body: content, length: "100", len: -1},
		{name: "no numbers", rng: "bytes=-", status: 200, body: content, length: "100", len: -1},
		{name: "no dash", rng: "bytes=5", status: 200, body: content, length: "100", len: -1},
		{name: "signed", rng: "bytes=+1-5", status: 200, body: content, length: "100", len: -1},
		{name: "other unit", rng: "lines=1-2", status: 200, body: content, length: "100", len: -1},
		{name: "HEAD", method: "HEAD", status: 200, length: "100", len: -1},
		{name: "HEAD with range", method: "HEAD", rng: "bytes=1-2", status: 206, contentRange: "bytes 1-2/100", length: "2", off: 1, len: 2},
		{name: "If-Range of another file", rng: "bytes=1-2", header: []string{"If-Range", `"x"`}, status: 200, body: content, length: "100", off: 1, len: 2},
		{name: "empty", file: "empty", status: 200, length: "0", len: -1},
		{name: "name with slash and space", file: "a dir/b?c", status: 200, body: []byte("odd"), length: "3", len: -1},
		{name: "no such file", file: "g", rng: "bytes=1-2", status: 404, length: "0", off: 1, len: 2},
		{name: "POST", method: "POST", status: 405, length: "0", len: -1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			s.AddBytes("f", content)
			s.AddBytes("empty", nil)
			s.AddBytes("a dir/b?c", []byte("odd"))
			if tt.method == "" {
				tt.method = http.MethodGet
			}
			if tt.file == "" {
				tt.file = "f"
			}
			header := tt.header
			if tt.rng != "" {
				header = append(header, "Range", tt.rng)
			}
			resp, body, err := request(t, newClient(t), tt.method, s.URL(tt.file), header...)
			if err != nil {
				t.Fatal(err)
			}
			if resp.StatusCode != tt.status {
				t.Errorf("got status %d, want %d", resp.StatusCode, tt.status)
			}
			if got := resp.Header.Get("Content-Range"); got != tt.contentRange {
				t.Errorf("got Content-Range %q, want %q", got, tt.contentRange)
			}
			if tt.status != 416 {
				if !bytes.Equal(body, tt.body) {
					t.Errorf("got body %x, want %x", body, tt.body)
				}
				if got := resp.Header.Get("Content-Length"); got != tt.length {
					t.Errorf("got Content-Length %q, want %q", got, tt.length)
				}
			}
			want := testserver.Stats{
				Requests: 1, Bytes: int64(len(body)), Conns: 1,
				Ranges: []testserver.Range{{Name: tt.file, Off: tt.off, Len: tt.len, Status: tt.status, Sent: int64(len(body))}},
			}
			if diff := cmp.Diff(want, s.Stats()); diff != "" {
				t.Errorf("stats (-want +got):\n%s", diff)
			}
		})
	}
}

func TestHeaders(t *testing.T) {
	s := newServer(t)
	s.AddBytes("f", []byte("abc"))
	c := newClient(t)
	first, _ := get(t, c, s.URL("f"))
	for name, want := range map[string]string{
		"Accept-Ranges": "bytes",
		"Last-Modified": "Thu, 02 Jan 2020 03:04:05 GMT",
		"Content-Type":  "application/octet-stream",
	} {
		if got := first.Header.Get(name); got != want {
			t.Errorf("got %s %q, want %q", name, got, want)
		}
	}
	etag := first.Header.Get("ETag")
	if len(etag) < 3 || etag[0] != '"' {
		t.Errorf("got ETag %q, want a strong one", etag)
	}
	if again, _ := get(t, c, s.URL("f")); again.Header.Get("ETag") != etag {
		t.Errorf("got ETag %q, then %q", etag, again.Header.Get("ETag"))
	}
	if resp, _ := get(t, c, s.URL("f"), "Range", "bytes=1-1", "If-Range", etag); resp.StatusCode != 206 {
		t.Errorf("got %s with If-Range of the ETag, want 206", resp.Status)
	}
	if resp, _ := get(t, c, s.URL("f"), "If-None-Match", etag); resp.StatusCode != 304 {
		t.Errorf("got %s with If-None-Match of the ETag, want 304", resp.Status)
	}
	s.AddBytes("f", []byte("abd"))
	resp, body := get(t, c, s.URL("f"))
	if string(body) != "abd" || resp.Header.Get("ETag") == etag {
		t.Errorf("got %q with ETag %q after a change, want new ones", body, resp.Header.Get("ETag"))
	}
}

func TestAddFile(t *testing.T) {
	content := pattern(100_000)
	dir := t.TempDir()
	path := filepath.Join(dir, "image")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	date := time.Date(2021, 5, 6, 7, 8, 9, 0, time.UTC)
	if err := os.Chtimes(path, date, date); err != nil {
		t.Fatal(err)
	}
	s := newServer(t)
	if err := s.AddFile("f", path); err != nil {
		t.Fatal(err)
	}
	c := newClient(t)
	resp, body := get(t, c, s.URL("f"), "Range", "bytes=70000-")
	if !bytes.Equal(body, content[70_000:]) {
		t.Error("got a wrong body")
	}
	if got, want := resp.Header.Get("Last-Modified"), date.Format(http.TimeFormat); got != want {
		t.Errorf("got Last-Modified %q, want %q", got, want)
	}
	if resp.Header.Get("ETag") == "" {
		t.Error("got no ETag")
	}
	for _, bad := range []string{dir, filepath.Join(dir, "missing")} {
		if err := s.AddFile("g", bad); err == nil {
			t.Errorf("AddFile(%q): got no error", bad)
		}
	}
	s.Close()
	if err := s.AddFile("f", path); err == nil {
		t.Error("AddFile after Close: got no error")
	}
}

func TestConcurrentUse(t *testing.T) {
	content := pattern(200_000)
	s := newServer(t)
	s.AddBytes("f", content)
	c := newClient(t)
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			for i := range 20 {
				s.Set(func(c *testserver.Config) {
					c.Rate = int64(i%2) * 500_000_000
					c.Buffer = int64(i%3) * 30_000
					c.SlowStart = !c.SlowStart
					c.RTT = time.Millisecond
				})
				_, body, err := request(t, c, http.MethodGet, s.URL("f"))
				if err != nil || !bytes.Equal(body, content) {
					t.Errorf("got %d bytes, error %v", len(body), err)
				}
				s.Stats()
			}
		})
	}
	wg.Wait()
	if got := s.Stats(); got.Requests != 160 || got.Bytes != 160*int64(len(content)) {
		t.Errorf("got %d requests, %d bytes", got.Requests, got.Bytes)
	}
}

func TestHandlerBehindTLS(t *testing.T) {
	const rtt = 40 * time.Millisecond
	s := newServer(t)
	s.AddBytes("f", pattern(10))
	s.Set(func(c *testserver.Config) { c.RTT = rtt })
	ts := httptest.NewUnstartedServer(s)
	ts.Config.ConnContext = s.ConnContext
	ts.StartTLS()
	defer ts.Close()

	begin := time.Now()
	resp, body := get(t, ts.Client(), ts.URL+"/f", "Range", "bytes=3-5")
	if resp.StatusCode != 206 || !bytes.Equal(body, pattern(10)[3:6]) {
		t.Errorf("got %s, %x", resp.Status, body)
	}
	if d := time.Since(begin); d < 2*rtt {
		t.Errorf("the first request of a connection took %v, want at least %v", d, 2*rtt)
	}
	if got := s.Stats(); got.Conns != 1 || got.Requests != 1 {
		t.Errorf("got %+v, want one request on one connection", got)
	}

	s.Set(func(c *testserver.Config) { c.Reset = 1 })
	ts.CloseClientConnections()
	_, _, err := request(t, ts.Client(), http.MethodGet, ts.URL+"/f")
	if err == nil || !strings.Contains(err.Error(), "connection reset by peer") {
		t.Errorf("got error %v, want a connection reset", err)
	}
}

func TestRedirect(t *testing.T) {
	s := newServer(t)
	s.AddRedirect("latest", "/v2/file")
	resp, err := http.DefaultTransport.RoundTrip(httptest.NewRequest("GET", s.URL("latest"), nil))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusFound || resp.Header.Get("Location") != "/v2/file" {
		t.Errorf("answered %d to %q, want 302 to /v2/file", resp.StatusCode, resp.Header.Get("Location"))
	}
	if got := s.Stats().Ranges; len(got) != 1 || got[0].Status != http.StatusFound {
		t.Errorf("recorded %v, want one request with status 302", got)
	}
}

func TestIndex(t *testing.T) {
	s := newServer(t)
	s.AddBytes("f", pattern(10))
	s.AddBytes("a b&c", pattern(10))
	resp, body := get(t, newClient(t), s.URL(""))
	if got := resp.Header.Get("Content-Type"); got != "text/html; charset=utf-8" {
		t.Errorf("got Content-Type %q", got)
	}
	want := "<a href=\"a%20b&amp;c\">a b&amp;c</a>\n<a href=\"f\">f</a>\n"
	if string(body) != want {
		t.Errorf("got %q, want %q", body, want)
	}
}
