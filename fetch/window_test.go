package fetch

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestWindowFollowsTheLine(t *testing.T) {
	for _, c := range []struct {
		trip            time.Duration
		bytes           int // that arrive in the time of a request
		took            time.Duration
		window, request int64
	}{
		{0, 0, 0, minWindow, minWindow / 3},
		{50 * time.Millisecond, 2 << 20, 100 * time.Millisecond, 3 << 19, 1 << 19},
		{50 * time.Millisecond, 1 << 10, 100 * time.Millisecond, minWindow, minWindow / 3},
		{time.Second, 1 << 30, time.Second, maxWindow, maxWindow / 3},
	} {
		synctest.Test(t, func(t *testing.T) {
			e := newEstimate(func() time.Duration { return c.trip })
			r := e.send(time.Now())
			time.Sleep(c.took)
			e.received(c.bytes)
			e.ended(time.Now(), r)
			if e.window() != c.window || e.request() != c.request {
				t.Errorf("%v, %d bytes in %v: a window of %d and requests of %d, want %d and %d",
					c.trip, c.bytes, c.took, e.window(), e.request(), c.window, c.request)
			}
			time.Sleep(3 * rateTime)
			if e.window() != minWindow {
				t.Errorf("long after: a window of %d", e.window())
			}
		})
	}
	unknown := newEstimate(nil)
	if unknown.window() != minWindow {
		t.Errorf("a window of %d on an unknown line", unknown.window())
	}
}
