package fetch

import "context"

// ended is the context of who does not wait.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// Take delivers block n from the store, if it is there. See [blockio.Taker].
func (s *Scheduler) Take(n int64, deliver func(n int64, stored []byte) error) bool {
	l, err := s.locate(ended, n)
	if err != nil || !l.local && l.ext.Len > 0 {
		return false
	}
	if l.ext.Len == 0 {
		return deliver(n, nil) == nil
	}
	buf := getBuffer(l.ext.Len)
	defer putBuffer(buf)
	return s.opt.Store.Get(n, l.ext, buf) && deliver(n, buf) == nil
}

// Had notes that a reader wants block n, which was taken.
func (s *Scheduler) Had(n int64) {
	s.wanted(n, 1)
	if e, err := s.ext.Extent(ended, n); err == nil {
		s.readLocal(&block{n: n, ext: e})
	}
}
