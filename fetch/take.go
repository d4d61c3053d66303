package fetch

import "github.com/cloopfs/cloopfs/blockio"

// Take delivers block n from the store, if it is there. See [blockio.Taker].
func (s *Scheduler) Take(n int64, deliver func(n int64, stored []byte) error) bool {
	l, err := s.locate(blockio.AtOnce, n)
	if err != nil || !l.local && l.ext.Len > 0 {
		return false
	}
	if l.ext.Len == 0 {
		return deliver(n, nil) == nil
	}
	_, good := s.giveStored(n, l.ext, deliver)
	return good
}

// giveStored delivers block n from the store: here says whether it is there, and good
// whether its bytes are.
func (s *Scheduler) giveStored(n int64, e blockio.Extent, deliver func(n int64, stored []byte) error) (here, good bool) {
	stored := s.getStored(n, e)
	if stored == nil {
		return false, false
	}
	defer putBuffer(stored)
	return true, deliver(n, stored) == nil
}

// getStored returns block n, which has some bytes, from the store, in a buffer of
// getBuffer; nil if it is not there.
func (s *Scheduler) getStored(n int64, e blockio.Extent) []byte {
	buf := getBuffer(e.Len)
	if !s.opt.Store.Get(n, e, buf) {
		putBuffer(buf)
		return nil
	}
	return buf
}

// Had notes that a reader wants block n, which was taken.
func (s *Scheduler) Had(n int64) {
	s.wanted(n, 1)
	if e, err := s.ext.Extent(blockio.AtOnce, n); err == nil {
		s.readLocal(&block{n: n, ext: e})
	}
}
