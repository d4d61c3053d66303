package cloop

import (
	"bytes"
	"fmt"

	"github.com/pierrec/lz4/v4"
	"github.com/ulikunitz/xz"
	"github.com/ulikunitz/xz/lzma"

	"github.com/cloopfs/cloopfs/internal/deflate"
)

// encoder stores blocks, one after the other. What it makes of a block does not
// depend on those before. It is for one goroutine.
type encoder struct {
	method Method
	zlib   *deflate.Encoder
	xz     *xz.WriterConfig
	lz4    *lz4.CompressorHC
}

func newEncoder(e Encoding) *encoder {
	enc := &encoder{method: e.Method}
	if e.Method == Zlib || e.Method == Best {
		enc.zlib = deflate.New(e.Level)
	}
	if e.Method == XZ || e.Method == Best {
		enc.xz = &xz.WriterConfig{DictCap: max(e.BlockSize, lzma.MinDictCap), CheckSum: xz.CRC32}
	}
	if e.Method == LZ4 || e.Method == Best {
		enc.lz4 = &lz4.CompressorHC{Level: lz4.Level9}
	}
	return enc
}

// encode appends to dst what is to be stored of block.
func (e *encoder) encode(dst, block []byte) ([]byte, codec, error) {
	switch e.method {
	case Stored:
		return append(dst, block...), codecStored, nil
	case XZ:
		dst, err := e.appendXZ(dst, block)
		return dst, codecXZ, err
	case LZ4:
		if dst, ok, err := e.appendLZ4(dst, block); ok || err != nil {
			return dst, codecLZ4, err
		}
		return append(dst, block...), codecStored, nil
	case Best:
		return e.best(dst, block)
	}
	return e.zlib.Append(dst, block), codecZlib, nil
}

// best appends the shortest way to store block; of equal ones, one with a
// checksum.
func (e *encoder) best(dst, block []byte) ([]byte, codec, error) {
	start := len(dst)
	dst = e.zlib.Append(dst, block)
	// Each further one goes behind the best so far, and takes its place if it is shorter.
	best, end := codecZlib, len(dst)
	replace := func(c codec) {
		if len(dst)-end < end-start {
			best, end = c, start+copy(dst[start:], dst[end:])
		}
		dst = dst[:end]
	}
	var ok bool
	var err error
	if dst, err = e.appendXZ(dst, block); err != nil {
		return nil, 0, err
	}
	replace(codecXZ)
	if dst, ok, err = e.appendLZ4(dst, block); err != nil {
		return nil, 0, err
	} else if ok {
		replace(codecLZ4)
	}
	if len(block) < end-start {
		best, dst = codecStored, append(dst[:start], block...)
	}
	return dst, best, nil
}

// appendXZ appends an xz container.
func (e *encoder) appendXZ(dst, block []byte) ([]byte, error) {
	buf := bytes.NewBuffer(dst)
	w, err := e.xz.NewWriter(buf)
	if err == nil {
		_, err = w.Write(block)
	}
	if err == nil {
		err = w.Close()
	}
	if err != nil {
		return nil, fmt.Errorf("xz: %w", err)
	}
	return buf.Bytes(), nil
}

// appendLZ4 appends an LZ4 block, if that is shorter than the block.
func (e *encoder) appendLZ4(dst, block []byte) (out []byte, ok bool, err error) {
	start := len(dst)
	dst = grow(dst, lz4.CompressBlockBound(len(block)))
	n, err := e.lz4.CompressBlock(block, dst[start:])
	if err != nil {
		return nil, false, fmt.Errorf("lz4: %w", err)
	}
	if n == 0 || n >= len(block) {
		return dst[:start], false, nil
	}
	return dst[:start+n], true, nil
}

// grow makes p longer by n bytes of any value.
func grow(p []byte, n int) []byte {
	if cap(p)-len(p) < n {
		p = append(make([]byte, 0, max(2*cap(p), len(p)+n)), p...)
	}
	return p[:len(p)+n]
}

// page of zeros that blocks are compared with.
var zeros [4096]byte

// isZero says whether p holds nothing but zeros.
func isZero(p []byte) bool {
	for ; len(p) > len(zeros); p = p[len(zeros):] {
		if !bytes.Equal(p[:len(zeros)], zeros[:]) {
			return false
		}
	}
	return bytes.Equal(p, zeros[:len(p)])
}
