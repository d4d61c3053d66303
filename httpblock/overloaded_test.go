package httpblock_test

import (
	"context"
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

// A body that breaks off is a failure of its server; that its reader goes away is none.
func TestBrokenBodiesCount(t *testing.T) {
	data := random(100_000)
	tests := []struct {
		name  string
		wrong testserver.Config
		want  int64
	}{
		{"short", testserver.Config{Truncate: 2}, 2},
		{"reset", testserver.Config{Wrong: testserver.ResetInBody, WrongTimes: 2}, 2},
		{"left by its reader", testserver.Config{Hang: testserver.HangMidBody}, 0},
	}
	for _, tt := range tests {
		virtual(t, func(t *testing.T, net *network) {
			srv := net.newServer(t, data)
			s := net.open(t, srv.URL("f"), httpblock.Options{Timeout: 30 * time.Second})
			srv.Set(func(c *testserver.Config) { *c = tt.wrong })
			ctx, cancel := context.WithCancel(t.Context())
			defer time.AfterFunc(time.Second, cancel).Stop()
			if _, err := readAt(ctx, s, 20_000, 50_000); (err == nil) != (tt.want > 0) {
				t.Errorf("%s: error %v", tt.name, err)
			}
			if got := s.Servers()[0].Failed; got != tt.want {
				t.Errorf("%s: %d failures, want %d", tt.name, got, tt.want)
			}
		})
	}
}
