package blockio

import (
	"context"
	"fmt"
	"io"
	"iter"
	"sync/atomic"
)

// Source is the bytes of an image, wherever they are, as streams and by
// random access.
type Source interface {
	Ranges
	ReaderAt
}

// HeadSize is how many of its first bytes a Source brings when it is opened: a cloop header
// and the first thousand entries of its index, within the ten segments that a server sends at
// once. The identities of overlays and cached files hold digests of them: it can't be changed.
const HeadSize = 8 << 10

// Section is a part of a Source as a Source of its own: a file inside a disc's
// image, say. It is safe for concurrent use.
type Section struct {
	src   Source
	parts []Extent // of src, none of length 0
	size  int64
	head  atomic.Pointer[[]byte] // nil if it has not been read, or made no sense
}

// OpenSection joins extents of src, in their order, and reads the first 8 KiB.
// The error wraps ErrBeyondEnd if an extent is not within src.
func OpenSection(ctx context.Context, src Source, extents []Extent) (*Section, error) {
	s := &Section{src: src}
	for _, e := range extents {
		switch last := len(s.parts) - 1; {
		case !e.Inside(src.Size()):
			return nil, fmt.Errorf("%w: bytes %d+%d of %d", ErrBeyondEnd, e.Off, e.Len, src.Size())
		case e.Len == 0:
			continue
		case last >= 0 && s.parts[last].End() == e.Off:
			s.parts[last].Len += e.Len
		default:
			s.parts = append(s.parts, e)
		}
		s.size += e.Len
	}
	head := make([]byte, min(s.size, HeadSize))
	if _, err := s.ReadAtContext(ctx, head, 0); err != nil {
		return nil, err
	}
	s.head.Store(&head)
	return s, nil
}

// Size is the number of bytes of the section.
func (s *Section) Size() int64 { return s.size }

// Parts is where the section lies in its source.
func (s *Section) Parts() []Extent { return s.parts }

// ReadAtContext reads bytes of the section: one read for each extent, or none
// for the first few kilobytes.
func (s *Section) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if head := s.head.Load(); head != nil && off >= 0 && off <= int64(len(*head)) && len(p) <= len(*head)-int(off) {
		return copy(p, (*head)[off:]), nil
	}
	return s.read(p, off, func(p []byte, off int64) (int, error) { return s.src.ReadAtContext(ctx, p, off) })
}

// ReadAgain reads bytes of the section past all that keeps them. If they were among the first
// few kilobytes, these are read from the source from then on.
func (s *Section) ReadAgain(ctx context.Context, p []byte, off int64) (int, error) {
	if off < HeadSize {
		s.head.Store(nil)
	}
	return s.read(p, off, func(p []byte, off int64) (int, error) { return ReadAgain(ctx, s.src, p, off) })
}

// read reads bytes of the section, those of each extent by one call of readAt.
func (s *Section) read(p []byte, off int64, readAt func(p []byte, off int64) (int, error)) (int, error) {
	p, eof := Clip(p, off, s.size)
	if len(p) == 0 {
		return 0, eof
	}
	read := 0
	for at := range Within(s.parts, Extent{Off: off, Len: int64(len(p))}) {
		n, err := readAt(p[read:read+int(at.Len)], at.Off)
		read += n
		if err != nil {
			return read, noEOF(err)
		}
	}
	return read, eof
}

// ReadNow reads bytes of the section that the source has at hand.
func (s *Section) ReadNow(p []byte, off int64) bool {
	src, ok := s.src.(Prompt)
	e := Extent{Off: off, Len: int64(len(p))}
	if !ok || !e.Inside(s.size) {
		return false
	}
	for at := range Within(s.parts, e) {
		if !src.ReadNow(p[:at.Len], at.Off) {
			return false
		}
		p = p[at.Len:]
	}
	return true
}

// Blame tells the source that bytes of the section were wrong at first.
func (s *Section) Blame(e Extent) {
	if b, ok := s.src.(Blamer); ok {
		for at := range Within(s.parts, e) {
			b.Blame(at)
		}
	}
}

// Within yields the pieces of e, a range of what parts make when they are joined,
// each by where it lies. It ends early where the parts do.
func Within(parts []Extent, e Extent) iter.Seq[Extent] {
	return func(yield func(Extent) bool) {
		for _, part := range parts {
			if e.Len <= 0 {
				return
			}
			if e.Off >= part.Len {
				e.Off -= part.Len
				continue
			}
			n := min(e.Len, part.Len-e.Off)
			if !yield(Extent{Off: part.Off + e.Off, Len: n}) {
				return
			}
			e.Off, e.Len = 0, e.Len-n
		}
	}
}

// OpenRange starts reading r.
func (s *Section) OpenRange(ctx context.Context, r Range) (io.ReadCloser, error) {
	if !r.Inside(s.size) {
		return nil, fmt.Errorf("bytes %d+%d of a section of %d", r.Off, r.Len, s.size)
	}
	st := &sectionStream{ctx: ctx, src: s.src, rng: r}
	for at := range Within(s.parts, r.Extent) {
		st.left = append(st.left, at)
	}
	// Most often there is but one: its stream is the answer.
	if len(st.left) == 1 {
		return st.open()
	}
	return st, nil
}

// sectionStream reads extents of src one after the other.
type sectionStream struct {
	ctx  context.Context // of OpenRange
	src  Ranges
	rng  Range    // says who wants the bytes
	left []Extent // that have not been opened
	body io.ReadCloser
	due  int64 // bytes that body has still to bring
}

// open opens the first of the extents that are left.
func (st *sectionStream) open() (io.ReadCloser, error) {
	rng := st.rng
	rng.Extent = st.left[0]
	body, err := st.src.OpenRange(st.ctx, rng)
	if err != nil {
		return nil, err // and it stays the first: nothing may be passed over
	}
	st.due, st.left = rng.Len, st.left[1:]
	return body, nil
}

func (st *sectionStream) Read(p []byte) (n int, err error) {
	for {
		switch {
		case st.body != nil:
		case len(st.left) == 0:
			return 0, io.EOF
		default:
			if st.body, err = st.open(); err != nil {
				return 0, err
			}
		}
		n, err := st.body.Read(p)
		st.due -= int64(n)
		switch {
		case err != io.EOF:
			return n, err
		case st.due > 0: // what follows would come too early
			return n, ErrShortSource
		}
		st.Close()
		if n > 0 {
			return n, nil
		}
	}
}

func (st *sectionStream) Close() error {
	if st.body == nil {
		return nil
	}
	body := st.body
	st.body = nil
	return body.Close()
}
