package blockio

import (
	"context"
	"fmt"
	"io"
)

// ReadRange fills p from r at off through one stream of src. It returns
// io.EOF if the source's end was met first.
func ReadRange(ctx context.Context, src Ranges, p []byte, off int64) (int, error) {
	return readRange(ctx, src, Range{Extent: Extent{Off: off}}, p)
}

// ReadAgain is ReadRange where what came first was wrong: it goes past all that keeps that,
// src and those below it.
func ReadAgain(ctx context.Context, src Ranges, p []byte, off int64) (int, error) {
	if kept, ok := src.(Rereader); ok {
		return kept.ReadAgain(ctx, p, off)
	}
	return readRange(ctx, src, Range{Extent: Extent{Off: off}, Refetch: true}, p)
}

// readRange is ReadRange from r.Off on, in the way that the rest of r says.
func readRange(ctx context.Context, src Ranges, r Range, p []byte) (int, error) {
	p, eof := Clip(p, r.Off, src.Size())
	if len(p) == 0 {
		return 0, eof
	}
	r.Len = int64(len(p))
	body, err := src.OpenRange(ctx, r)
	if err != nil {
		return 0, err
	}
	defer body.Close()
	n, err := io.ReadFull(body, p)
	if err != nil {
		return n, fmt.Errorf("read %d bytes at %d: %w", r.Len, r.Off, noEOF(err))
	}
	return n, eof
}

// ReadUpTo reads the n bytes at off, or those up to the end of r.
func ReadUpTo(ctx context.Context, r ReaderAt, off int64, n int) ([]byte, error) {
	buf := make([]byte, n)
	got, err := r.ReadAtContext(ctx, buf, off)
	if err == io.EOF {
		err = nil
	}
	return buf[:got], err
}

// Part returns the size bytes of r at off as a ReaderAt of their own. They must
// lie within r.
func Part(r ReaderAt, off, size int64) ReaderAt { return &part{r, off, size} }

type part struct {
	r         ReaderAt
	off, size int64
}

func (v *part) Size() int64 { return v.size }

func (v *part) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	p, eof := Clip(p, off, v.size)
	if len(p) == 0 {
		return 0, eof
	}
	n, err := v.r.ReadAtContext(ctx, p, v.off+off)
	if err != nil {
		return n, err
	}
	return n, eof
}

// AtOnce is the context of who does not wait: it has ended.
var AtOnce = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// Clip cuts p to what lies at off within size bytes. It returns io.EOF if
// something was cut off, and an error for an offset below 0.
func Clip(p []byte, off, size int64) ([]byte, error) {
	switch {
	case off < 0:
		return nil, fmt.Errorf("negative offset %d", off)
	case off >= size:
		if len(p) == 0 {
			return nil, nil
		}
		return nil, io.EOF
	case int64(len(p)) > size-off:
		return p[:size-off], io.EOF
	}
	return p, nil
}

// noEOF replaces the end of a stream that should have gone on.
func noEOF(err error) error {
	if err == io.EOF || err == io.ErrUnexpectedEOF {
		return ErrShortSource
	}
	return err
}
