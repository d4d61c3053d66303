package testserver_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net"
	"net/http"
	"net/url"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// Each wrong answer is to bytes=20-59 of 100.
func TestWrong(t *testing.T) {
	content := pattern(100)
	tests := []struct {
		name         string
		wrong        testserver.Wrong
		contentRange string
		length       int64  // Content-Length, -1: none
		body         []byte // as far as it gets
		err          error  // at its end
	}{
		{"none", testserver.WrongNone, "bytes 20-59/100", 40, content[20:60], nil},
		{"start", testserver.WrongStart, "bytes 21-59/100", 40, content[20:60], nil},
		{"total", testserver.WrongTotal, "bytes 20-59/101", 40, content[20:60], nil},
		{"no total", testserver.NoTotal, "bytes 20-59/*", 40, content[20:60], nil},
		{"early end", testserver.EarlyEnd, "bytes 20-39/100", 20, content[20:40], nil},
		{"short length", testserver.ShortLength, "bytes 20-59/100", 20, content[20:40], nil},
		{"long length", testserver.LongLength, "bytes 20-59/100", 1040, append(bytes.Clone(content[20:60]), bytes.Repeat([]byte("x"), 1000)...), nil},
		{"long body", testserver.LongBody, "bytes 20-59/100", 40, content[20:60], nil},
		{"long, unsized", testserver.LongUnsized, "bytes 20-59/100", -1, append(bytes.Clone(content[20:60]), bytes.Repeat([]byte("x"), 1000)...), nil},
		{"reset", testserver.ResetInBody, "bytes 20-59/100", 40, content[20:40], syscall.ECONNRESET},
		{"HTTP/1.0", testserver.HTTP10, "bytes 20-59/100", -1, content[20:60], nil},
		{"large header", testserver.LargeHeader, "bytes 20-59/100", 40, content[20:60], nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			s.AddBytes("f", content)
			s.Set(func(c *testserver.Config) { c.Wrong, c.WrongTimes = tt.wrong, 1 })
			c := newClient(t)
			c.Transport.(*http.Transport).MaxResponseHeaderBytes = 2 * testserver.LargeHeaderSize
			// Without a range nothing is wrong, and nothing is counted.
			if resp, body := get(t, c, s.URL("f")); resp.StatusCode != 200 || !bytes.Equal(body, content) {
				t.Errorf("without a range: got %s with %d bytes", resp.Status, len(body))
			}
			resp, body, err := request(t, c, http.MethodGet, s.URL("f"), "Range", "bytes=20-59")
			if resp == nil || resp.StatusCode != 206 {
				t.Fatalf("got %v, error %v", resp, err)
			}
			if !errors.Is(err, tt.err) {
				t.Errorf("got error %v, want %v", err, tt.err)
			}
			if got := resp.Header.Get("Content-Range"); got != tt.contentRange {
				t.Errorf("got Content-Range %q, want %q", got, tt.contentRange)
			}
			if resp.ContentLength != tt.length || !bytes.Equal(body, tt.body) {
				t.Errorf("got %d bytes, announced as %d; want %d, %d", len(body), resp.ContentLength, len(tt.body), tt.length)
			}
			if got := resp.ProtoMinor == 0; got != (tt.wrong == testserver.HTTP10) {
				t.Errorf("got %s", resp.Proto)
			}
			if got := len(resp.Header.Get("X-Large")) > 0; got != (tt.wrong == testserver.LargeHeader) {
				t.Errorf("large header: %v", got)
			}
			if _, body := get(t, newClient(t), s.URL("f"), "Range", "bytes=20-59"); !bytes.Equal(body, content[20:60]) {
				t.Error("the next answer is wrong, too")
			}
		})
	}
}

// What is behind the end of a body arrives.
func TestLongBody(t *testing.T) {
	s := newServer(t)
	s.AddBytes("f", pattern(100))
	s.Set(func(c *testserver.Config) { c.Wrong, c.WrongTimes = testserver.LongBody, 1 })
	u, err := url.Parse(s.URL("f"))
	if err != nil {
		t.Fatal(err)
	}
	c, err := net.Dial("tcp", u.Host)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "GET /f HTTP/1.1\r\nHost: h\r\nRange: bytes=0-9\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	from := bufio.NewReader(c)
	resp, err := http.ReadResponse(from, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	more, err2 := io.ReadAll(from)
	if err := errors.Join(err, err2); err != nil || len(body) != 10 || len(more) != 1000 {
		t.Errorf("got %d bytes and %d more, error %v; want 10 and 1000", len(body), len(more), err)
	}
}

func TestWrongEncoding(t *testing.T) {
	content := pattern(100)
	tests := []struct {
		name   string
		wrong  testserver.Wrong
		decode func(h http.Header, body []byte) ([]byte, error)
	}{
		{"gzip", testserver.Gzipped, func(h http.Header, body []byte) ([]byte, error) {
			if got := h.Get("Content-Encoding"); got != "gzip" {
				t.Errorf("got Content-Encoding %q", got)
			}
			r, err := gzip.NewReader(bytes.NewReader(body))
			if err != nil {
				return nil, err
			}
			return io.ReadAll(r)
		}},
		{"multipart", testserver.Multipart, func(h http.Header, body []byte) ([]byte, error) {
			kind, params, err := mime.ParseMediaType(h.Get("Content-Type"))
			if err != nil || kind != "multipart/byteranges" || h.Get("Content-Range") != "" {
				t.Errorf("got headers %v", h)
			}
			part, err := multipart.NewReader(bytes.NewReader(body), params["boundary"]).NextPart()
			if err != nil {
				return nil, err
			}
			return io.ReadAll(part)
		}},
	}
	for _, tt := range tests {
		s := newServer(t)
		s.AddBytes("f", content)
		s.Set(func(c *testserver.Config) { c.Wrong, c.WrongTimes = tt.wrong, -1 })
		resp, body := get(t, newClient(t), s.URL("f"), "Range", "bytes=20-59", "Accept-Encoding", "identity")
		got, err := tt.decode(resp.Header, body)
		if resp.StatusCode != 206 || err != nil || !bytes.Equal(got, content[20:60]) {
			t.Errorf("%s: got %s, %x, error %v", tt.name, resp.Status, got, err)
		}
	}
}

// What drips goes on to, whatever happens to the settings, until the client leaves.
func TestDrip(t *testing.T) {
	s := newServer(t)
	s.AddBytes("f", pattern(100))
	s.Set(func(c *testserver.Config) { c.Wrong, c.WrongTimes = testserver.Drip, 1 })
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	c := newClient(t)
	begin := time.Now()
	resp, err := start(ctx, c, http.MethodGet, s.URL("f"), "Range", "bytes=20-59")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	s.Set(func(c *testserver.Config) { *c = testserver.Config{} })
	if _, err := io.ReadFull(resp.Body, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	if d := time.Since(begin); d < 2*time.Second {
		t.Errorf("three bytes came in %v, want at least two seconds", d)
	}
	cancel()
	get(t, c, s.URL("f"), "Range", "bytes=20-59")
}

func TestDown(t *testing.T) {
	s := newServer(t)
	s.AddBytes("f", pattern(100))
	c := newClient(t)
	get(t, c, s.URL("f"))
	for range 2 { // each of them may be repeated
		s.Down()
		if _, _, err := request(t, c, http.MethodGet, s.URL("f")); !errors.Is(err, syscall.ECONNREFUSED) {
			t.Errorf("down: got error %v, want connection refused", err)
		}
	}
	for range 2 {
		if err := s.Up(); err != nil {
			t.Fatal(err)
		}
		get(t, c, s.URL("f"))
	}
	s.Down()
	s.Close()
	if err := s.Up(); err != nil {
		t.Error(err)
	}
	if _, _, err := request(t, c, http.MethodGet, s.URL("f")); !errors.Is(err, syscall.ECONNREFUSED) {
		t.Errorf("closed: got error %v, want connection refused", err)
	}
}

func TestAddStatus(t *testing.T) {
	s := newServer(t)
	s.AddStatus("f", http.StatusForbidden)
	if resp, body := get(t, newClient(t), s.URL("f")); resp.StatusCode != 403 || len(body) > 0 {
		t.Errorf("got %s with %d bytes, want 403 without a body", resp.Status, len(body))
	}
}

func TestLastModified(t *testing.T) {
	s := newServer(t)
	s.AddBytes("f", pattern(100))
	s.Set(func(c *testserver.Config) { c.LastModified = time.Unix(0, 0).Add(24 * time.Hour) })
	resp, _ := get(t, newClient(t), s.URL("f"))
	if got := resp.Header.Get("Last-Modified"); !strings.HasPrefix(got, "Fri, 02 Jan 1970") {
		t.Errorf("got Last-Modified %q", got)
	}
}
