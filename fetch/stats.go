package fetch

import "github.com/cloopfs/cloopfs/blockio"

// ClassStats is what was fetched for one class.
type ClassStats struct {
	Requests int64 // that were started; the source may have made several of one
	Bytes    int64 // of stored blocks that have arrived
	Used     int64 // of those, the bytes that a reader has had
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

// Stats says what has been fetched so far.
func (s *Scheduler) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}
