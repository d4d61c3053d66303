package testserver

import (
	"bytes"
	"fmt"
	"net/http"
	"net/http/httptest"
	"sync"
	"testing"
	"testing/synctest"
	"time"
)

// The line of these tests: 1 MB/s and 100 ms, with a buffer of one
// bandwidth-delay product.
const (
	testRTT    = 100 * time.Millisecond
	testRate   = 1_000_000
	testBuffer = 100_000
)

// arrival is a recorder that notes when bytes of the body arrive.
type arrival struct {
	*httptest.ResponseRecorder
	begin time.Time
	first time.Duration // after begin, like last
	last  time.Duration
	most  int // bytes at once
}

func (a *arrival) Write(p []byte) (int, error) {
	a.last = time.Since(a.begin)
	if a.Body.Len() == 0 {
		a.first = a.last
	}
	a.most = max(a.most, len(p))
	return a.ResponseRecorder.Write(p)
}

// onLine runs f with a server on the line of these tests, in virtual time.
func onLine(t *testing.T, size int, f func(s *Server, get func(rng string) *arrival)) {
	t.Helper()
	synctest.Test(t, func(t *testing.T) {
		s := newServer()
		s.AddBytes("f", make([]byte, size))
		s.Set(func(c *Config) { c.RTT, c.Rate, c.Buffer = testRTT, testRate, testBuffer })
		f(s, func(rng string) (a *arrival) {
			r := httptest.NewRequest(http.MethodGet, "/f", nil)
			r.Header.Set("Range", rng)
			a = &arrival{ResponseRecorder: httptest.NewRecorder(), begin: time.Now()}
			defer func() { _ = recover() }() // http.ErrAbortHandler
			s.ServeHTTP(a, r)
			return a
		})
	})
}

func TestQueueOfOneResponse(t *testing.T) {
	onLine(t, 300_000, func(_ *Server, get func(string) *arrival) {
		a := get("bytes=0-299999")
		if a.Body.Len() != 300_000 || a.most != maxPiece {
			t.Errorf("got %d bytes, at most %d at once, want 300000 and %d", a.Body.Len(), a.most, maxPiece)
		}
		if want := testRTT + transfer(maxPiece, testRate); a.first != want {
			t.Errorf("the first bytes arrived after %v, want %v", a.first, want)
		}
		if want := testRTT + 300*time.Millisecond; a.last != want {
			t.Errorf("the last bytes arrived after %v, want %v", a.last, want)
		}
	})
}

// A small response waits for what is in the queue, however many large ones fill
// it, and for no more than that.
func TestQueueDelaysNewResponse(t *testing.T) {
	for _, large := range []int{1, 2, 32} {
		t.Run(fmt.Sprint(large), func(t *testing.T) {
			onLine(t, 1_000_000, func(_ *Server, get func(string) *arrival) {
				var wg sync.WaitGroup
				for range large {
					wg.Go(func() { get("bytes=0-999999") })
				}
				time.Sleep(testRTT + 600*time.Millisecond) // all have begun, none is over
				a := get("bytes=0-999")
				// One of the pieces of the others is on its way out when the
				// response reaches the queue, and one may not fit any more.
				full := testRTT + transfer(testBuffer, testRate)
				lowest, highest := full-transfer(maxPiece, testRate), full+transfer(1000, testRate)
				if a.last < lowest || a.last > highest {
					t.Errorf("arrived after %v, want %v to %v", a.last, lowest, highest)
				}
				wg.Wait()
			})
		})
	}
}

// All get the same share, but for what the first has put into the empty queue, and
// the line is never idle.
func TestQueueIsShared(t *testing.T) {
	onLine(t, 200_000, func(_ *Server, get func(string) *arrival) {
		var wg sync.WaitGroup
		last := make([]time.Duration, 4)
		for i := range last {
			wg.Go(func() { last[i] = get("bytes=0-199999").last })
		}
		wg.Wait()
		end := testRTT + 800*time.Millisecond
		latest := time.Duration(0)
		for _, d := range last {
			latest = max(latest, d)
			if earliest := end - 3*transfer(testBuffer, testRate) - 4*transfer(maxPiece, testRate); d < earliest {
				t.Errorf("one ended after %v, want all between %v and %v", d, earliest, end)
			}
		}
		if latest != end {
			t.Errorf("the last ended after %v, want %v", latest, end)
		}
	})
}

// What has entered the queue leaves it, also if the response ends early.
func TestQueueOfCutResponse(t *testing.T) {
	onLine(t, 300_000, func(s *Server, get func(string) *arrival) {
		s.Set(func(c *Config) { c.Truncate = 1 })
		a := get("bytes=100000-299999")
		if want := testRTT + 100*time.Millisecond; a.Body.Len() != 100_000 || a.last != want {
			t.Errorf("got %d bytes after %v, want 100000 after %v", a.Body.Len(), a.last, want)
		}
		s.Set(func(c *Config) { c.FlipTimes, c.FlipOffset = 1, 150_000 })
		want := make([]byte, 200_000)
		want[50_000] = 1
		if a := get("bytes=100000-299999"); !bytes.Equal(a.Body.Bytes(), want) {
			t.Error("got a wrong body, want one bit flipped")
		}
	})
}

// Entries are admitted in this order: first pieces as they come, then others as
// they come.
func TestQueueOrder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l line
		begin := time.Now()
		enter := func(n int, first bool) *entry {
			e := &entry{ready: time.Now(), n: n, first: first, rate: 1000, buffer: 100, leaves: make(chan time.Time, 1)}
			l.enter(e)
			return e
		}
		check := func(name string, e *entry, in, leaves time.Duration) {
			t.Helper()
			got := (<-e.leaves).Sub(begin)
			if now := time.Since(begin); now != in || got != leaves {
				t.Errorf("%s: in the queue after %v, leaves after %v, want %v and %v", name, now, got, in, leaves)
			}
		}
		const ms = time.Millisecond
		a, b, c := enter(60, false), enter(60, false), enter(60, false)
		gone := enter(100, true)
		d, e := enter(50, true), enter(10, true)
		l.withdraw(gone)
		check("a", a, 0, 60*ms)
		check("d", d, 10*ms, 110*ms)
		check("e", e, 20*ms, 120*ms)
		check("b", b, 80*ms, 180*ms)
		check("c", c, 140*ms, 240*ms)
		time.Sleep(360 * ms)
		check("after a pause", enter(100, false), 500*ms, 600*ms)
	})
}
