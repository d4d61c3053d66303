package httpblock

import (
	"testing"
	"testing/synctest"
	"time"
)

// A slow spell is forgotten within two seconds, whether much is asked for or little.
func TestSlowSpellIsForgotten(t *testing.T) {
	for _, pause := range []time.Duration{5 * time.Millisecond, 50 * time.Millisecond, 300 * time.Millisecond, 2 * time.Second} {
		synctest.Test(t, func(t *testing.T) {
			var s speed
			spell := func(d, took time.Duration) {
				for end := time.Now().Add(d); time.Now().Before(end); time.Sleep(pause) {
					s.responded(took)
					s.moved(paceBytes, took)
				}
			}
			spell(3*time.Second, 500*time.Millisecond)
			if got := s.latency(); got != 500*time.Millisecond {
				t.Errorf("every %v: answers take %v in the slow spell", pause, got)
			}
			spell(2*time.Second, 10*time.Millisecond)
			if got := s.latency(); got > 100*time.Millisecond {
				t.Errorf("every %v: answers take %v after the slow spell", pause, got)
			}
			if got := s.rate(); got < paceBytes/0.02 {
				t.Errorf("every %v: %v bytes in a second after the slow spell", pause, got)
			}
		})
	}
}

// One answer among many, and one piece of a body, say little.
func TestSpeedIsSmooth(t *testing.T) {
	var s speed
	for range 100 {
		s.responded(8 * time.Millisecond)
		s.moved(paceBytes, 10*time.Millisecond)
	}
	s.responded(80 * time.Millisecond)
	s.moved(paceBytes, 20*time.Millisecond)
	if got := s.latency(); got < 15*time.Millisecond || got > 25*time.Millisecond {
		t.Errorf("answers take %v after one of 80ms, want 17ms", got)
	}
	if got, want := s.rate(), 100.*paceBytes; got < 0.7*want || got > 0.95*want {
		t.Errorf("%.0f bytes in a second after a slow piece, before that %.0f", got, want)
	}
}

// An answer is late after three times the median, and after all but the slowest.
func TestLate(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name  string
		waits func(s *speed)
		want  time.Duration // 0: not known
	}{
		{"too few", func(s *speed) { many(s, hedgeSeen-1, 30*ms) }, 0},
		{"just enough", func(s *speed) { many(s, hedgeSeen, 30*ms) }, 90 * ms},
		{"fast ones", func(s *speed) { many(s, 100, ms) }, minHedge},
		{"three of a hundred are slow", func(s *speed) { many(s, 97, 30*ms); many(s, 3, 400*ms) }, 400 * ms},
		{"the first three were", func(s *speed) { many(s, 3, 400*ms); many(s, 97, 30*ms) }, 400 * ms},
		{"one of a hundred is slow", func(s *speed) { many(s, 100, 30*ms); many(s, 1, 400*ms) }, 90 * ms},
		{"they were slow", func(s *speed) { many(s, 1000, 400*ms); many(s, 128, 30*ms) }, 90 * ms},
	}
	for _, test := range tests {
		var s speed
		test.waits(&s)
		if got, ok := s.late(); got != test.want || ok != (test.want > 0) {
			t.Errorf("%s: late after %v, %v; want %v", test.name, got, ok, test.want)
		}
	}
}

// many notes so many answers.
func many(s *speed, n int, d time.Duration) {
	for range n {
		s.responded(d)
	}
}

// What is due makes a server dear until it has come or is given up; bodies that come at
// the same time share what the server does.
func TestPace(t *testing.T) {
	var s speed
	if s.rate() != 0 || s.cost(1000, 0) != 0 {
		t.Errorf("at first: rate %v, cost %v", s.rate(), s.cost(1000, 0))
	}
	s.responded(time.Second)
	a, b := pace{of: &s}, pace{of: &s}
	a.expect(100_000)
	b.expect(50_000)
	if got := s.cost(50_000, 100_000); got != 3 {
		t.Errorf("cost %v where another's rate is 100,000, want 3", got)
	}
	if got := s.cost(50_000, 0); got != 1 {
		t.Errorf("cost %v where nobody's rate is known, want 1", got)
	}
	a.moved(paceBytes/2, 0) // is not looked at yet
	if s.due != 150_000 || s.rate() != 0 {
		t.Errorf("%d bytes are due, rate %v", s.due, s.rate())
	}
	a.moved(paceBytes/2, time.Second)
	if got := s.rate(); got != 2*paceBytes || s.due != 150_000-paceBytes {
		t.Errorf("rate %v, %d bytes are due; want %v", got, s.due, 2*paceBytes)
	}
	a.moved(paceBytes/4-1, 100*time.Second) // too little to tell
	a.end()
	if got := s.rate(); got != 2*paceBytes || s.due != 50_000 || s.busy() != 1 {
		t.Errorf("rate %v, %d bytes of %d requests are due", got, s.due, s.busy())
	}
	b.moved(paceBytes/4, time.Second)
	b.end()
	if got := s.rate(); got > 1.5*paceBytes || s.due != 0 || s.busy() != 0 {
		t.Errorf("rate %v after a small body that was slow, %d bytes of %d requests are due", got, s.due, s.busy())
	}
	c := pace{of: &s}
	c.expect(1000)
	c.moved(2*paceBytes, 0) // more than was asked for
	if s.due != 0 {
		t.Errorf("%d bytes are due", s.due)
	}
	c.end()
}

// Time without bytes is no division by zero: a body may come at once.
func TestRateOfNoTime(t *testing.T) {
	var s speed
	s.moved(paceBytes, 0)
	if got := s.rate(); got != 0 {
		t.Errorf("rate %v", got)
	}
}
