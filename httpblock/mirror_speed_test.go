package httpblock_test

import (
	"bytes"
	"io"
	"net/http"
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
				awaitState(t, s, 0, httpblock.Used)
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

// What a reader waits for is asked for a second time, elsewhere, where the answer is
// late; not often. Who loses is told.
func TestHedge(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		const usual, every, reads = 20 * time.Millisecond, 100, 400
		data := random(1_000_000)
		var on atomic.Bool
		var asked, lost atomic.Int64
		late := func(w http.ResponseWriter, r *http.Request) {
			time.Sleep(usual)
			if asked.Add(1)%every == 0 && on.Load() {
				select {
				case <-time.After(soon):
				case <-r.Context().Done():
					lost.Add(1)
					return
				}
			}
			content(w, r, data)
		}
		s := net.mirrors(t, data, net.serve(t, late), net.serve(t, late))
		on.Store(true)
		before := asked.Load()
		slow := 0
		for i := range int64(reads) {
			begin := time.Now()
			readRange(t, s, data, i%90*10_000, 1000)
			if time.Since(begin) > 800*time.Millisecond { // a silent server is left after a second
				slow++
			}
		}
		if slow > 1 {
			t.Errorf("%d reads have waited for an answer that was late, of %d", slow, reads/every)
		}
		if n := asked.Load() - before; n > reads+reads/50+1 {
			t.Errorf("%d requests for %d reads", n, reads)
		}
		for end := time.Now().Add(soon); lost.Load() < reads/every-1; time.Sleep(10 * time.Millisecond) {
			if time.Now().After(end) {
				t.Fatalf("%d of those that were late were told that nobody waits", lost.Load())
			}
		}
		if due, open := httpblock.Outstanding(s); due != 0 || open != 0 {
			t.Errorf("%d bytes of %d requests are expected, and nothing is under way", due, open)
		}
	})
}

// What nobody waits for is asked for once.
func TestBackgroundIsNotHedged(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(1_000_000)
		var on atomic.Bool
		var asked atomic.Int64
		late := func(w http.ResponseWriter, r *http.Request) {
			asked.Add(1)
			if on.Load() {
				time.Sleep(300 * time.Millisecond)
			}
			content(w, r, data)
		}
		s := net.mirrors(t, data, net.serve(t, late), net.serve(t, late))
		for i := range int64(100) { // so that there is something to compare with
			readRange(t, s, data, i%90*10_000, 1000)
		}
		on.Store(true)
		before := asked.Load()
		body, err := s.OpenRange(t.Context(), blockio.Range{Extent: blockio.Extent{Off: 500_000, Len: 1000}, Class: blockio.ReadAhead})
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, data[500_000:501_000]) {
			t.Errorf("got %d bytes, error %v", len(got), err)
		}
		if n := asked.Load() - before; n != 1 {
			t.Errorf("%d requests, want 1", n)
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
		if st := s.Stats()[1]; st.Failed > 60 { // 16 at a time, for three times
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
		s := net.open(t, a.URL("f"), httpblock.Options{Mirrors: []string{b.URL("f")}})
		httpblock.SetMeasureTime(s, 100*time.Millisecond)
		s.Join([]httpblock.Piece{{Off: 50_000, Bytes: data[50_000:54_096]}})
		awaitState(t, s, 1, httpblock.Used)
		before := b.Stats().Requests
		for end := time.Now().Add(soon); b.Stats().Requests < before+3; time.Sleep(5 * time.Millisecond) {
			readRange(t, s, data, 60_000, 1000)
			if time.Now().After(end) {
				t.Fatalf("measured %d times", b.Stats().Requests-before)
			}
		}
		for _, r := range b.Stats().Ranges[before:] {
			if r.Len != 64<<10 && r.Len != 1000 {
				t.Errorf("asked for %d bytes", r.Len)
			}
		}
	})
}
