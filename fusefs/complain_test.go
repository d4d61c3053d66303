package fusefs

import (
	"testing"
	"testing/synctest"
	"time"
)

func TestLimiter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var l limiter
		if skipped, ok := l.allow(); !ok || skipped != 0 {
			t.Errorf("first: %d, %v", skipped, ok)
		}
		for range 3 {
			if _, ok := l.allow(); ok {
				t.Error("a second event within a second passed")
			}
		}
		time.Sleep(time.Second)
		if skipped, ok := l.allow(); !ok || skipped != 3 {
			t.Errorf("after a second: %d skipped, %v; want 3, true", skipped, ok)
		}
	})
}
