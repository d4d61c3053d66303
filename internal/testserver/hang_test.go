package testserver_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// received waits for the n-th request since the last Reset.
func received(t *testing.T, s *testserver.Server, n int) {
	t.Helper()
	eventually(t, "request received", func() bool { return s.Stats().Requests >= n })
}

// background makes a request and sends its error when it is over.
func background(ctx context.Context, t *testing.T, url string) <-chan error {
	c := newClient(t)
	result := make(chan error, 1)
	go func() {
		resp, err := start(ctx, c, http.MethodGet, url)
		if err == nil {
			_, err = io.ReadAll(resp.Body)
			resp.Body.Close()
		}
		result <- err
	}()
	return result
}

// ends waits for an error.
func ends(t *testing.T, result <-chan error) error {
	t.Helper()
	select {
	case err := <-result:
		return err
	case <-time.After(soon):
		t.Fatal("the request still hangs")
		return nil
	}
}

func TestHangBeforeHeaders(t *testing.T) {
	s := newServer(t)
	s.AddBytes("f", pattern(100))
	s.Set(func(c *testserver.Config) { c.Hang = testserver.HangBeforeHeaders })
	result := background(t.Context(), t, s.URL("f"))
	received(t, s, 1)
	s.Set(func(c *testserver.Config) { c.RTT = 0 }) // Hang as before
	select {
	case err := <-result:
		t.Fatalf("the request did not hang: error %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	s.Set(func(c *testserver.Config) { c.Hang = testserver.HangNone })
	if err := ends(t, result); err == nil {
		t.Error("got an answer, want a closed connection")
	}
	if got := s.Stats().Ranges[0].Status; got != 0 {
		t.Errorf("headers with status %d were sent", got)
	}
	get(t, newClient(t), s.URL("f"))
}

func TestHangMidBody(t *testing.T) {
	content := pattern(100_000)
	s := newServer(t)
	s.AddBytes("f", content)
	s.Set(func(c *testserver.Config) { c.Hang = testserver.HangMidBody })
	c := newClient(t)
	if _, _, err := request(t, c, http.MethodHead, s.URL("f")); err != nil {
		t.Errorf("HEAD: got error %v", err)
	}
	resp, err := start(t.Context(), c, http.MethodGet, s.URL("f"), "Range", "bytes=10000-29999")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.ContentLength != 20_000 {
		t.Errorf("got Content-Length %d, want 20000", resp.ContentLength)
	}
	half := make([]byte, 10_000)
	if _, err := io.ReadFull(resp.Body, half); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(half, content[10_000:20_000]) {
		t.Error("got a wrong body")
	}
	rest := make(chan error, 1)
	go func() {
		_, err := io.ReadFull(resp.Body, make([]byte, 1))
		rest <- err
	}()
	select {
	case err := <-rest:
		t.Fatalf("the body did not hang: error %v", err)
	case <-time.After(50 * time.Millisecond):
	}
	s.Set(func(c *testserver.Config) { c.Hang = testserver.HangNone })
	if err := ends(t, rest); err == nil {
		t.Error("the body went on, want a closed connection")
	}
	if _, body := get(t, c, s.URL("f")); !bytes.Equal(body, content) {
		t.Error("got a wrong body afterwards")
	}
}

func TestHangFrom(t *testing.T) {
	s := newServer(t)
	s.AddBytes("f", pattern(100))
	s.Set(func(c *testserver.Config) { c.Hang, c.HangFrom = testserver.HangBeforeHeaders, 50 })
	c := newClient(t)
	get(t, c, s.URL("f"))
	get(t, c, s.URL("f"), "Range", "bytes=49-99")
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if resp, err := start(ctx, c, http.MethodGet, s.URL("f"), "Range", "bytes=50-50"); err == nil {
		resp.Body.Close()
		t.Error("a range from HangFrom on does not hang")
	}
}

// stuck are ways to keep a request from its end.
var stuck = []struct {
	name string
	cfg  testserver.Config
}{
	{"RTT", testserver.Config{RTT: time.Hour}},
	{"Rate", testserver.Config{Rate: 1}},
	{"Buffer", testserver.Config{Rate: 1, Buffer: 10}},
	{"HangBeforeHeaders", testserver.Config{Hang: testserver.HangBeforeHeaders}},
	{"HangMidBody", testserver.Config{Hang: testserver.HangMidBody}},
}

// TestHandlerEnds is about requests that come through another server, where the
// end of the handler can be seen.
func TestHandlerEnds(t *testing.T) {
	for _, tt := range stuck {
		for _, closes := range []bool{false, true} {
			name := tt.name + "/client leaves"
			if closes {
				name = tt.name + "/Close"
			}
			t.Run(name, func(t *testing.T) {
				s := newServer(t)
				s.AddBytes("f", pattern(100_000))
				s.Set(func(c *testserver.Config) { *c = tt.cfg })
				left := make(chan error, 1)
				ts := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
					defer func() { left <- nil }()
					s.ServeHTTP(w, r)
				}))
				defer ts.Close()
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				result := background(ctx, t, ts.URL+"/f")
				received(t, s, 1)
				if closes {
					s.Close()
				} else {
					cancel()
				}
				_ = ends(t, left)
				if err := ends(t, result); err == nil {
					t.Error("the request was answered, want it to be stuck")
				}
			})
		}
	}
}

func TestCloseEndsRequests(t *testing.T) {
	for _, tt := range stuck {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			s.AddBytes("f", pattern(100_000))
			s.Set(func(c *testserver.Config) { *c = tt.cfg })
			result := background(t.Context(), t, s.URL("f"))
			received(t, s, 1)
			closes(t, s)
			if err := ends(t, result); err == nil {
				t.Error("the request was answered, want it to be cut")
			}
			s.Close() // once more does nothing
		})
	}
}

func TestCloseWithClientThatDoesNotRead(t *testing.T) {
	s := newServer(t)
	s.AddBytes("f", make([]byte, 64<<20)) // more than buffers hold
	resp, err := start(t.Context(), newClient(t), http.MethodGet, s.URL("f"))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	closes(t, s)
}

func closes(t *testing.T, s *testserver.Server) {
	t.Helper()
	closed := make(chan error, 1)
	go func() {
		s.Close()
		closed <- nil
	}()
	_ = ends(t, closed)
}
