package cloop

import (
	"bytes"
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

// inflate decodes the zlib stream stored into dst and returns its length.
func inflate(dst, stored []byte) (int, error) {
	f := inflaters.Get().(*inflater)
	defer inflaters.Put(f)
	f.src.Reset(stored)
	if err := f.reset(); err != nil {
		return 0, err
	}
	return readStream(f.zr, dst)
}

func (f *inflater) reset() error {
	if f.zr == nil {
		zr, err := zlib.NewReader(&f.src)
		f.zr = zr
		return err
	}
	return f.zr.(zlib.Resetter).Reset(&f.src, nil)
}
