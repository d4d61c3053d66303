package httpblock_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/internal/testserver"
)

// soon is how long to wait for what should happen at once, before giving up.
const soon = 30 * time.Second

// random returns n bytes, always the same.
func random(n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{1}).Read(p)
	return p
}

// newServer returns a server of content as the file "f".
func newServer(t *testing.T, content []byte) *testserver.Server {
	t.Helper()
	s, err := testserver.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	s.AddBytes("f", content)
	return s
}

// serve returns the URL of a server for h.
func serve(t *testing.T, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return s.URL
}

// virtual runs a test of servers in memory: its time is virtual.
func virtual(t *testing.T, test func(t *testing.T, net *network)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) { test(t, new(network)) })
}

// network is a network in memory. Its methods are as the functions of the same names.
type network struct{ memory testserver.Network }

func (n *network) newServer(t *testing.T, content []byte) *testserver.Server {
	s := n.memory.New()
	t.Cleanup(s.Close)
	s.AddBytes("f", content)
	return s
}

func (n *network) serve(t *testing.T, h http.HandlerFunc) string {
	url, end := n.memory.Serve(h)
	t.Cleanup(end)
	return url
}

func (n *network) open(t *testing.T, url string, opt httpblock.Options) *httpblock.Source {
	t.Helper()
	return open(t, url, n.through(opt))
}

// through returns opt for servers of the network.
func (n *network) through(opt httpblock.Options) httpblock.Options {
	return httpblock.Through(opt, n.memory.DialContext)
}

// content answers a request with its range of data, with an ETag.
func content(w http.ResponseWriter, r *http.Request, data []byte) {
	w.Header().Set("ETag", `"a"`)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// hang waits until the client leaves.
func hang(r *http.Request) { <-r.Context().Done() }

func open(t *testing.T, url string, opt httpblock.Options) *httpblock.Source {
	t.Helper()
	s, err := httpblock.Open(t.Context(), url, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { s.Close() })
	return s
}

// openRange starts to read n bytes at off.
func openRange(t *testing.T, s *httpblock.Source, off, n int64) io.ReadCloser {
	t.Helper()
	body, err := s.OpenRange(t.Context(), blockio.Range{Extent: blockio.Extent{Off: off, Len: n}})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { body.Close() })
	return body
}

// readRange checks that the range of n bytes at off can be read as in data.
func readRange(t *testing.T, s *httpblock.Source, data []byte, off, n int64) {
	t.Helper()
	body := openRange(t, s, off, n)
	defer body.Close()
	got, err := io.ReadAll(body)
	if err != nil {
		t.Errorf("read %d bytes at %d: %v", n, off, err)
	}
	if !bytes.Equal(got, data[off:off+n]) {
		t.Errorf("got %d bytes at %d that are not the %d of the file", len(got), off, n)
	}
}

// asked checks which ranges were asked for: offsets and lengths.
func asked(t *testing.T, s *testserver.Server, want ...[2]int64) {
	t.Helper()
	var got [][2]int64
	for _, r := range s.Stats().Ranges {
		got = append(got, [2]int64{r.Off, r.Len})
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// requests records what a handler was asked for.
type requests struct {
	// mu guards the field below.
	mu   sync.Mutex
	seen []string
}

// add notes a request, and returns how many there have been before.
func (q *requests) add(r *http.Request) int {
	q.mu.Lock()
	defer q.mu.Unlock()
	q.seen = append(q.seen, r.URL.Path)
	return len(q.seen) - 1
}

// take returns the paths asked for since the last call.
func (q *requests) take() []string {
	q.mu.Lock()
	defer q.mu.Unlock()
	seen := q.seen
	q.seen = nil
	return seen
}

// within fails the test if f takes much longer than it should. It returns how
// long f took.
func within(t *testing.T, f func()) time.Duration {
	t.Helper()
	begin := time.Now()
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(soon):
		t.Fatal("hangs")
	}
	return time.Since(begin)
}

// waitFor waits for a word from a handler.
func waitFor(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(soon):
		t.Fatalf("gave up waiting: %s", what)
	}
}

// readAt reads n bytes at off.
func readAt(ctx context.Context, s *httpblock.Source, n int, off int64) ([]byte, error) {
	p := make([]byte, n)
	n, err := s.ReadAtContext(ctx, p, off)
	return p[:n], err
}

// refetch is readRange past every cache.
func refetch(t *testing.T, s *httpblock.Source, data []byte, off, n int64) {
	t.Helper()
	body, err := s.OpenRange(t.Context(), blockio.Range{Extent: blockio.Extent{Off: off, Len: n}, Refetch: true})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, data[off:off+n]) {
		t.Errorf("refetch of %d bytes at %d: got %d, error %v", n, off, len(got), err)
	}
}

// discard is for servers whose complaints are expected.
var discard = log.New(io.Discard, "", 0)

// content206 is content with the ETag that is set already.
func content206(w http.ResponseWriter, r *http.Request, data []byte) {
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(data))
}

// shorten makes a request one for at most n bytes.
func shorten(r *http.Request, n int) {
	var off, last int
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &off, &last); err == nil {
		r.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", off, min(last, off+n-1)))
	}
}
