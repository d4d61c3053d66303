package fusefs

import (
	"sync"
	"sync/atomic"
	"time"
)

// Stats is the use that was made of a mount.
type Stats struct {
	Reads       int64  // answered with data
	Bytes       int64  // in these answers
	Writes      int64  // that were done; zeroing is not counted
	Written     int64  // bytes, by these
	Flushes     int64  // that were done
	Waiting     int    // reads and writes that are waiting now
	Errors      int64  // reads that failed, but for those whose reader gave up
	WriteErrors int64  // writes, zeroings and flushes that failed, likewise
	LastError   string // of all these
	LastErrorAt time.Time
}

// Stats says what use was made of the mount so far. It never waits for a
// read or write.
func (s *Server) Stats() Stats {
	st := s.device.count.stats()
	st.Waiting = s.device.parking.len()
	return st
}

// counter counts what was done. The zero value is ready.
type counter struct {
	reads, bytes, errors                  atomic.Int64
	writes, written, flushes, writeErrors atomic.Int64

	// mu guards the fields below.
	mu     sync.Mutex
	last   error
	lastAt time.Time
}

func (c *counter) read(n int) {
	c.reads.Add(1)
	c.bytes.Add(int64(n))
}

func (c *counter) wrote(n int) {
	c.writes.Add(1)
	c.written.Add(int64(n))
}

// failed remembers err and counts it where it belongs.
func (c *counter) failed(errors *atomic.Int64, err error) {
	errors.Add(1)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.last, c.lastAt = err, time.Now()
}

func (c *counter) stats() Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	st := Stats{
		Reads: c.reads.Load(), Bytes: c.bytes.Load(), Errors: c.errors.Load(),
		Writes: c.writes.Load(), Written: c.written.Load(), Flushes: c.flushes.Load(), WriteErrors: c.writeErrors.Load(),
		LastErrorAt: c.lastAt,
	}
	if c.last != nil {
		st.LastError = c.last.Error()
	}
	return st
}
