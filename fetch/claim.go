package fetch

import (
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

const (
	// claimPatience is how long nothing may arrive of what another process is
	// fetching, and claimTime how long it may take in all, before it is fetched
	// here, too.
	claimPatience = 2 * time.Second
	claimTime     = 10 * time.Second
	// claimless is how long others' claims count for nothing after that.
	claimless = 30 * time.Second
	// minLook and maxLook bound the pauses between two looks at what has arrived.
	minLook = 5 * time.Millisecond
	maxLook = 100 * time.Millisecond
)

// claim returns when it is up to this process to fetch those of r's blocks that
// are not here: no other is fetching them, or none gets on with it. What others
// store meanwhile is taken from the store. release must be called when the blocks
// have been stored.
func (s *Scheduler) claim(r *request) (release func()) {
	begin := time.Now()
	pause, quiet := minLook, begin
	for {
		release, ok := s.opt.Store.Claim(r.rng.Extent, s.waiting(r))
		arrived, left := s.look(r)
		if ok {
			return release
		}
		if arrived {
			pause, quiet = minLook, time.Now()
		}
		if left == 0 || !s.honours(time.Since(quiet), time.Since(begin)) {
			return func() {}
		}
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
			return func() {}
		}
		pause = min(2*pause, maxLook)
	}
}

// waiting is the class of who waits for r by now.
func (s *Scheduler) waiting(r *request) blockio.Class {
	s.mu.Lock()
	defer s.mu.Unlock()
	if r.awaited {
		return blockio.Demand
	}
	return r.rng.Class
}

// honours says whether to wait longer for another process, after so long without
// news, and in all. Who has waited in vain does not wait again soon: the other may
// have been stopped.
func (s *Scheduler) honours(quiet, all time.Duration) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(s.claimless) {
		return false
	}
	if quiet <= claimPatience && all <= claimTime {
		return true
	}
	s.claimless = time.Now().Add(claimless)
	return false
}

// look takes from the store what is there of r. It says whether that was anything,
// and how many blocks are left.
func (s *Scheduler) look(r *request) (arrived bool, left int) {
	for _, b := range r.blocks {
		if b.finished() {
			continue
		}
		if s.take(b) {
			arrived = true
		} else {
			left++
		}
	}
	return arrived, left
}

// take takes a block of a flight from the store, if it is there.
func (s *Scheduler) take(b *block) bool {
	if !s.opt.Store.Have(b.n, b.ext) {
		return false
	}
	stored := s.getStored(b.n, b.ext)
	if stored == nil {
		return false
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.uncountLocked(b) // it came from elsewhere
	s.arriveLocked(b, stored)
	return true
}
