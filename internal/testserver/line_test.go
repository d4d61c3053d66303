package testserver_test

import (
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// Times are compared with lower bounds only: a busy machine may take longer.

func TestRTT(t *testing.T) {
	const rtt = 50 * time.Millisecond
	s := newServer(t)
	s.AddBytes("f", pattern(10))
	s.Set(func(c *testserver.Config) { c.RTT = rtt })
	c := newClient(t)
	for i, want := range []time.Duration{2 * rtt, rtt} {
		begin := time.Now()
		get(t, c, s.URL("f"))
		if d := time.Since(begin); d < want {
			t.Errorf("request %d took %v, want at least %v", i, d, want)
		}
	}
	if n := s.Stats().Conns; n != 1 {
		t.Errorf("got %d connections, want 1", n)
	}
}

func TestRate(t *testing.T) {
	const (
		rate = 1_000_000
		size = 100_000
	)
	for _, clients := range []int{1, 3} {
		s := newServer(t)
		s.AddBytes("f", pattern(size))
		s.Set(func(c *testserver.Config) { c.Rate = rate })
		var wg sync.WaitGroup
		begin := time.Now()
		for range clients {
			c := newClient(t)
			wg.Go(func() {
				if _, _, err := request(t, c, http.MethodGet, s.URL("f")); err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		want := time.Duration(clients) * time.Second * size / rate
		if d := time.Since(begin); d < want {
			t.Errorf("%d clients took %v, want at least %v", clients, d, want)
		}
	}
}

func TestSlowStart(t *testing.T) {
	const (
		rtt    = 40 * time.Millisecond
		window = 14600
	)
	s := newServer(t)
	s.AddBytes("f", pattern(3*window+1)) // one byte more than two windows
	s.Set(func(c *testserver.Config) { c.RTT, c.SlowStart = rtt, true })
	c := newClient(t)
	begin := time.Now()
	get(t, c, s.URL("f"))
	// The connection, the request, and two windows to wait for.
	if d := time.Since(begin); d < 4*rtt {
		t.Errorf("took %v, want at least %v", d, 4*rtt)
	}
}
