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
	if h.blocks > maxBlocks {
		return nil, fmt.Errorf("%w: %d blocks are more than %d", ErrUnsupported, h.blocks, maxBlocks)
	}
	ix := &Index{header: h}
	return ix, ix.read(ctx, src)
}

const (
	// indexPiece is how much of the index is read at a time: the source may
	// claim to be of any size, so memory is spent on bytes that have come.
	indexPiece = 1 << 20
	// maxBlocks bounds the memory of an index: 64 MiB, enough for a disk of
	// 512 GiB in blocks of 64 KiB.
	maxBlocks = 8 << 20
)

func (ix *Index) read(ctx context.Context, src blockio.ReaderAt) error {
	buf := make([]byte, min(indexPiece, ix.indexEnd()-headerSize))
	for off := int64(headerSize); off < ix.indexEnd(); off += int64(len(buf)) {
		buf = buf[:min(int64(len(buf)), ix.indexEnd()-off)]
		if _, err := src.ReadAtContext(ctx, buf, off); err != nil && err != io.EOF {
			return fmt.Errorf("read index: %w", err)
		}
		for i := 0; i < len(buf); i += 8 {
			if err := ix.add(int64(binary.BigEndian.Uint64(buf[i:])), src.Size()); err != nil {
				return err
			}
		}
	}
	return nil
}

// add appends an offset, after a comparison with the one before it and with
// the image's size.
func (ix *Index) add(off, size int64) error {
	n := len(ix.offsets) - 1 // the block that ends here
	if n < 0 {
		if off < ix.indexEnd() || off > size {
			return fmt.Errorf("%w: block 0 starts at %d, not between the index and the file's end at %d", ErrCorrupt, off, size)
		}
		ix.offsets = append(ix.offsets, off)
		return nil
	}
	switch prev := ix.offsets[n]; {
	case off < prev:
		return fmt.Errorf("%w: block %d ends at %d, before its start at %d", ErrCorrupt, n, off, prev)
	case off > size:
		return fmt.Errorf("%w: block %d ends at %d, but the file has %d bytes (cut off?)", ErrCorrupt, n, off, size)
	case off-prev > ix.maxStored():
		return fmt.Errorf("%w: block %d has %d bytes, too many for a block of %d", ErrCorrupt, n, off-prev, ix.blockSize)
	}
	ix.offsets = append(ix.offsets, off)
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
