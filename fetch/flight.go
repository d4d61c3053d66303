package fetch

import (
	"io"
	"slices"

	"github.com/cloopfs/cloopfs/blockio"
)

// submitLocked queues r, and starts what may start. nil is let pass.
func (s *Scheduler) submitLocked(r *request) {
	switch {
	case r == nil:
	case s.closed:
		s.failLocked(r, errClosed)
	default:
		s.queue[r.rng.Class] = append(s.queue[r.rng.Class], r)
		s.startLocked()
	}
}

// maxFill is how many requests of class Fill are under way at a time: what demand
// may have to share the line with.
const maxFill = 4

// startLocked starts queued requests in the order of their classes, as far as
// the limit lets it.
func (s *Scheduler) startLocked() {
	for class := range blockio.Class(blockio.Classes) {
		for len(s.queue[class]) > 0 && s.mayStartLocked(s.queue[class][0]) {
			r := s.queue[class][0]
			s.queue[class] = s.queue[class][1:]
			r.started = true
			s.dueLocked(r, r.rng.Len)
			for _, b := range r.blocks {
				s.useLocked(b) // by the flight
			}
			s.active[class]++
			s.wg.Go(func() { s.fly(r) })
		}
	}
}

// mayStartLocked says whether r may start. Filling waits until no reader does, and the
// pump has nothing to bring.
func (s *Scheduler) mayStartLocked(r *request) bool {
	total := 0
	for _, n := range s.active {
		total += n
	}
	class := r.rng.Class
	switch {
	case class == blockio.Fill && (s.active[blockio.Demand] > 0 || s.more || s.active[class] >= maxFill),
		class > blockio.Demand && s.due > 0 && s.due+r.rng.Len > s.windowLocked(class):
		return false
	}
	most := s.opt.Requests()
	if class > blockio.Demand && most > 1 {
		total++ // one is left for readers
	}
	return total < most
}

// dueLocked says that n more bytes of r are on their way, or fewer.
func (s *Scheduler) dueLocked(r *request, n int64) {
	r.due += n
	if r.rng.Class > blockio.Demand {
		s.due += n
	} else {
		s.waited += n
	}
}

// fly receives r's blocks, then lets the next request start.
func (s *Scheduler) fly(r *request) {
	err := s.receive(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil && r.ahead {
		s.restLocked()
	}
	s.active[r.rng.Class]--
	s.dueLocked(r, -r.due)
	s.failLocked(r, err)
	s.startLocked()
	s.wakeLocked()
}

// receive brings r's blocks: those that another process has stored meanwhile from
// the store, the others from the source.
func (s *Scheduler) receive(r *request) error {
	left := r.blocks
	if s.opt.Store != nil && !r.rng.Refetch {
		defer s.claim(r)()
		left = slices.DeleteFunc(slices.Clone(left), (*block).finished)
	}
	for len(left) > 0 {
		n := 1
		for n < len(left) && left[n].ext.Off == left[n-1].ext.End() {
			n++
		}
		if err := s.stream(r, left[:n]); err != nil {
			return err
		}
		left = left[n:]
	}
	return nil
}

// stream reads adjacent blocks of r from the source, and hands out each as it is
// complete.
func (s *Scheduler) stream(r *request, blocks []*block) error {
	rng := r.rng
	rng.Off = blocks[0].ext.Off
	rng.Len = blocks[len(blocks)-1].ext.End() - rng.Off
	body, err := s.src.OpenRange(s.ctx, rng)
	if err != nil {
		return err
	}
	defer body.Close()
	from := s.count(body, rng)
	for _, b := range blocks {
		stored := getBuffer(b.ext.Len)
		if _, err := io.ReadFull(from, stored); err != nil {
			putBuffer(stored)
			return err
		}
		storing := false
		if s.opt.Store != nil {
			// Before anybody can find out that it is bad, and have it forgotten.
			s.opt.Store.Put(b.n, b.ext, stored)
			storing = s.opt.Store.Have(b.n, b.ext)
		}
		s.mu.Lock()
		s.storing = storing
		if b.counted && !storing {
			b.loose = true
			s.loose += b.ext.Len
			s.looseN++
		}
		b.fetched = true
		if s.opt.Store != nil && rng.Class > blockio.Demand {
			s.unread[rng.Class].add(b.n)
		}
		s.dueLocked(r, -b.ext.Len)
		s.arriveLocked(b, stored)
		s.startLocked()
		s.wakeLocked()
		s.mu.Unlock()
	}
	from.end()
	return nil
}

// arriveLocked hands b out, and keeps it for readers still to come, in place of what
// arrived longest ago. The flight's use of it becomes the list's.
func (s *Scheduler) arriveLocked(b *block, stored []byte) {
	b.stored = stored
	close(b.done)
	s.kept = append(s.kept, b)
	s.room -= bufferSize(b.ext.Len)
	for s.room < 0 || len(s.kept) > maxAhead {
		old := s.kept[0]
		s.kept = s.kept[1:]
		s.room += bufferSize(old.ext.Len)
		if old.loose {
			s.uncountLocked(old) // in vain
		}
		s.forgetLocked(old)
		s.releaseLocked(old)
	}
}
