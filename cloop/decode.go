package cloop

import (
	"bytes"
	"fmt"
	"io"
	"sync"

	"github.com/klauspost/compress/zlib"
)

// inflater is a zlib reader that is used again and again.
type inflater struct {
	src bytes.Reader
	zr  io.ReadCloser // nil before the first use
}

var inflaters = sync.Pool{New: func() any { return new(inflater) }}

// inflate decodes the zlib stream stored into dst and returns its length. A
// stream longer than dst, or one that fails its checksum, is an error.
func inflate(dst, stored []byte) (int, error) {
	f := inflaters.Get().(*inflater)
	defer inflaters.Put(f)
	f.src.Reset(stored)
	if err := f.reset(); err != nil {
		return 0, err
	}
	n, err := io.ReadFull(f.zr, dst)
	switch err {
	case nil:
		// The stream must end here: only then has its checksum been compared.
		var more [1]byte
		if k, err := io.ReadFull(f.zr, more[:]); k > 0 {
			return n, fmt.Errorf("decodes to more than %d bytes", len(dst))
		} else if err != io.EOF {
			return n, err
		}
		return n, nil
	case io.EOF:
		return n, nil // an empty stream, its checksum compared
	case io.ErrUnexpectedEOF:
		// Either a complete stream that is short, or a torn one.
		if _, err := f.zr.Read(dst[n:]); err != io.EOF {
			return n, err
		}
		return n, nil
	default:
		return n, err
	}
}

func (f *inflater) reset() error {
	if f.zr == nil {
		zr, err := zlib.NewReader(&f.src)
		f.zr = zr
		return err
	}
	return f.zr.(zlib.Resetter).Reset(&f.src, nil)
}

// decode decodes stored block n into dst, which is as long as a block. Only
// the last block may decode to less; zeros stand for the rest.
func (ix *Index) decode(n int64, dst, stored []byte) error {
	if len(stored) == 0 {
		clear(dst)
		return nil
	}
	k, err := inflate(dst, stored)
	if err != nil {
		return fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if k < len(dst) && n != ix.blocks-1 {
		return fmt.Errorf("%w: decodes to %d bytes instead of %d", ErrCorrupt, k, len(dst))
	}
	clear(dst[k:])
	return nil
}
