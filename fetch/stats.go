package fetch

import (
	"io"
	"time"

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

// readLocal notes that a reader has had b, from the store.
func (s *Scheduler) readLocal(b *block) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.readLocalLocked(b)
}

func (s *Scheduler) readLocalLocked(b *block) {
	s.read += b.ext.Len
	for class := range s.unread {
		if s.unread[class].remove(b.n) {
			s.stats.Class[class].Used += b.ext.Len
			s.ahead[class] = max(0, s.ahead[class]-b.ext.Len)
			return
		}
	}
}

// counted counts what arrives from a body, and when.
type counted struct {
	io.Reader
	s    *Scheduler
	rng  blockio.Range
	sent sent
	any  bool
}

// count counts what arrives of a range, which is being asked for now.
func (s *Scheduler) count(body io.Reader, rng blockio.Range) *counted {
	s.mu.Lock()
	defer s.mu.Unlock()
	return &counted{Reader: body, s: s, rng: rng, sent: s.line.send(time.Now())}
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.Reader.Read(p)
	if n > 0 {
		c.s.mu.Lock()
		defer c.s.mu.Unlock()
		of := c.s.stats.of(c.rng)
		of.Bytes += int64(n)
		c.s.line.received(n)
		if !c.any {
			c.any = true
			of.Requests++
		}
	}
	return n, err
}

// end says that all of the range has arrived.
func (c *counted) end() {
	c.s.mu.Lock()
	defer c.s.mu.Unlock()
	c.s.line.ended(time.Now(), c.sent)
}

// Stats says what has been fetched so far.
func (s *Scheduler) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}
