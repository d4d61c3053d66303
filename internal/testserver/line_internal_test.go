package testserver

import (
	"testing"
	"time"
)

func TestLineReserve(t *testing.T) {
	var l line
	t0 := time.Now()
	tests := []struct {
		name  string
		ready time.Duration // after t0, like want
		n     int
		want  time.Duration
	}{
		{name: "idle", ready: 0, n: 500, want: 500 * time.Millisecond},
		{name: "queued", ready: 0, n: 250, want: 750 * time.Millisecond},
		{name: "queued later", ready: 700 * time.Millisecond, n: 250, want: time.Second},
		{name: "idle again", ready: 3 * time.Second, n: 1000, want: 4 * time.Second},
	}
	for _, tt := range tests { // on one line, in this order
		if got := l.reserve(t0.Add(tt.ready), tt.n, 1000).Sub(t0); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

func TestWindowTake(t *testing.T) {
	const rtt = 100 * time.Millisecond
	var w window
	t0 := time.Now()
	tests := []struct {
		name string
		now  time.Duration // after t0, like at
		n    int
		want int
		at   time.Duration
	}{
		{name: "first window", now: 0, n: 10_000, want: 10_000, at: 0},
		{name: "its rest", now: 10 * time.Millisecond, n: 10_000, want: 4600, at: 10 * time.Millisecond},
		{name: "second waits", now: 20 * time.Millisecond, n: 29_000, want: 29_000, at: rtt},
		{name: "its rest", now: rtt, n: 1000, want: 200, at: rtt},
		{name: "third is four times the first", now: rtt, n: 100_000, want: 58_400, at: 2 * rtt},
		{name: "fourth is open already", now: 5 * rtt, n: 1000, want: 1000, at: 5 * rtt},
		{name: "almost idle", now: 15 * rtt, n: 1 << 20, want: 115_800, at: 15 * rtt},
		{name: "idle", now: 25*rtt + 1, n: 1 << 20, want: 14_600, at: 25*rtt + 1},
	}
	for _, tt := range tests { // on one connection, in this order
		got, at := w.take(t0.Add(tt.now), tt.n, rtt)
		if got != tt.want || at.Sub(t0) != tt.at {
			t.Errorf("%s: got %d bytes at %v, want %d at %v", tt.name, got, at.Sub(t0), tt.want, tt.at)
		}
		w.sent(at)
	}
}
