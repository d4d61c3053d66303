package fetch

import "time"

const (
	// claimPatience is how long nothing may arrive of what another process is
	// fetching before it is fetched here, too.
	claimPatience = 5 * time.Second
	// minLook and maxLook bound the pauses between two looks at what has arrived.
	minLook = 5 * time.Millisecond
	maxLook = 100 * time.Millisecond
)

// claim returns when it is up to this process to fetch those of r's blocks that
// are not here: no other is fetching them, or none gets on with it. What others
// store meanwhile is taken from the store. release must be called when the blocks
// have been stored.
func (s *Scheduler) claim(r *request) (release func()) {
	pause, quiet := minLook, time.Now()
	for {
		release, ok := s.opt.Store.Claim(r.rng.Extent)
		arrived, left := s.look(r)
		if ok {
			return release
		}
		if arrived {
			pause, quiet = minLook, time.Now()
		}
		if left == 0 || time.Since(quiet) > claimPatience {
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
	stored := getBuffer(b.ext.Len)
	if !s.opt.Store.Get(b.n, b.ext, stored) {
		putBuffer(stored)
		return false
	}
	b.stored = stored
	close(b.done)
	return true
}
