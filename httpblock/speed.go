package httpblock

import (
	"slices"
	"sync"
	"time"
)

// speed is what a server has been seen to do lately. The zero value is ready. It is
// safe for concurrent use.
type speed struct {
	// mu guards the fields below.
	mu      sync.Mutex
	first   float64            // seconds from a request to its response, smoothed; 0 before the first
	waits   [128]time.Duration // the same, of the latest requests
	seen    int                // how many there have been
	at      time.Time          // when the latest of them came
	bytes   float64            // of all bodies together; the past counts less and less
	seconds float64            // that they took
	cameAt  time.Time          // when the latest of these bytes came
	due     int64              // bytes that have been asked for, and have not come
	open    int64              // requests that they are of
}

const (
	// smooth is what the past counts at most, in speed.first, beside another response.
	smooth = 7. / 8
	// paceBytes is how many bytes make a piece of a body whose time is looked at, and fade
	// what the past counts at most beside another.
	paceBytes = 64 << 10
	fade      = 0.8
	// stale is how old what was measured must not be, to count beside something new.
	stale = time.Second
)

// past is what it counts that was measured up to at: most at first, and nothing when it is
// stale. So a slow spell is forgotten as soon where little is asked for as where much is.
func past(most float64, at time.Time) float64 {
	return max(0, most-float64(time.Since(at))/float64(stale))
}

// responded notes that a response began d after its request.
func (s *speed) responded(d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := past(smooth, s.at)
	s.first = p*s.first + (1-p)*d.Seconds()
	s.waits[s.seen%len(s.waits)] = d
	s.seen++
	s.at = time.Now()
}

// moved notes that n bytes of a body came within d. The other bodies that come meanwhile
// have their share of what the server does, which is about the same.
func (s *speed) moved(n int, d time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	p := past(fade, s.cameAt)
	s.bytes = p*s.bytes + float64(n)*float64(max(1, s.open))
	s.seconds = p*s.seconds + d.Seconds()
	s.cameAt = time.Now()
}

// expect notes that n more bytes are due, or fewer, of more requests or fewer.
func (s *speed) expect(n, requests int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.due += n
	s.open += requests
}

// busy is how many requests are under way.
func (s *speed) busy() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// rate is the bytes that come in a second; 0 if that is not known.
func (s *speed) rate() float64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.seconds == 0 {
		return 0
	}
	return s.bytes / s.seconds
}

// idle is for how long no bytes of a body have come that say how fast it is.
func (s *speed) idle() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Since(s.cameAt)
}

// cost is about how many seconds it takes until n bytes more are here. unknown is the
// rate of a server that has shown none, 0 for any.
func (s *speed) cost(n int64, unknown float64) float64 {
	rate := s.rate()
	if rate == 0 {
		rate = unknown
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if rate == 0 {
		return s.first
	}
	return s.first + float64(s.due+n)/rate
}

const (
	// crawl is how many bytes a second are worth waiting for, whatever others bring.
	crawl = 1600
	// crawlShare is which part of its share of the rate makes a body crawl.
	crawlShare = 1. / 32
)

// least is how many bytes of a body should come within d, after what the server has just
// done, 0 if nothing: fewer, and the rest is likely to come sooner by another request.
func (s *speed) least(d time.Duration) int {
	if s.idle() > 10*stale {
		return 0
	}
	share := s.rate() / float64(max(1, s.busy()))
	return int(min(crawl, share*crawlShare) * d.Seconds())
}

// latency is how long a response takes to begin; 0 if none is known.
func (s *speed) latency() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.Duration(s.first * float64(time.Second))
}

// measured is when a response came last.
func (s *speed) measured() time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.at
}

const (
	// hedgeSeen is how many responses have to be known before one can be late.
	hedgeSeen = 16
	// minHedge is how long to wait for any.
	minHedge = 20 * time.Millisecond
)

// late is after how long without a response another server may be asked as well: three
// times what it usually takes, and longer than all but the slowest take. ok is false
// while too few are known. ("The Tail at Scale", Dean and Barroso, 2013.)
func (s *speed) late() (d time.Duration, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := min(s.seen, len(s.waits))
	if n < hedgeSeen {
		return 0, false
	}
	waits := s.waits
	slices.Sort(waits[:n])
	return max(3*waits[n/2], waits[n*99/100], minHedge), true
}

// pace measures one body. It is not safe for concurrent use.
type pace struct {
	of    *speed
	open  bool
	due   int64 // see speed.due
	bytes int   // that have not been added
	took  time.Duration
}

// expect says that n bytes have been asked for.
func (p *pace) expect(n int64) {
	p.due, p.open = n, true
	p.of.expect(n, 1)
}

// moved notes that n bytes came within d.
func (p *pace) moved(n int, d time.Duration) {
	p.bytes += n
	p.took += d
	if p.bytes >= paceBytes {
		p.add()
	}
}

// end says that no more will come.
func (p *pace) end() {
	p.add()
	if p.open {
		p.of.expect(-p.due, -1)
	}
}

func (p *pace) add() {
	if p.bytes >= paceBytes/4 { // a small body comes along with its headers
		p.of.moved(p.bytes, p.took)
	}
	got := min(int64(p.bytes), p.due)
	p.of.expect(-got, 0)
	p.due -= got
	p.bytes, p.took = 0, 0
}
