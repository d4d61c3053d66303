package httpblock_test

import (
	"bytes"
	"io"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/internal/testserver"
)

// Two mirrors, one goes silent under load: no read takes longer than 2 s more, none
// fails, and it is used again when it is back.
func TestSilentMirror(t *testing.T) {
	tests := []struct {
		name string
		hang testserver.Hang
	}{
		{"before the headers", testserver.HangBeforeHeaders},
		{"in the body", testserver.HangMidBody},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			virtual(t, func(t *testing.T, net *network) {
				data := random(1_000_000)
				a, b := net.newServer(t, data), net.newServer(t, data)
				s := net.mirrors(t, data, a.URL("f"), b.URL("f"))
				slowest, stop := keepReading(t, s, data, 16)
				time.Sleep(300 * time.Millisecond)
				usual := slowest()
				a.Set(func(c *testserver.Config) { c.Hang = test.hang })
				time.Sleep(3 * time.Second)
				if d := slowest(); d > usual+2*time.Second {
					t.Errorf("a read took %v, before that %v", d, usual)
				}
				before := a.Stats().Requests
				a.Set(func(c *testserver.Config) { c.Hang = testserver.HangNone })
				awaitState(t, s, 0, blockio.ServerOK)
				b.Set(func(c *testserver.Config) { c.RTT = 300 * time.Millisecond }) // so that it is the worse one
				for end := time.Now().Add(soon); a.Stats().Requests < before+50; time.Sleep(10 * time.Millisecond) {
					if time.Now().After(end) {
						t.Fatalf("%d requests since it is back", a.Stats().Requests-before)
					}
				}
				stop()
			})
		})
	}
}

// keepReading reads with so many readers until stop is called. slowest is the longest
// that a read has taken since it was asked last.
func keepReading(t *testing.T, s *httpblock.Source, data []byte, readers int) (slowest func() time.Duration, stop func()) {
	var mu sync.Mutex
	var longest time.Duration
	var wg sync.WaitGroup
	done := make(chan struct{})
	for i := range readers {
		wg.Go(func() {
			for n := i; ; n += readers {
				select {
				case <-done:
					return
				default:
				}
				begin := time.Now()
				readRange(t, s, data, int64(n%90)*10_000, 10_000)
				if t.Failed() {
					return
				}
				mu.Lock()
				longest = max(longest, time.Since(begin))
				mu.Unlock()
				time.Sleep(50 * time.Millisecond)
			}
		})
	}
	slowest = func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		d := longest
		longest = 0
		return d
	}
	stop = sync.OnceFunc(func() { close(done); wg.Wait() })
	t.Cleanup(stop)
	return slowest, stop
}

// A slow server is asked for little, by readers and in the background.
func TestSlowMirror(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		const fast = 4 << 20
		data := random(4 << 20)
		var servers []*testserver.Server
		var urls []string
		for range 3 {
			srv := net.newServer(t, data)
			srv.Set(func(c *testserver.Config) { c.Rate, c.RTT = fast, 10*time.Millisecond })
			servers, urls = append(servers, srv), append(urls, srv.URL("f"))
		}
		s := net.mirrors(t, data, urls[0], urls[1:]...)
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for i := range 12 {
			class := blockio.Class(i % 2 * int(blockio.Fill))
			wg.Go(func() {
				for n := 0; ; n++ {
					select {
					case <-stop:
						return
					default:
					}
					e := blockio.Extent{Off: int64((n*12 + i) % 60 * (64 << 10)), Len: 64 << 10}
					body, err := s.OpenRange(t.Context(), blockio.Range{Extent: e, Class: class})
					if err != nil {
						t.Error(err)
						return
					}
					got, err := io.ReadAll(body)
					body.Close()
					if err != nil || !bytes.Equal(got, data[e.Off:e.End()]) {
						t.Errorf("got %d bytes, error %v", len(got), err)
					}
				}
			})
		}
		count := func() (all, slow int) {
			for i, srv := range servers {
				n := srv.Stats().Requests
				all += n
				if i == 0 {
					slow = n
				}
			}
			return all, slow
		}
		time.Sleep(2 * time.Second)
		all, slow := count()
		if 6*slow < all {
			t.Errorf("of %d requests %d went to a server as fast as two others", all, slow)
		}
		servers[0].Set(func(c *testserver.Config) { c.Rate, c.RTT = fast/10, 100*time.Millisecond })
		time.Sleep(5 * time.Second)
		all0, slow0 := count()
		time.Sleep(10 * time.Second)
		all, slow = count()
		close(stop)
		wg.Wait()
		all, slow = all-all0, slow-slow0
		t.Logf("%d of %d requests", slow, all)
		if all < 100 || 20*slow >= all {
			t.Errorf("of %d requests %d went to the slow server", all, slow)
		}
	})
}

// A server that fails now and then is used again after a pause, and not by what was asked
// for before.
func TestFlappingServer(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(1_000_000)
		var asked atomic.Int64
		var on atomic.Bool
		flapping := net.serve(t, func(w http.ResponseWriter, r *http.Request) {
			if on.Load() && asked.Add(1)%3 == 0 {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			content(w, r, data)
		})
		b := net.newServer(t, data)
		s := net.mirrors(t, data, b.URL("f"), flapping)
		on.Store(true)
		b.Set(func(c *testserver.Config) { c.RTT = 20 * time.Millisecond })
		_, stop := keepReading(t, s, data, 16)
		time.Sleep(3 * time.Second)
		stop()
		if st := s.Servers()[1]; st.Failed > 60 { // 16 at a time, for three times
			t.Errorf("failed %d times", st.Failed)
		}
	})
}

// A server that is not asked for anything is measured, while others are.
func TestIdleServerIsMeasured(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(1_000_000)
		a, b := net.newServer(t, data), net.newServer(t, data)
		b.Set(func(c *testserver.Config) { c.RTT = 200 * time.Millisecond })
		s := net.mirrors(t, data, a.URL("f"), b.URL("f"))
		_, stop := keepReading(t, s, data, 1)
		b.Reset()
		time.Sleep(35 * time.Second)
		stop()
		if got := b.Stats().Ranges; len(got) != 3 || got[0].Len != 64<<10 || got[1].Len != 64<<10 {
			t.Errorf("asked for %+v, want 64 KiB every ten seconds", got)
		}
		time.Sleep(10 * time.Second) // what was begun
		b.Reset()
		time.Sleep(time.Minute)
		if n := b.Stats().Requests; n > 0 {
			t.Errorf("asked %d times, while nothing is read", n)
		}
	})
}

// A server that was slow for a moment is used again soon.
func TestSlowForAMoment(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(1_000_000)
		a, b := net.newServer(t, data), net.newServer(t, data)
		b.Set(func(c *testserver.Config) { c.RTT = 60 * time.Millisecond })
		s := net.mirrors(t, data, a.URL("f"), b.URL("f"))
		a.Set(func(c *testserver.Config) { c.RTT = 500 * time.Millisecond })
		_, stop := keepReading(t, s, data, 4)
		time.Sleep(2 * time.Second)
		a.Set(func(c *testserver.Config) { c.RTT = 10 * time.Millisecond })
		time.Sleep(11 * time.Second)
		before := a.Stats().Requests
		time.Sleep(time.Second)
		if n := a.Stats().Requests - before; n < 50 {
			t.Errorf("asked %d times in the twelfth second", n)
		}
		stop()
	})
}

// A server that fails is asked again after pauses that grow, and begin anew only when it was
// well for a while.
func TestPauses(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(1_000_000)
		// mu guards the variables below.
		var mu sync.Mutex
		var fails bool
		var failed []time.Time
		failing := net.serve(t, func(w http.ResponseWriter, r *http.Request) {
			mu.Lock()
			bad := fails
			if bad {
				failed = append(failed, time.Now())
			}
			mu.Unlock()
			if bad {
				w.WriteHeader(http.StatusInternalServerError)
				return
			}
			content(w, r, data)
		})
		// spell is a time of failures, and says the pauses between them.
		spell := func(d time.Duration) (pauses []time.Duration) {
			mu.Lock()
			fails, failed = true, nil
			mu.Unlock()
			time.Sleep(d)
			mu.Lock()
			defer mu.Unlock()
			fails = false
			for i := 1; i < len(failed); i++ {
				pauses = append(pauses, failed[i].Sub(failed[i-1]))
			}
			return pauses
		}
		check := func(when string, got []time.Duration, want ...time.Duration) {
			t.Helper()
			if !slices.Equal(got, want) {
				t.Errorf("%s: asked again after %v, want %v", when, got, want)
			}
		}
		b := net.newServer(t, data)
		s := net.mirrors(t, data, b.URL("f"), failing)
		b.Set(func(c *testserver.Config) { c.RTT = 50 * time.Millisecond }) // so that it is the worse one
		_, stop := keepReading(t, s, data, 1)
		time.Sleep(time.Second)
		check("at first", spell(9*time.Second), time.Second, 2*time.Second, 4*time.Second)
		time.Sleep(20 * time.Second) // it is healed after six
		check("soon again", spell(20*time.Second), 16*time.Second)
		time.Sleep(60 * time.Second)
		check("after it was well", spell(2*time.Second), time.Second)
		stop()
	})
}

// A server that fails when it is measured is left, and asked again after a pause as well.
func TestMeasuredServerFails(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(1_000_000)
		a, b := net.newServer(t, data), net.newServer(t, data)
		b.Set(func(c *testserver.Config) { c.RTT = 100 * time.Millisecond })
		s := net.mirrors(t, data, a.URL("f"), b.URL("f"))
		_, stop := keepReading(t, s, data, 1)
		b.Set(func(c *testserver.Config) { c.StatusTimes = -1 })
		before := b.Stats().Requests
		awaitState(t, s, 1, blockio.ServerLeft)
		time.Sleep(900 * time.Millisecond)
		if n := b.Stats().Requests - before; n != 1 {
			t.Errorf("asked %d times within a second", n)
		}
		stop()
	})
}
