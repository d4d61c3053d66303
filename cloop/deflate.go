package cloop

import (
	"bytes"

	"github.com/klauspost/compress/zlib"
)

// deflater makes zlib streams. It is for one goroutine.
type deflater struct {
	level int
	w     *zlib.Writer
}

func newDeflater(level int) *deflater { return &deflater{level: level} }

// append appends the zlib stream of block to dst.
func (d *deflater) append(dst, block []byte) ([]byte, error) {
	buf := bytes.NewBuffer(dst)
	if d.w == nil {
		w, err := zlib.NewWriterLevel(buf, d.level)
		if err != nil {
			return nil, err
		}
		d.w = w
	} else {
		d.w.Reset(buf)
	}
	if _, err := d.w.Write(block); err != nil {
		return nil, err
	}
	err := d.w.Close()
	return buf.Bytes(), err
}
