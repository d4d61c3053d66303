// Package window lets parsers read a distant image through windows that grow: few
// requests where they make many small reads, an end to what a hostile image can
// make them read, and an error where one would panic.
package window

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/cloopfs/cloopfs/blockio"
)

// ErrDamaged says that what was parsed contradicts itself.
var ErrDamaged = errors.New("damaged")

const (
	// sector is the unit of reads, that of ISO 9660.
	sector = 2048
	// minWindow and maxWindow bound what is read at a time. The first window
	// is small, for it delays whoever waits; each is twice the one before.
	minWindow = 16 << 10
	maxWindow = 256 << 10
	// maxWindows is how many are kept.
	maxWindows = 16
	// budget is how many bytes may be read in all, and maxRead at once.
	budget  = 64 << 20
	maxRead = 4 << 20
	// perRead is what a read costs beside its bytes: it bounds their number.
	perRead = 512
)

// Read calls parse with r, for as long as ctx lasts. It returns parse's error, that
// of r if one was the reason, or one that wraps ErrDamaged if parse panicked or
// read too much.
func Read(ctx context.Context, r blockio.ReaderAt, parse func(io.ReaderAt) error) (err error) {
	s := &reader{ctx: ctx, r: r, left: budget, next: minWindow}
	defer func() {
		p := recover()
		switch {
		case s.err != nil:
			err = s.err // a library may have kept the reason to itself
		case p != nil:
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	return parse(s)
}

// reader is one call's view of r.
type reader struct {
	ctx     context.Context
	r       blockio.ReaderAt
	left    int64    // of the budget
	next    int64    // size of the next window
	windows []window // the newest last
	err     error    // why a read failed
}

// window is a stretch of r that has been read.
type window struct {
	off  int64
	data []byte
}

func (s *reader) ReadAt(p []byte, off int64) (int, error) {
	n := int64(len(p))
	s.left -= n + perRead
	switch {
	case !(blockio.Extent{Off: off, Len: n}).Inside(s.r.Size()):
		return 0, s.fail(fmt.Errorf("%w: refers to bytes %d+%d of %d", ErrDamaged, off, n, s.r.Size()))
	case n > maxRead || s.left < 0:
		return 0, s.fail(fmt.Errorf("%w: too much to read", ErrDamaged))
	}
	for done := 0; done < len(p); {
		w, err := s.window(off+int64(done), n-int64(done))
		if err != nil {
			return done, s.fail(err)
		}
		done += copy(p[done:], w.data[off+int64(done)-w.off:])
	}
	return len(p), nil
}

// fail remembers the first reason for a failure.
func (s *reader) fail(err error) error {
	if s.err == nil {
		s.err = err
	}
	return err
}

// window returns one that holds the byte at off, and as many as it can of the n
// wanted from there.
func (s *reader) window(off, n int64) (window, error) {
	for _, w := range slices.Backward(s.windows) {
		if off >= w.off && off < w.off+int64(len(w.data)) {
			return w, nil
		}
	}
	start := off / sector * sector
	size := min(max(s.next, off+n-start), s.r.Size()-start)
	s.next = min(2*s.next, maxWindow)
	s.left -= size
	w := window{start, make([]byte, size)}
	if _, err := s.r.ReadAtContext(s.ctx, w.data, start); err != nil {
		return window{}, err
	}
	if len(s.windows) == maxWindows {
		s.windows = slices.Delete(s.windows, 0, 1)
	}
	s.windows = append(s.windows, w)
	return w, nil
}
