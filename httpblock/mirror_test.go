package httpblock_test

import (
	"bytes"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/internal/testserver"
)

// mirrors opens a file of several servers, the first at first, and waits until all of
// them are used.
func (n *network) mirrors(t *testing.T, data []byte, first string, others ...string) *httpblock.Source {
	t.Helper()
	s := n.open(t, first, httpblock.Options{Mirrors: others})
	s.Join([]blockio.Piece{{Off: 50_000, Bytes: data[50_000:54_096]}})
	for i := range others {
		awaitState(t, s, i+1, blockio.ServerOK, blockio.ServerFailing)
	}
	return s
}

// awaitState waits until the server of a number is in one of these states.
func awaitState(t *testing.T, s *httpblock.Source, server int, want ...blockio.ServerState) {
	t.Helper()
	var now blockio.ServerState
	for end := time.Now().Add(soon); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		now = s.Servers()[server].State
		if slices.Contains(want, now) {
			return
		}
	}
	t.Fatalf("server %d is %s, want %s", server, now, want)
}

// A mirror is asked when it was seen to have the file, and not before; one that has
// another file never.
func TestMirrorIsCompared(t *testing.T) {
	data := random(100_000)
	other := func(at int) []byte {
		p := bytes.Clone(data)
		p[at] ^= 1
		return p
	}
	tests := []struct {
		name string
		has  []byte
		want blockio.ServerState
	}{
		{"the same", data, blockio.ServerOK},
		{"another size", data[:99_999], blockio.ServerBanned},
		{"another head", other(10), blockio.ServerBanned},
		{"another piece", other(50_010), blockio.ServerBanned},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			virtual(t, func(t *testing.T, net *network) {
				a, b := net.newServer(t, data), net.newServer(t, test.has)
				s := net.open(t, a.URL("f"), httpblock.Options{Mirrors: []string{b.URL("f")}})
				if n := b.Stats().Requests; n != 0 {
					t.Errorf("the mirror was asked %d times before Join", n)
				}
				s.Join([]blockio.Piece{{Off: 50_000, Bytes: data[50_000:54_096]}})
				awaitState(t, s, 1, test.want)
				a.Set(func(c *testserver.Config) { c.StatusTimes = -1 })
				body := openRange(t, s, 60_000, 1000)
				if test.want == blockio.ServerOK {
					readRange(t, s, data, 60_000, 1000)
					return
				}
				before := b.Stats().Requests
				a.Set(func(c *testserver.Config) { c.StatusTimes = 3 })
				if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, data[60_000:61_000]) {
					t.Errorf("got %d bytes, error %v", len(got), err)
				}
				if n := b.Stats().Requests - before; n != 0 {
					t.Errorf("a mirror with another file was asked %d times", n)
				}
			})
		})
	}
}

// What tells the server of the URL who we are is not told to mirrors.
func TestMirrorGetsNoCredentials(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(100_000)
		var mu sync.Mutex
		var seen []http.Header
		mirror := net.serve(t, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			seen = append(seen, r.Header.Clone())
			mu.Unlock()
			content(w, r, data)
		})
		a := net.newServer(t, data)
		s := net.open(t, a.URL("f"), httpblock.Options{
			Mirrors: []string{"http://m:p@" + mirror[len("http://"):]},
			Header:  http.Header{"X-Secret": {"s"}}, Token: func() (string, error) { return "token", nil },
		})
		s.Join(nil)
		awaitState(t, s, 1, blockio.ServerOK)
		mu.Lock()
		defer mu.Unlock()
		if len(seen) == 0 {
			t.Fatal("the mirror was not asked")
		}
		for _, h := range seen {
			if h.Get("X-Secret") != "" || h.Get("Authorization") != "Basic bTpw" {
				t.Errorf("the mirror was sent %v", h)
			}
		}
	})
}

// Where the URL's server does not answer, a mirror opens the file.
func TestMirrorOpens(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(100_000)
		gone := httptest.NewServer(http.NotFoundHandler())
		gone.Close()
		b := net.newServer(t, data)
		s := net.mirrors(t, data, b.URL("f"))
		within(t, func() {
			s = net.open(t, gone.URL+"/f", httpblock.Options{Mirrors: []string{b.URL("f")}})
		})
		readRange(t, s, data, 60_000, 1000)
		if got := s.Copy().URL.String(); got != b.URL("f") {
			t.Errorf("found at %s, want %s", got, b.URL("f"))
		}
	})
}

// Every kind of failure of one server is mended by another, at once.
func TestMirrorTakesOver(t *testing.T) {
	data := random(300_000)
	tests := []struct {
		name  string
		fault func(*testserver.Config)
	}{
		{"503", func(c *testserver.Config) { c.StatusTimes = -1 }},
		{"404", func(c *testserver.Config) { c.StatusTimes, c.Status = -1, 404 }},
		{"reset", func(c *testserver.Config) { c.Reset = -1 }},
		{"cut off", func(c *testserver.Config) { c.Truncate = -1 }},
		{"changed", func(c *testserver.Config) { c.ETag = `"other"` }},
		{"no ranges", func(c *testserver.Config) { c.IgnoreRange = true }},
		{"hangs", func(c *testserver.Config) { c.Hang = testserver.HangBeforeHeaders }},
		{"hangs in the body", func(c *testserver.Config) { c.Hang = testserver.HangMidBody }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			virtual(t, func(t *testing.T, net *network) {
				a, b := net.newServer(t, data), net.newServer(t, data)
				s := net.mirrors(t, data, a.URL("f"), b.URL("f"))
				a.Set(test.fault)
				for i := range int64(20) {
					readRange(t, s, data, 10_000*i, 10_000)
				}
				time.Sleep(time.Minute) // as long as it fails
				awaitState(t, s, 0, blockio.ServerLeft)
				if n := b.Stats().Requests; n < 18 {
					t.Errorf("%d requests to the mirror, want most of 20", n)
				}
				a.Set(func(c *testserver.Config) { *c = testserver.Config{} })
				awaitState(t, s, 0, blockio.ServerOK, blockio.ServerFailing)
			})
		})
	}
}
