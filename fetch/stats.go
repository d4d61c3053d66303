package fetch

import (
	"io"

	"github.com/cloopfs/cloopfs/blockio"
)

// ClassStats is what was fetched for one class.
type ClassStats struct {
	Requests int64 // of which something has arrived; the source may have made several of one
	Bytes    int64 // that have arrived
	Used     int64 // of those, the bytes of blocks that a reader has had, be it from the store
}

// Stats is what was fetched.
type Stats struct {
	Class     [blockio.Classes]ClassStats // by the class for which it was asked
	Refetched ClassStats                  // because the bytes that came first were bad
}

// of is where blocks of a range are counted.
func (s *Stats) of(r blockio.Range) *ClassStats {
	if r.Refetch {
		return &s.Refetched
	}
	return &s.Class[r.Class]
}

// unread is the blocks that were fetched for one class and stored, and that no reader
// has had yet: a bit for each. The zero value is empty.
type unread map[int64]uint64

func (u *unread) add(n int64) {
	if *u == nil {
		*u = make(unread)
	}
	(*u)[n/64] |= 1 << (n % 64)
}

// remove says whether block n was there.
func (u unread) remove(n int64) bool {
	word, bit := u[n/64], uint64(1)<<(n%64)
	switch {
	case word&bit == 0:
		return false
	case word == bit:
		delete(u, n/64)
	default:
		u[n/64] = word &^ bit
	}
	return true
}

// readLocal notes that a reader has had b, from the store.
func (s *Scheduler) readLocal(b *block) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for class := range s.unread {
		if s.unread[class].remove(b.n) {
			s.stats.Class[class].Used += b.ext.Len
			return
		}
	}
}

// counted counts what arrives from a body.
type counted struct {
	io.Reader
	s   *Scheduler
	rng blockio.Range
	any bool
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if n > 0 {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		of := c.s.stats.of(c.rng)
		of.Bytes += int64(n)
		if !c.any {
			c.any = true
			of.Requests++
		}
	}
	return n, err
}

// Stats says what has been fetched so far.
func (s *Scheduler) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}
