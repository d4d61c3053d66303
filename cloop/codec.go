package cloop

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"runtime"
	"sync"

	"github.com/mikelolasagasti/xz"
	"github.com/pierrec/lz4/v4"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/inflate"
	"github.com/cloopfs/cloopfs/internal/lzo"
)

// codec says how a block is stored. The numbers are the format's.
type codec uint8

const (
	codecZlib   codec  = iota // a zlib stream, RFC 1950
	codecStored               // as is
	codecXZ                   // an xz container
	codecLZ4                  // an LZ4 block without a frame
	codecLZO                  // LZO1X
	codecs      = iota        // the number of codecs
)

// codecNames are what people call them.
var codecNames = [codecs]string{
	codecZlib: "zlib", codecStored: "stored", codecXZ: "xz", codecLZ4: "lz4", codecLZO: "lzo",
}

// decoders decode a stored block into dst and return its length; more than dst
// holds is an error, as is a checksum that differs, where the codec has one.
var decoders = [codecs]func(dst, stored []byte) (int, error){
	codecZlib:   inflate.Zlib,
	codecStored: copyStored,
	codecXZ:     decodeXZ,
	codecLZ4:    lz4Decode,
	codecLZO:    lzo.Decode,
}

var errTooLong = errors.New("decodes to more than a block")

func copyStored(dst, stored []byte) (int, error) {
	if len(stored) > len(dst) {
		return 0, errTooLong
	}
	return copy(dst, stored), nil
}

func lz4Decode(dst, stored []byte) (int, error) { return lz4.UncompressBlock(stored, dst) }

// xzReaders are as many as can work at a time: each holds a dictionary as large
// as the image says, up to 64 MiB (encoders name 8 MiB even for small blocks). Of what is
// fresh from the kernel no more is touched than a block is long.
var xzReaders = func() chan *xzReader {
	c := make(chan *xzReader, runtime.GOMAXPROCS(0))
	for range cap(c) {
		c <- new(xzReader)
	}
	return c
}()

// xzReader is an xz decoder that is used again and again.
type xzReader struct {
	src bytes.Reader
	xz  *xz.Reader // nil before the first use
}

func decodeXZ(dst, stored []byte) (int, error) {
	r := <-xzReaders
	defer func() { xzReaders <- r }()
	r.src.Reset(stored)
	var err error
	if r.xz == nil {
		r.xz, err = xz.NewReader(&r.src, xz.DefaultDictMax)
	} else {
		err = r.xz.Reset(&r.src)
	}
	if err != nil {
		r.xz = nil
		return 0, err
	}
	r.xz.Multistream(false)
	return readStream(r.xz, dst)
}

// readStream reads r to its end, which must lie within dst: only there has the
// checksum been compared.
func readStream(r io.Reader, dst []byte) (int, error) {
	n := 0
	for {
		k, err := r.Read(dst[n:])
		n += k
		switch {
		case err == io.EOF:
			return n, nil
		case err != nil:
			return n, err
		case n == len(dst):
			var more [1]byte
			if k, err := io.ReadFull(r, more[:]); k > 0 {
				return n, errTooLong
			} else if err != io.EOF {
				return n, err
			}
			return n, nil
		}
	}
}

// Checker returns a function that says whether a stored block, of [first,
// first+count), decodes to what it should. An error wraps ErrCorrupt. It is safe
// for concurrent use.
func (ix *Index) Checker(ctx context.Context, first, count int64) (check func(n int64, stored []byte) error, err error) {
	codecs := make([]codec, count)
	for i := range codecs {
		if _, codecs[i], err = ix.entry(ctx, first+int64(i)); err != nil {
			return nil, &blockio.BlockError{Block: first + int64(i), Err: err}
		}
	}
	k := newChecker(ix)
	return func(n int64, stored []byte) error { return k.check(n, codecs[n-first], stored) }, nil
}

// checker sees whether stored blocks decode to what they should. It is safe for
// concurrent use.
type checker struct {
	ix      *Index
	buffers sync.Pool // of *[]byte
}

func newChecker(ix *Index) *checker {
	return &checker{ix: ix, buffers: sync.Pool{New: func() any { b := make([]byte, ix.blockSize); return &b }}}
}

func (k *checker) check(n int64, c codec, stored []byte) error {
	dst := k.buffers.Get().(*[]byte)
	defer k.buffers.Put(dst)
	_, err := k.ix.decode(n, c, (*dst)[:k.ix.decodedSize(n)], stored)
	return err
}

// provenCodec is the codec of block n: c, which was looked up, unless another is proven.
// The index may have been read again between the two.
func (ix *Index) provenCodec(n int64, c codec) (codec, error) {
	if ix.proven == nil {
		return c, nil
	}
	known, ok := ix.proven(n)
	if !ok || codec(known) >= codecs {
		return 0, fmt.Errorf("%w: its codec is not proven", ErrCorrupt)
	}
	return codec(known), nil
}

// storedForm is how a block is stored.
type storedForm struct {
	codec  codec
	stored []byte
}

func (f *storedForm) is(c codec, stored []byte) bool {
	return f != nil && f.codec == c && bytes.Equal(f.stored, stored)
}

// maxZeroForm bounds the stored bytes of a block of zeros that are remembered: every
// codec that compresses needs less.
func (ix *Index) maxZeroForm() int { return ix.blockSize/128 + 128 }

// decodedSize is the number of bytes of block n.
func (ix *Index) decodedSize(n int64) int64 {
	return min(int64(ix.blockSize), ix.disk-n*int64(ix.blockSize))
}

// decode decodes stored block n into dst, which is as long as a block. Only
// the last block may decode to less; zeros stand for the rest. If empty is true, there is
// nothing but zeros in the block.
//
// Most blocks of a real disk are zeros, which an encoder stores in the same few bytes each
// time: those that are known to decode to zeros are not decoded again.
func (ix *Index) decode(n int64, c codec, dst, stored []byte) (empty bool, err error) {
	if c, err = ix.provenCodec(n, c); err != nil {
		return false, err
	}
	if len(stored) == 0 || len(dst) == ix.blockSize && ix.zeroForm.Load().is(c, stored) {
		clear(dst)
		return true, nil
	}
	k, err := decoders[c](dst, stored)
	if err != nil {
		return false, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	if k < len(dst) && n != ix.blocks-1 {
		return false, fmt.Errorf("%w: decodes to %d bytes instead of %d", ErrCorrupt, k, len(dst))
	}
	clear(dst[k:])
	if k == ix.blockSize && len(stored) <= ix.maxZeroForm() && isZero(dst) {
		ix.zeroForm.Store(&storedForm{c, bytes.Clone(stored)})
		empty = true
	}
	return empty, nil
}
