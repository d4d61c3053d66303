package httpblock_test

import (
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/httpblock"
)

// A server that asks for less gets half, for good, but not again before it has seen that;
// one that serves nobody asks for nothing.
func TestConnectionsAreHalved(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(100_000)
		var status atomic.Int64
		url := net.serve(t, func(w http.ResponseWriter, r *http.Request) {
			if code := status.Load(); code != 0 {
				w.WriteHeader(int(code))
				return
			}
			content(w, r, data)
		})
		s := net.open(t, url, httpblock.Options{Connections: 32, Timeout: 300 * time.Millisecond})
		allowed := func(want int) {
			t.Helper()
			if n := s.Connections(); n != want {
				t.Errorf("%d connections, want %d", n, want)
			}
		}
		fail := func(code int) {
			status.Store(int64(code))
			if _, err := readAt(t.Context(), s, 1000, 50_000); err == nil {
				t.Errorf("no error for %d", code)
			}
			status.Store(0)
		}
		fail(500)
		allowed(32)
		fail(503) // several of them
		allowed(16)
		readRange(t, s, data, 50_000, 1000)
		fail(429)
		allowed(16) // too soon
		time.Sleep(time.Second)
		fail(429)
		allowed(8)
		time.Sleep(time.Second)
		fail(503)
		allowed(8) // nothing has come since
		for range 5 {
			time.Sleep(time.Second)
			readRange(t, s, data, 50_000, 1000)
			fail(503)
		}
		allowed(1)
	})
}
