package fusefs

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stats is the use that was made of a mount.
type Stats struct {
	Reads       int64 // answered with data
	Bytes       int64 // in these answers
	Waiting     int   // reads that are waiting now
	Errors      int64 // reads that failed, but for those whose reader gave up
	LastError   string
	LastErrorAt time.Time
}

// Stats says what use was made of the mount so far. It never waits for a read.
func (s *Server) Stats() Stats {
	st := s.device.count.stats()
	st.Waiting = s.device.parking.len()
	return st
}

// counter counts reads. The zero value is ready.
type counter struct {
	reads, bytes, errors atomic.Int64

	// mu guards the fields below.
	mu     sync.Mutex
	last   error
	lastAt time.Time
}

func (c *counter) read(n int) {
	c.reads.Add(1)
	c.bytes.Add(int64(n))
}

func (c *counter) failed(err error) {
	c.errors.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last, c.lastAt = err, time.Now()
}

func (c *counter) stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := Stats{Reads: c.reads.Load(), Bytes: c.bytes.Load(), Errors: c.errors.Load(), LastErrorAt: c.lastAt}
	if c.last != nil {
		st.LastError = c.last.Error()
	}
	return st
}
