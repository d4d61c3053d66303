package fetch

import (
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// failTime is how long a block that failed fails at once.
const failTime = time.Second

// failLocked ends those blocks of r that have not arrived.
func (s *Scheduler) failLocked(r *request, err error) {
	for _, b := range r.blocks {
		if !b.finished() {
			b.err = err
			s.condemnLocked(b, err)
			s.uncountLocked(b)
			close(b.done)
		}
	}
}

// condemnLocked says that b is of no use, and why.
func (s *Scheduler) condemnLocked(b *block, why error) {
	b.fail, b.failUntil = why, time.Now().Add(failTime)
	s.failed = append(s.failed, b)
}

// purgeLocked forgets the blocks whose failure has lasted long enough.
func (s *Scheduler) purgeLocked() {
	for len(s.failed) > 0 && !time.Now().Before(s.failed[0].failUntil) {
		s.forgetLocked(s.failed[0])
		s.failed = s.failed[1:]
	}
}

// failing is why b is not worth waiting for now, nil if it is.
func (s *Scheduler) failing(b *block) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(b.failUntil) {
		return b.fail
	}
	return nil
}

// reject says that b's bytes are bad. It returns the block's next copy, which
// the caller has joined.
func (s *Scheduler) reject(b *block) *block {
	s.mu.Lock()
	next, r := s.replaceLocked(b, blockio.Range{Refetch: true})
	s.mu.Unlock()
	if r != nil {
		// From here on whoever misses it in the store finds the next copy.
		s.forget(b)
		s.mu.Lock()
		s.submitLocked(r)
		s.mu.Unlock()
	}
	return next
}

// retry returns the next copy of a block that did not come, which the caller has
// joined.
func (s *Scheduler) retry(b *block, class blockio.Class) *block {
	s.mu.Lock()
	defer s.mu.Unlock()
	next, r := s.replaceLocked(b, blockio.Range{Class: class})
	s.submitLocked(r)
	return next
}

// replaceLocked returns the next copy of a block that is of no use, which the caller has
// joined, and a request for it, to be submitted, if there is none yet.
func (s *Scheduler) replaceLocked(b *block, how blockio.Range) (*block, *request) {
	if next := s.blocks[b.n]; next != nil && next != b {
		s.useLocked(next)
		s.promoteLocked(next.req, how.Class)
		next.req.awaited = next.req.awaited || how.Class == blockio.Demand
		s.startLocked()
		return next, nil
	}
	how.Extent = blockio.Extent{Off: b.ext.Off}
	r := &request{rng: how}
	next := s.addLocked(r, located{n: b.n, ext: b.ext})
	s.useLocked(next)
	return next, r
}

// blame tells the source, if b's bytes were asked for again, that these are right. Who sent
// the first, if anybody has, is known there.
func (s *Scheduler) blame(b *block) {
	src, ok := s.src.(blockio.Blamer)
	if !ok || b.req == nil || !b.req.rng.Refetch {
		return
	}
	s.mu.Lock()
	sent := b.fetched
	s.mu.Unlock()
	if sent {
		src.Blame(b.ext)
	}
}

// forget says that the store's copy of b, if it has one, is bad.
func (s *Scheduler) forget(b *block) {
	if s.opt.Store != nil && b.ext.Len > 0 {
		s.opt.Store.Forget(b.n, b.ext)
	}
}

// condemn says that b's bytes are bad for the second time.
func (s *Scheduler) condemn(b *block, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.condemnLocked(b, why)
}
