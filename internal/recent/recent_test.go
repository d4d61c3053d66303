package recent_test

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/internal/recent"
)

func TestMax(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		m := recent.Max{Period: 10 * time.Second}
		if v, ok := m.Value(); ok || v != 0 {
			t.Errorf("without values: %v, %v", v, ok)
		}
		check := func(want float64) {
			t.Helper()
			if v, ok := m.Value(); v != want || !ok {
				t.Errorf("got %v, %v, want %v", v, ok, want)
			}
		}
		m.Add(-3)
		check(-3)
		m.Add(-1)
		m.Add(-2)
		check(-1)
		time.Sleep(11 * time.Second)
		check(-1)
		m.Add(-5)
		check(-1)
		time.Sleep(11 * time.Second)
		check(-5)
		time.Sleep(30 * time.Second)
		if v, ok := m.Value(); ok {
			t.Errorf("after a long time: %v", v)
		}
		m.Add(7)
		check(7)
	})
}
