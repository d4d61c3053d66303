package cloop

import (
	"context"
	"encoding/binary"
	"fmt"
	"io"

	"github.com/cloopfs/cloopfs/blockio"
)

// Index is the checked header and index of an image. It implements
// [blockio.Extents]: every extent lies behind the index and within the image.
type Index struct {
	header
	// offsets holds the start of each stored block, and the end of the last.
	offsets []int64
}

// Open reads and checks header and index. The error wraps ErrFormat,
// ErrUnsupported or ErrCorrupt if the image is at fault.
func Open(ctx context.Context, src blockio.ReaderAt) (*Index, error) {
	h, err := readHeader(ctx, src)
	if err != nil {
		return nil, err
	}
	ix := &Index{header: h}
	if err := ix.read(ctx, src); err != nil {
		return nil, fmt.Errorf("read index: %w", err)
	}
	return ix, ix.check(src.Size())
}

// indexPiece is how much of the index is read at a time: the source may claim
// to be of any size, so memory is spent on bytes that have come.
const indexPiece = 4 << 20

func (ix *Index) read(ctx context.Context, src blockio.ReaderAt) error {
	buf := make([]byte, min(indexPiece, ix.indexEnd()-headerSize))
	for off := int64(headerSize); off < ix.indexEnd(); off += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), ix.indexEnd()-off)]
		if _, err := src.ReadAtContext(ctx, buf, off); err != nil && err != io.EOF {
			return err
		}
		for i := 0; i < len(buf); i += 8 {
			ix.offsets = append(ix.offsets, int64(binary.BigEndian.Uint64(buf[i:])))
		}
	}
	return nil
}

// check compares the offsets with each other and with the image's size.
func (ix *Index) check(size int64) error {
	prev := ix.indexEnd()
	for i, off := range ix.offsets {
		switch {
		case off < prev && i == 0:
			return fmt.Errorf("%w: block 0 starts at %d, inside the header or index", ErrCorrupt, off)
		case off < prev:
			return fmt.Errorf("%w: block %d ends at %d, before its start at %d", ErrCorrupt, i-1, off, prev)
		case off > size:
			return fmt.Errorf("%w: block %d ends at %d, but the file has %d bytes (cut off?)", ErrCorrupt, max(i-1, 0), off, size)
		case i > 0 && off-prev > ix.maxStored():
			return fmt.Errorf("%w: block %d has %d bytes, too many for a block of %d", ErrCorrupt, i-1, off-prev, ix.blockSize)
		}
		prev = off
	}
	return nil
}

// maxStored bounds a stored block: deflaters other than zlib may pass zlib's
// own worst case, but not this.
func (ix *Index) maxStored() int64 { return 2*int64(ix.blockSize) + 64<<10 }

// BlockSize is the number of bytes of a decoded block, a multiple of 512 up to 64 MiB.
func (ix *Index) BlockSize() int { return ix.blockSize }

// Blocks is the number of blocks, at least 1.
func (ix *Index) Blocks() int64 { return ix.blocks }

// Extent locates stored block n. Length 0 means a block of zeros: FreeBSD's
// mkuzip writes such.
func (ix *Index) Extent(_ context.Context, n int64) (blockio.Extent, error) {
	if n < 0 || n >= ix.blocks {
		return blockio.Extent{}, fmt.Errorf("block %d of %d", n, ix.blocks)
	}
	return blockio.Extent{Off: ix.offsets[n], Len: ix.offsets[n+1] - ix.offsets[n]}, nil
}
