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
	return s.giveStored(n, l.ext, deliver)
}

// giveStored delivers block n from the store, if it is there and good.
func (s *Scheduler) giveStored(n int64, e blockio.Extent, deliver func(n int64, stored []byte) error) bool {
	buf := getBuffer(e.Len)
	defer putBuffer(buf)
	return s.opt.Store.Get(n, e, buf) && deliver(n, buf) == nil
}

// Had notes that a reader wants block n, which was taken.
func (s *Scheduler) Had(n int64) {
	s.wanted(n, 1)
	if e, err := s.ext.Extent(blockio.AtOnce, n); err == nil {
		s.readLocal(&block{n: n, ext: e})
	}
}
