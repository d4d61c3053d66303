package httpblock_test

import (
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/internal/testserver"
)

// A server that pleads for less is overloaded until it sends something; other failures
// say nothing of that.
func TestOverloaded(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(100_000)
		for code, want := range map[int]bool{429: true, 503: true, 500: false, 404: false} {
			srv := net.newServer(t, data)
			s := net.open(t, srv.URL("f"), httpblock.Options{Timeout: time.Second / 4})
			if s.Overloaded() {
				t.Errorf("%d: overloaded before it has answered so", code)
			}
			srv.Set(func(c *testserver.Config) { c.StatusTimes, c.Status = -1, code })
			if _, err := s.ReadAtContext(t.Context(), make([]byte, 100), 50_000); err == nil {
				t.Fatalf("%d: could be read", code)
			}
			if got := s.Overloaded(); got != want {
				t.Errorf("%d: overloaded is %v, want %v", code, got, want)
			}
			srv.Set(func(c *testserver.Config) { c.StatusTimes = 0 })
			readRange(t, s, data, 50_000, 100)
			if s.Overloaded() {
				t.Errorf("%d: overloaded after it has answered", code)
			}
		}
	})
}
