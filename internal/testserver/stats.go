package testserver

import (
	"cmp"
	"net/http"
	"slices"
)

// Stats counts what clients asked for. A request, with all that is sent in
// answer to it, counts where it was received: before or after a Reset.
type Stats struct {
	Requests int     // requests received
	Bytes    int64   // bytes of bodies sent
	Conns    int     // connections accepted
	Ranges   []Range // one for each request, in the order received
}

// Unique is how many bytes were sent, each byte of a file counted once.
func (st Stats) Unique() int64 {
	sent := make(map[string][]Range) // with Off where the body starts
	for _, r := range st.Ranges {
		if r.Status != http.StatusPartialContent {
			r.Off = 0
		}
		sent[r.Name] = append(sent[r.Name], r)
	}
	total := int64(0)
	for _, list := range sent {
		slices.SortFunc(list, func(a, b Range) int { return cmp.Compare(a.Off, b.Off) })
		end := int64(0)
		for _, r := range list {
			total += max(0, r.Off+r.Sent-max(r.Off, end))
			end = max(end, r.Off+r.Sent)
		}
	}
	return total
}

// Range is one request. It is up to date with what the client has seen: Status
// is set before the headers leave, and Sent grows before bytes leave.
type Range struct {
	Name string // of the file, whether it exists or not
	// Off and Len are the range asked for, in bytes, even where it was not
	// followed or reaches beyond the file; but bytes=a- ends where the file
	// does, and bytes=-n starts n bytes before that or at 0. Without one single
	// range to follow, Off is 0 and Len is -1.
	Off, Len int64
	Status   int   // the response's status; 0: none was sent (yet)
	Sent     int64 // bytes of the body sent so far
}

// tally collects Stats between two Resets. It is guarded by Server.mu, and so are
// the Ranges it points to.
type tally struct {
	conns  int
	ranges []*Range
}

// Stats returns what was counted since the last Reset.
func (s *Server) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	st := Stats{Requests: len(s.tally.ranges), Conns: s.tally.conns}
	for _, r := range s.tally.ranges {
		st.Bytes += r.Sent
		st.Ranges = append(st.Ranges, *r)
	}
	return st
}

// Reset starts to count from zero. It does not change the settings.
func (s *Server) Reset() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally = new(tally)
}
