package httpblock_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/internal/testserver"
)

// A long range comes whole whatever happens to its requests, and what has
// arrived is not asked for again.
func TestFaultsAreMended(t *testing.T) {
	const off, n = 100_000, 1 << 20
	data := random(off + n + 100_000)
	tests := []struct {
		name string
		cfg  testserver.Config
		want [][2]int64 // requests
	}{
		{"none", testserver.Config{}, [][2]int64{{off, n}}},
		{"cut off", testserver.Config{Truncate: 1}, [][2]int64{{off, n}, {off + n/2, n / 2}}},
		{"cut off again and again", testserver.Config{Truncate: 4}, [][2]int64{
			{off, n}, {off + n/2, n / 2}, {off + n/4*3, n / 4}, {off + n/8*7, n / 8}, {off + n/16*15, n / 16},
		}},
		{"reset", testserver.Config{Reset: 2}, [][2]int64{{off, n}, {off, n}, {off, n}}},
		{"503", testserver.Config{StatusTimes: 2}, [][2]int64{{off, n}, {off, n}, {off, n}}},
		{"429", testserver.Config{StatusTimes: 1, Status: 429}, [][2]int64{{off, n}, {off, n}}},
		{"all of that", testserver.Config{Reset: 1, StatusTimes: 1, Status: 500, Truncate: 2}, [][2]int64{
			{off, n}, {off, n}, {off, n}, {off + n/2, n / 2}, {off + n/4*3, n / 4},
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			srv := newServer(t, data)
			s := open(t, srv.URL("f"), httpblock.Options{Timeout: soon})
			srv.Set(func(c *testserver.Config) { *c = tt.cfg })
			srv.Reset()
			readRange(t, s, data, off, n)
			asked(t, srv, tt.want...)
		})
	}
}

// pieces answers from data, but hangs after n bytes of each body.
func pieces(w http.ResponseWriter, r *http.Request, data []byte, n int) {
	var off, last int
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &off, &last); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	last = min(last, len(data)-1)
	w.Header().Set("ETag", `"a"`)
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, last, len(data)))
	w.Header().Set("Content-Length", strconv.Itoa(last-off+1))
	w.WriteHeader(http.StatusPartialContent)
	if last-off < n {
		w.Write(data[off : last+1])
		return
	}
	w.Write(data[off : off+n])
	w.(http.Flusher).Flush()
	hang(r)
}

func TestHangInTheBodyIsMended(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		const off, n = 50_000, 40_000
		data := random(100_000)
		var q requests
		url := net.serve(t, func(w http.ResponseWriter, r *http.Request) {
			if q.add(r) == 1 {
				pieces(w, r, data, 15_000)
				return
			}
			content(w, r, data)
		})
		s := net.open(t, url, httpblock.Options{Timeout: soon})
		httpblock.SetStall(s, 50*time.Millisecond)
		readRange(t, s, data, off, n)
		if got := len(q.take()); got != 3 {
			t.Errorf("got %d requests, want 3", got)
		}
	})
}

func TestHangBeforeHeadersIsMended(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(100_000)
		var q requests
		url := net.serve(t, func(w http.ResponseWriter, r *http.Request) {
			if q.add(r) == 1 {
				hang(r)
				return
			}
			content(w, r, data)
		})
		s := net.open(t, url, httpblock.Options{Timeout: soon})
		httpblock.SetStall(s, 50*time.Millisecond)
		readRange(t, s, data, 50_000, 40_000)
		if got := len(q.take()); got != 3 {
			t.Errorf("got %d requests, want 3", got)
		}
	})
}

// Timeout counts from the last byte that arrived: a range that takes longer
// in all is read all the same.
func TestProgressPutsTheTimeoutOff(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		const timeout, stall = 4 * time.Second, 200 * time.Millisecond
		data := random(100_000)
		var q requests
		url := net.serve(t, func(w http.ResponseWriter, r *http.Request) {
			if q.add(r) == 0 {
				content(w, r, data)
				return
			}
			pieces(w, r, data, 3000)
		})
		s := net.open(t, url, httpblock.Options{Timeout: timeout})
		httpblock.SetStall(s, stall)
		begin := time.Now()
		readRange(t, s, data, 10_000, 90_000) // thirty requests, all but one of which hang
		if d := time.Since(begin); d < timeout {
			t.Errorf("took %v, which proves nothing", d)
		}
	})
}

// Timeout is about what the server does: a reader that takes longer than that
// between two calls of Read (a process that was stopped) gets the rest all the
// same.
func TestSlowReader(t *testing.T) {
	const off, n = 50_000, 1000
	data := random(100_000)
	for name, first := range map[string]int{"before the first byte": 0, "in the middle": n / 2} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, net *network) {
				var q requests
				url := net.serve(t, func(w http.ResponseWriter, r *http.Request) {
					if q.add(r) == 1 {
						pieces(w, r, data, n/2) // what comes next has to be asked for again
						return
					}
					content(w, r, data)
				})
				s := net.open(t, url, httpblock.Options{Timeout: soon})
				httpblock.SetTimeout(s, 3*time.Second)
				httpblock.SetStall(s, 300*time.Millisecond)
				body := openRange(t, s, off, n)
				got := make([]byte, first)
				if _, err := io.ReadFull(body, got); err != nil {
					t.Fatal(err)
				}
				time.Sleep(3200 * time.Millisecond) // the reader's time
				rest, err := io.ReadAll(body)
				if err != nil {
					t.Fatalf("got error %v, want the rest", err)
				}
				if got = append(got, rest...); !bytes.Equal(got, data[off:off+n]) {
					t.Errorf("got %d bytes that are not the file's", len(got))
				}
			})
		})
	}
}

// A server may bring less than was asked for: the rest is asked for.
func TestShortAnswersAreCompleted(t *testing.T) {
	const most = 1000
	data := random(100_000)
	var q requests
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		q.add(r)
		var off, last int
		if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &off, &last); err != nil {
			t.Error(err)
		}
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, min(last, off+most-1)))
		content(w, r, data)
	})
	s := open(t, url, httpblock.Options{})
	if got := len(q.take()); got != 1 || s.Size() != int64(len(data)) {
		t.Errorf("got %d requests to open a file of %d bytes, want 1 and %d", got, s.Size(), len(data))
	}
	readRange(t, s, data, 10_000, 10*most)
	if got := len(q.take()); got != 10 {
		t.Errorf("got %d requests, want 10", got)
	}
	readRange(t, s, data, 0, 2*most+1)
	if got := len(q.take()); got != 3 {
		t.Errorf("got %d requests, want 3", got)
	}
}

// A body without Content-Length may end early or go on too long.
func TestChunkedAnswers(t *testing.T) {
	const off, n = 50_000, 10_000
	data := random(100_000)
	tests := []struct {
		name     string
		sent     int // by the first answer
		requests int
	}{
		{"exact", n, 1},
		{"early end", 4000, 2},
		{"nothing", 0, 2},
		{"too long", n + 5000, 1},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var q requests
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if q.add(r) != 1 {
					content(w, r, data)
					return
				}
				w.Header().Set("ETag", `"a"`)
				w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off, off+n-1, len(data)))
				w.WriteHeader(http.StatusPartialContent)
				w.(http.Flusher).Flush() // without a length
				w.Write(data[off : off+tt.sent])
			})
			s := open(t, url, httpblock.Options{Timeout: soon})
			q.take()
			q.add(httptest.NewRequest("GET", "/", nil)) // stands for the one that opened
			readRange(t, s, data, off, n)
			if got := len(q.take()) - 1; got != tt.requests {
				t.Errorf("got %d requests, want %d", got, tt.requests)
			}
		})
	}
}

// Who asks for a time gets it, as far as the timeout has it: then he is asked once more.
func TestRetryAfterIsHonoured(t *testing.T) {
	for after, want := range map[string]time.Duration{"1": time.Second, "60": 20 * time.Second} {
		virtual(t, func(t *testing.T, net *network) {
			data := random(100_000)
			srv := net.newServer(t, data)
			s := net.open(t, srv.URL("f"), httpblock.Options{Timeout: 30 * time.Second})
			srv.Set(func(c *testserver.Config) { c.StatusTimes, c.RetryAfter = 1, after })
			srv.Reset()
			begin := time.Now()
			readRange(t, s, data, 50_000, 10_000)
			if d := time.Since(begin); d != want {
				t.Errorf("%s: asked again after %v, want %v", after, d, want)
			}
			asked(t, srv, [2]int64{50_000, 10_000}, [2]int64{50_000, 10_000})
		})
	}
}

// A server that stays away fails a read when Timeout is over, and the error
// says why.
func TestReadGivesUp(t *testing.T) {
	const timeout = 300 * time.Millisecond
	tests := []struct {
		name string
		cfg  testserver.Config
		says string
	}{
		{"hangs before headers", testserver.Config{Hang: testserver.HangBeforeHeaders}, "no data arrived"},
		{"503", testserver.Config{StatusTimes: -1, RetryAfter: "60"}, "server answered 503 Service Unavailable"},
		{"reset", testserver.Config{Reset: -1}, ""}, // the time may be over during a request
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T, net *network) {
				srv := net.newServer(t, random(100_000))
				s := net.open(t, srv.URL("f"), httpblock.Options{Timeout: soon})
				httpblock.SetTimeout(s, timeout)
				srv.Set(func(c *testserver.Config) { *c = tt.cfg })
				body := openRange(t, s, 50_000, 1000)
				took := within(t, func() {
					n, err := body.Read(make([]byte, 1000))
					if n != 0 || err == nil || !strings.Contains(err.Error(), "gave up after 300ms: ") || !strings.Contains(err.Error(), tt.says) {
						t.Errorf("got %d bytes, error %v, want that it gave up after 300ms: %s", n, err, tt.says)
					}
				})
				if took != timeout {
					t.Errorf("gave up after %v, want %v", took, timeout)
				}
				if srv.Stats().Requests < 2 {
					t.Error("got no request")
				}
			})
		})
	}
}

func TestServerGone(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		srv := net.newServer(t, random(100_000))
		s := net.open(t, srv.URL("f"), httpblock.Options{Timeout: soon})
		httpblock.SetTimeout(s, 300*time.Millisecond)
		srv.Close()
		within(t, func() {
			if _, err := readAt(t.Context(), s, 1000, 50_000); err == nil || !strings.Contains(err.Error(), "gave up after 300ms: ") {
				t.Errorf("got error %v, want that it gave up", err)
			}
		})
		if got, err := readAt(t.Context(), s, 1000, 0); err != nil || len(got) != 1000 {
			t.Errorf("the head: got %d bytes, error %v", len(got), err)
		}
	})
}

// A server may close connections that are not in use.
func TestConnectionsClosedByTheServer(t *testing.T) {
	data := random(100_000)
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { content(w, r, data) }))
	defer srv.Close()
	s := open(t, srv.URL, httpblock.Options{Timeout: soon})
	for i := range int64(3) {
		srv.CloseClientConnections()
		readRange(t, s, data, 20_000*i, 10_000)
	}
}

// Ending the context ends a Read soon, wherever it waits.
func TestCancelRead(t *testing.T) {
	data := random(100_000)
	for name, handler := range map[string]http.HandlerFunc{
		"before headers": func(_ http.ResponseWriter, r *http.Request) { hang(r) },
		"in the body":    func(w http.ResponseWriter, r *http.Request) { pieces(w, r, data, 100) },
		"between requests": func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Retry-After", "60")
			w.WriteHeader(503)
		},
	} {
		for _, timeout := range []time.Duration{0, soon} {
			t.Run(fmt.Sprintf("%s/timeout %v", name, timeout), func(t *testing.T) {
				var q requests
				seen := make(chan struct{}, 1)
				url := serve(t, func(w http.ResponseWriter, r *http.Request) {
					if q.add(r) == 0 {
						content(w, r, data)
						return
					}
					seen <- struct{}{}
					handler(w, r)
				})
				s := open(t, url, httpblock.Options{Timeout: timeout})
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				body, err := s.OpenRange(ctx, blockio.Range{Extent: blockio.Extent{Off: 50_000, Len: 1000}})
				if err != nil {
					t.Fatal(err)
				}
				defer body.Close()
				result := make(chan error, 1)
				go func() {
					_, err := io.ReadAll(body)
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
}

// The contract of blockio is an error that wraps the context's, also where the
// context was ended for a cause of its own.
func TestCancelWithCause(t *testing.T) {
	data := random(100_000)
	srv := newServer(t, data)
	s := open(t, srv.URL("f"), httpblock.Options{Timeout: soon})
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(errors.New("tired"))
	if _, err := readAt(ctx, s, 1000, 50_000); !errors.Is(err, context.Canceled) {
		t.Errorf("got error %v, want one that wraps %v", err, context.Canceled)
	}
}

func TestDeadline(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		srv := net.newServer(t, random(100_000))
		s := net.open(t, srv.URL("f"), httpblock.Options{Timeout: soon})
		srv.Set(func(c *testserver.Config) { c.Hang = testserver.HangBeforeHeaders })
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		within(t, func() {
			if _, err := readAt(ctx, s, 1000, 50_000); !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
			}
		})
	})
}

// A file that changes while a range of it is read is ErrChanged; the bytes
// before are of the old one.
func TestChangeInTheMiddle(t *testing.T) {
	const off, n = 10_000, 80_000
	old, changed := random(100_000), random(200_000)[100_000:]
	tests := []struct {
		name   string
		change func(*testserver.Server)
		says   string
	}{
		{"ETag", func(s *testserver.Server) { s.Set(func(c *testserver.Config) { c.ETag = `"new"` }) }, `-> "new")`},
		{"ETag gone", func(s *testserver.Server) { s.Set(func(c *testserver.Config) { c.NoETag = true }) }, "-> none)"},
		{"Last-Modified gone", func(s *testserver.Server) { s.Set(func(c *testserver.Config) { c.NoLastModified = true }) }, "Last-Modified"},
		{"content", func(s *testserver.Server) { s.AddBytes("f", changed) }, "ETag"},
		{"longer", func(s *testserver.Server) { s.AddBytes("f", append(changed, 1)) }, "size 100000 -> 100001"},
		{"shorter", func(s *testserver.Server) { s.AddBytes("f", changed[:90_000]) }, "size 100000 -> 90000"},
		{"much shorter", func(s *testserver.Server) { s.AddBytes("f", changed[:20_000]) }, "answered 416"},
		{"no ranges", func(s *testserver.Server) {
			s.AddBytes("f", changed)
			s.Set(func(c *testserver.Config) { c.IgnoreRange = true })
		}, "ETag"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			srv := newServer(t, old)
			var q requests
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				switch q.add(r) {
				case 1:
					srv.Set(func(c *testserver.Config) { c.Truncate = 1 })
				case 2:
					tt.change(srv)
				}
				srv.ServeHTTP(w, r)
			})
			s := open(t, url+"/f", httpblock.Options{Timeout: soon})
			body := openRange(t, s, off, n)
			got, err := io.ReadAll(body)
			if !errors.Is(err, httpblock.ErrChanged) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got error %v, want %v with %q", err, httpblock.ErrChanged, tt.says)
			}
			if !bytes.Equal(got, old[off:off+n/2]) {
				t.Errorf("got %d bytes that are not the first half of the old file's", len(got))
			}
			if more, err := body.Read(make([]byte, 10)); more != 0 || !errors.Is(err, httpblock.ErrChanged) {
				t.Errorf("another Read: got %d bytes, error %v, want %v", more, err, httpblock.ErrChanged)
			}
			if diff := cmp.Diff([]string{"/f", "/f", "/f", "/f"}, q.take()); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

// Without validators a change of size is noticed all the same.
func TestChangeWithoutValidators(t *testing.T) {
	srv := newServer(t, random(100_000))
	srv.Set(func(c *testserver.Config) { c.NoETag, c.NoLastModified = true, true })
	s := open(t, srv.URL("f"), httpblock.Options{Timeout: soon})
	srv.AddBytes("f", random(100_001))
	if _, err := readAt(t.Context(), s, 1000, 50_000); !errors.Is(err, httpblock.ErrChanged) {
		t.Errorf("got error %v, want %v", err, httpblock.ErrChanged)
	}
}

func TestCloseBeforeTheEnd(t *testing.T) {
	data := random(1 << 20)
	left := make(chan struct{}, 2)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Range") == "bytes=0-8191" {
			content(w, r, data)
			return
		}
		pieces(w, r, data, 1000)
		left <- struct{}{}
	})
	s := open(t, url, httpblock.Options{})
	body := openRange(t, s, 100_000, 500_000)
	if _, err := io.ReadFull(body, make([]byte, 500)); err != nil {
		t.Fatal(err)
	}
	if err := body.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	waitFor(t, "end of the request", left)
	if err := body.Close(); err != nil {
		t.Errorf("second Close: %v", err)
	}
}

func TestOpenRangeOutOfBounds(t *testing.T) {
	s := open(t, newServer(t, random(100)).URL("f"), httpblock.Options{})
	for _, e := range []blockio.Extent{{Off: -1, Len: 1}, {Off: 1, Len: -1}, {Off: 0, Len: 101}, {Off: 100, Len: 1}, {Off: 101, Len: 0}, {Off: 1<<63 - 1, Len: 1}} {
		if body, err := s.OpenRange(t.Context(), blockio.Range{Extent: e}); err == nil {
			body.Close()
			t.Errorf("bytes %d+%d of 100: got no error", e.Off, e.Len)
		}
	}
}

// A server that is slow to answer is given more time with each attempt.
func TestSlowServer(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(100_000)
		srv := net.newServer(t, data)
		s := net.open(t, srv.URL("f"), httpblock.Options{})
		srv.Set(func(c *testserver.Config) { c.RTT = 25 * time.Second })
		before := srv.Stats().Requests
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
		defer cancel()
		if _, err := readAt(ctx, s, 1000, 50_000); err != nil {
			t.Error(err)
		}
		if n := srv.Stats().Requests - before; n != 4 { // 10, 20, 40 and 80 seconds: a new connection takes 25, too
			t.Errorf("asked %d times, want 4", n)
		}
	})
}
