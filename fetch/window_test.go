package fetch

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

func TestWindowFollowsTheLine(t *testing.T) {
	for _, c := range []struct {
		trip            time.Duration
		bytes           int // that arrive in the time of a request
		took            time.Duration
		ahead           int64 // the window for readers
		window, request int64
	}{
		{0, 0, 0, minWindow, minWindow, minWindow / 3},
		{50 * time.Millisecond, 2e6, 100 * time.Millisecond, 1.7e6, 1.5e6, .5e6},
		{50 * time.Millisecond, 1 << 10, 100 * time.Millisecond, minWindow, minWindow, minWindow / 3},
		{time.Second, 1 << 30, time.Second, 12 << 20, 12 << 20, 4 << 20}, // as ARCHITECTURE.md says
	} {
		synctest.Test(t, func(t *testing.T) {
			e := newEstimate(func() time.Duration { return c.trip })
			r := e.send(time.Now())
			time.Sleep(c.took)
			e.received(c.bytes)
			e.ended(time.Now(), r)
			if got := e.window(blockio.ReadAhead); got != c.ahead {
				t.Errorf("%v, %d bytes in %v: a window of %d for readers, want %d", c.trip, c.bytes, c.took, got, c.ahead)
			}
			if got := e.window(blockio.Speculation); got != c.window || e.request() != c.request {
				t.Errorf("%v, %d bytes in %v: a window of %d and requests of %d, want %d and %d",
					c.trip, c.bytes, c.took, got, e.request(), c.window, c.request)
			}
			time.Sleep(3 * rateTime)
			if e.window(blockio.ReadAhead) != minWindow {
				t.Errorf("long after: a window of %d", e.window(blockio.ReadAhead))
			}
		})
	}
	unknown := newEstimate(nil)
	if unknown.window(blockio.ReadAhead) != minWindow {
		t.Errorf("a window of %d on an unknown line", unknown.window(blockio.ReadAhead))
	}
}
