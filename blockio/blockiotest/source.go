package blockiotest

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"sync"

	"github.com/cloopfs/cloopfs/blockio"
)

// Source is the bytes of an image in memory. It implements [blockio.Ranges]
// and [blockio.ReaderAt], and records what was asked for.
type Source struct {
	Data []byte
	// Open, if set, is called for each range. It may block until ctx ends,
	// fail, or replace the body.
	Open func(ctx context.Context, r blockio.Range, body io.Reader) (io.Reader, error)

	// mu guards the fields below.
	mu    sync.Mutex
	asked []blockio.Range
	open  int // streams
}

// Size is the number of bytes.
func (s *Source) Size() int64 { return int64(len(s.Data)) }

// OpenRange records r and returns its bytes.
func (s *Source) OpenRange(ctx context.Context, r blockio.Range) (io.ReadCloser, error) {
	s.mu.Lock()
	s.asked = append(s.asked, r)
	s.mu.Unlock()
	if !r.Inside(s.Size()) {
		return nil, fmt.Errorf("bytes %d+%d of %d", r.Off, r.Len, s.Size())
	}
	var body io.Reader = bytes.NewReader(s.Data[r.Off:r.End()])
	if s.Open != nil {
		var err error
		if body, err = s.Open(ctx, r, body); err != nil {
			return nil, err
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.open++
	return &stream{Reader: body, src: s}, nil
}

// stream is a stream of a Source.
type stream struct {
	io.Reader
	src    *Source
	closed bool
}

func (b *stream) Close() error {
	b.src.mu.Lock()
	defer b.src.mu.Unlock()
	if !b.closed {
		b.closed = true
		b.src.open--
	}
	return nil
}

// Unclosed is how many streams have not been closed.
func (s *Source) Unclosed() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open
}

// ReadAtContext reads through OpenRange.
func (s *Source) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	return blockio.ReadRange(ctx, s, p, off)
}

// Asked returns the ranges asked for since the last call.
func (s *Source) Asked() []blockio.Range {
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := s.asked
	s.asked = nil
	return asked
}

// Extents locates blocks that lie one after the other from offset 0: block n
// is Ends[n]-Ends[n-1] bytes long. It implements [blockio.Extents].
type Extents struct{ Ends []int64 }

// Blocks is the number of blocks.
func (e Extents) Blocks() int64 { return int64(len(e.Ends)) }

// Extent locates block n.
func (e Extents) Extent(_ context.Context, n int64) (blockio.Extent, error) {
	if n < 0 || n >= e.Blocks() {
		return blockio.Extent{}, fmt.Errorf("block %d of %d", n, e.Blocks())
	}
	start := int64(0)
	if n > 0 {
		start = e.Ends[n-1]
	}
	return blockio.Extent{Off: start, Len: e.Ends[n] - start}, nil
}
