package httpblock_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"io"
	"math"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/internal/testserver"
)

func TestConforms(t *testing.T) {
	data := random(600_000)
	s := open(t, newServer(t, data).URL("f"), httpblock.Options{})
	blockiotest.TestRanges(t, s, data)
	blockiotest.TestReaderAt(t, s, data)
	for _, size := range []int{1, 100, blockio.HeadSize, blockio.HeadSize + 1} {
		small := random(size)
		blockiotest.TestReaderAt(t, open(t, newServer(t, small).URL("f"), httpblock.Options{}), small)
	}
}

func TestOpen(t *testing.T) {
	date := time.Date(2020, time.January, 2, 3, 4, 5, 0, time.UTC)
	tests := []struct {
		name string
		size int
		cfg  testserver.Config
		date time.Time
	}{
		{name: "large", size: 100_000, date: date},
		{name: "as large as the head", size: blockio.HeadSize, date: date},
		{name: "small", size: 1, date: date},
		{name: "no Last-Modified", size: 100_000, cfg: testserver.Config{NoLastModified: true}},
		{name: "no validators", size: 100_000, cfg: testserver.Config{NoLastModified: true, NoETag: true}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := newServer(t, random(tt.size))
			srv.Set(func(c *testserver.Config) { *c = tt.cfg })
			s := open(t, srv.URL("f"), httpblock.Options{})
			if got := s.Size(); got != int64(tt.size) {
				t.Errorf("got size %d, want %d", got, tt.size)
			}
			if got := s.ModTime(); !got.Equal(tt.date) {
				t.Errorf("got time %v, want %v", got, tt.date)
			}
			asked(t, srv, [2]int64{0, blockio.HeadSize})
		})
	}
}

func TestOpenIgnoresFragment(t *testing.T) {
	srv := newServer(t, random(100))
	open(t, srv.URL("f")+"#a/b", httpblock.Options{})
	asked(t, srv, [2]int64{0, blockio.HeadSize})
}

func TestHeadCostsNoRequest(t *testing.T) {
	data := random(100_000)
	srv := newServer(t, data)
	s := open(t, srv.URL("f"), httpblock.Options{})
	srv.Reset()
	const head = blockio.HeadSize
	for _, c := range []struct{ off, n int64 }{{0, 0}, {0, 1}, {0, 136}, {136, 1000}, {head - 1, 1}, {0, head}, {head, 0}} {
		got, err := readAt(t.Context(), s, int(c.n), c.off)
		if err != nil || !bytes.Equal(got, data[c.off:c.off+c.n]) {
			t.Errorf("%d bytes at %d: got %d, error %v", c.n, c.off, len(got), err)
		}
	}
	if got := srv.Stats().Requests; got != 0 {
		t.Errorf("got %d requests, want none", got)
	}
	if _, err := readAt(t.Context(), s, 2, head-1); err != nil {
		t.Error(err)
	}
	asked(t, srv, [2]int64{head - 1, 2})
}

func TestReadAtFarBehindTheEnd(t *testing.T) {
	s := open(t, newServer(t, random(100)).URL("f"), httpblock.Options{})
	for _, off := range []int64{100, 101, 1 << 40, math.MaxInt64 - 10, math.MaxInt64 - 5, math.MaxInt64} {
		func() {
			defer func() {
				if p := recover(); p != nil {
					t.Errorf("10 bytes at %d: panic: %v", off, p)
				}
			}()
			if got, err := readAt(t.Context(), s, 10, off); len(got) != 0 || err != io.EOF {
				t.Errorf("10 bytes at %d: got %d, error %v, want io.EOF", off, len(got), err)
			}
		}()
	}
}

func TestConnectionIsKept(t *testing.T) {
	data := random(1 << 20)
	srv := newServer(t, data)
	s := open(t, srv.URL("f"), httpblock.Options{})
	for i := range int64(50) {
		off := blockio.HeadSize + i*20_000
		got, err := readAt(t.Context(), s, 10_000, off)
		if err != nil || !bytes.Equal(got, data[off:off+10_000]) {
			t.Errorf("got %d bytes at %d, error %v", len(got), off, err)
		}
	}
	if got := srv.Stats(); got.Requests != 51 || got.Conns != 1 {
		t.Errorf("got %d requests on %d connections, want 51 on 1", got.Requests, got.Conns)
	}
}

func TestRequestHeaders(t *testing.T) {
	data := random(100_000)
	seen := make(chan http.Header, 10)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet || r.Proto != "HTTP/1.1" {
			t.Errorf("got a %s request of %s, want GET of HTTP/1.1", r.Method, r.Proto)
		}
		h := r.Header.Clone()
		h.Set("Path", r.URL.RequestURI())
		seen <- h
		if r.URL.Path == "/f" {
			http.Redirect(w, r, "/g?c=d", http.StatusFound)
			return
		}
		content(w, r, data)
	})
	want := func(path, rng string, more ...string) {
		t.Helper()
		w := http.Header{"Path": {path}, "Range": {rng}, "Accept-Encoding": {"identity"}, "User-Agent": {"tester/1"}}
		for i := 0; i < len(more); i += 2 {
			w.Set(more[i], more[i+1])
		}
		if diff := cmp.Diff(w, <-seen); diff != "" {
			t.Errorf("request (-want +got):\n%s", diff)
		}
	}
	s := open(t, url+"/f?a=b", httpblock.Options{UserAgent: "tester/1"})
	want("/f?a=b", "bytes=0-8191")
	want("/g?c=d", "bytes=0-8191")
	readRange(t, s, data, 50_000, 10_000)
	want("/g?c=d", "bytes=50000-59999")
	r := openRange(t, s, 99_999, 1)
	if _, err := io.ReadAll(r); err != nil {
		t.Error(err)
	}
	want("/g?c=d", "bytes=99999-99999")
	refetch(t, s, data, 50_000, 10_000)
	want("/g?c=d", "bytes=50000-59999", "Cache-Control", "no-cache")
}

func TestUserAgentByDefault(t *testing.T) {
	seen := make(chan string, 1)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		seen <- r.UserAgent()
		content(w, r, random(10))
	})
	open(t, url, httpblock.Options{})
	if got := <-seen; got != "cloopfs" {
		t.Errorf("got User-Agent %q, want cloopfs", got)
	}
}

func TestConnectionsAreBounded(t *testing.T) {
	data := random(1 << 20)
	srv := newServer(t, data)
	s := open(t, srv.URL("f"), httpblock.Options{Connections: 2})
	done := make(chan struct{})
	for i := range int64(16) {
		go func() {
			defer func() { done <- struct{}{} }()
			off := blockio.HeadSize + i*50_000
			if got, err := readAt(t.Context(), s, 50_000, off); err != nil || !bytes.Equal(got, data[off:off+50_000]) {
				t.Errorf("got %d bytes at %d, error %v", len(got), off, err)
			}
		}()
	}
	for range 16 {
		<-done
	}
	if got := srv.Stats(); got.Requests != 17 || got.Conns > 2 {
		t.Errorf("got %d requests on %d connections, want 17 on at most 2", got.Requests, got.Conns)
	}
}

// An empty file has no ranges, and servers say so in several ways.
func TestOpenEmptyFile(t *testing.T) {
	for name, answer := range map[string]struct {
		code   int
		ranges string
	}{
		"as nginx answers":  {200, ""},
		"as Apache answers": {416, "bytes */0"},
		"an empty range":    {206, "bytes 0--1/0"},
		"a range of what":   {206, "bytes 0-0/0"},
	} {
		t.Run(name, func(t *testing.T) {
			url := serve(t, func(w http.ResponseWriter, _ *http.Request) {
				w.Header().Set("Content-Length", "0")
				if answer.ranges != "" {
					w.Header().Set("Content-Range", answer.ranges)
				}
				w.WriteHeader(answer.code)
			})
			_, err := httpblock.Open(t.Context(), url, httpblock.Options{Timeout: soon})
			if !errors.Is(err, blockio.ErrEmpty) {
				t.Errorf("got error %v, want that the file is empty", err)
			}
		})
	}
}

// What can't get better is an error at once, after one request.
func TestPermanentAtOnce(t *testing.T) {
	data := random(100_000)
	answer := func(code int, pairs ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(pairs); i += 2 {
				w.Header().Set(pairs[i], pairs[i+1])
			}
			w.WriteHeader(code)
		}
	}
	tests := []struct {
		name    string
		handler http.HandlerFunc
		later   error // want; nil: a StatusError
		opening error // want, if it is another
		again   int   // requests more, later
		says    string
	}{
		{name: "404", handler: answer(404), says: "server answered 404 Not Found"},
		{name: "401", handler: answer(401, "WWW-Authenticate", "Basic"), says: "server answered 401 Unauthorized"},
		{name: "403", handler: answer(403), says: "403"},
		{name: "410", handler: answer(410), says: "410"},
		{name: "304", handler: answer(304), says: "304"},
		{name: "no ranges", later: httpblock.ErrNoRanges, says: "answered 200 to bytes=", handler: func(w http.ResponseWriter, r *http.Request) {
			r.Header.Del("Range")
			content(w, r, data)
		}},
		{name: "416", handler: answer(416), later: httpblock.ErrChanged, opening: errAny, says: ""},
		{name: "garbage in Content-Range", handler: answer(206, "Content-Range", "bytes"), later: errAny, says: "invalid answer: Content-Range"},
		{name: "gzip", handler: answer(206, "Content-Encoding", "gzip"), later: errAny, says: "encoded"},
		{name: "redirect to nowhere", handler: answer(302), later: errAny, again: 1, says: "no usable Location"},
	}
	for _, tt := range tests {
		check := func(t *testing.T, want, err error) {
			t.Helper()
			var status *httpblock.StatusError
			switch {
			case err == nil:
				t.Fatal("got no error")
			case want == nil && !errors.As(err, &status), want != nil && want != errAny && !errors.Is(err, want):
				t.Errorf("got error %v, want %v", err, want)
			case !strings.Contains(err.Error(), tt.says):
				t.Errorf("got error %q, want %q in it", err, tt.says)
			}
		}
		t.Run(tt.name+"/opening", func(t *testing.T) {
			var q requests
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				q.add(r)
				tt.handler(w, r)
			})
			_, err := httpblock.Open(t.Context(), url, httpblock.Options{Timeout: soon})
			want := tt.later
			if tt.opening != nil {
				want = tt.opening
			}
			check(t, want, err)
			if got := len(q.take()); got != 1 {
				t.Errorf("got %d requests, want 1", got)
			}
		})
		t.Run(tt.name+"/later", func(t *testing.T) {
			var q requests
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if q.add(r) == 0 {
					content(w, r, data)
					return
				}
				tt.handler(w, r)
			})
			s := open(t, url, httpblock.Options{Timeout: soon})
			_, err := readAt(t.Context(), s, 100, 50_000)
			check(t, tt.later, err)
			if got := len(q.take()); got != 2+tt.again {
				t.Errorf("got %d requests, want %d", got, 2+tt.again)
			}
		})
	}
}

// errAny stands for an error that has no name outside of the package.
var errAny = errors.New("any")

func TestBadCertificateIsPermanent(t *testing.T) {
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { content(w, r, random(10)) }))
	srv.Config.ErrorLog = discard
	srv.StartTLS()
	defer srv.Close()
	_, err := httpblock.Open(t.Context(), srv.URL, httpblock.Options{Timeout: soon})
	var cert *tls.CertificateVerificationError
	if !errors.As(err, &cert) || strings.Contains(err.Error(), "gave up") {
		t.Errorf("got error %v, want one about the certificate, at once", err)
	}
}

// Open goes on trying while faults pass.
func TestOpenRetries(t *testing.T) {
	tests := []struct {
		name     string
		cfg      testserver.Config
		requests int
	}{
		{"503", testserver.Config{StatusTimes: 2}, 3},
		{"429", testserver.Config{StatusTimes: 1, Status: 429}, 2},
		{"reset", testserver.Config{Reset: 2}, 3},
		{"cut off", testserver.Config{Truncate: 2}, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T, net *network) {
				data := random(100_000)
				srv := net.newServer(t, data)
				srv.Set(func(c *testserver.Config) { *c = tt.cfg })
				s := net.open(t, srv.URL("f"), httpblock.Options{})
				if got := srv.Stats().Requests; got != tt.requests {
					t.Errorf("got %d requests, want %d", got, tt.requests)
				}
				if got, err := readAt(t.Context(), s, 1000, 0); err != nil || !bytes.Equal(got, data[:1000]) {
					t.Errorf("got %d bytes of the head, error %v", len(got), err)
				}
			})
		})
	}
}

func TestOpenGivesUp(t *testing.T) {
	const timeout = 300 * time.Millisecond
	tests := []struct {
		name string
		cfg  testserver.Config
		says string
	}{
		{"hangs before headers", testserver.Config{Hang: testserver.HangBeforeHeaders}, "gave up after 300ms: no data arrived"},
		{"hangs in the body", testserver.Config{Hang: testserver.HangMidBody}, "gave up after 300ms: no data arrived"},
		{"503", testserver.Config{StatusTimes: -1}, "gave up after 300ms: "}, // the time may be over during a request
		{"503 with Retry-After", testserver.Config{StatusTimes: -1, RetryAfter: "3600"}, "gave up after 300ms: server answered 503 Service Unavailable"},
		{"reset", testserver.Config{Reset: -1}, "gave up after 300ms: "},
		{"cut off", testserver.Config{Truncate: -1}, "gave up after 300ms: "},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T, net *network) {
				srv := net.newServer(t, random(100_000))
				srv.Set(func(c *testserver.Config) { *c = tt.cfg })
				took := within(t, func() {
					_, err := httpblock.Open(t.Context(), srv.URL("f"), net.through(httpblock.Options{Timeout: timeout}))
					if err == nil || !strings.HasPrefix(err.Error(), tt.says) {
						t.Errorf("got error %v, want %q", err, tt.says)
					}
				})
				if took != timeout {
					t.Errorf("gave up after %v, want %v", took, timeout)
				}
			})
		})
	}
}

// Both ways to end a context end an Open that hangs, and one that waits.
func TestCancelOpen(t *testing.T) {
	for name, handler := range map[string]http.HandlerFunc{
		"hangs": func(_ http.ResponseWriter, r *http.Request) { hang(r) },
		"waits": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(503)
		},
	} {
		t.Run(name, func(t *testing.T) {
			seen := make(chan struct{}, 1)
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				seen <- struct{}{}
				handler(w, r)
			})
			ctx, cancel := context.WithCancel(t.Context())
			result := make(chan error, 1)
			go func() {
				_, err := httpblock.Open(ctx, url, httpblock.Options{})
				result <- err
			}()
			waitFor(t, "request", seen)
			cancel()
			within(t, func() {
				if err := <-result; !errors.Is(err, context.Canceled) {
					t.Errorf("got error %v, want %v", err, context.Canceled)
				}
			})
		})
	}
}
