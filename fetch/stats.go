package fetch

import "github.com/cloopfs/cloopfs/blockio"

// ClassStats is what was fetched for one class.
type ClassStats struct {
	Requests int64 // that were started; the source may have made several of one
	Bytes    int64 // of stored blocks that have arrived
	Used     int64 // of those, the bytes that a reader has had
}

// Stats is what was fetched, by the class for which it was asked.
type Stats [blockio.Classes]ClassStats

// Stats says what has been fetched so far.
func (s *Scheduler) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}
