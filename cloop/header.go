package cloop

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"github.com/cloopfs/cloopfs/blockio"
)

// What may be wrong with an image; errors of this package wrap one of them.
var (
	// ErrFormat says that this is no cloop image.
	ErrFormat = errors.New("not a cloop image")
	// ErrUnsupported says that this is a cloop image of a kind that can't be read.
	ErrUnsupported = errors.New("unsupported cloop image")
	// ErrCorrupt says that the image contradicts itself.
	ErrCorrupt = errors.New("corrupt cloop image")
)

const (
	headerSize    = 136
	versionOffset = 11
	sectorSize    = 512

	// maxBlockSize is the largest block size accepted, as in QEMU.
	maxBlockSize = 64 << 20
)

// header is the fixed part at the image's start.
type header struct {
	blockSize int   // bytes of a decoded block
	blocks    int64 // number of blocks
}

// diskSize is the number of bytes of the disk. It fits 63 bits: 2^32 blocks of
// at most 64 MiB.
func (h header) diskSize() int64 { return h.blocks * int64(h.blockSize) }

// indexEnd is the offset of the first byte behind the index.
func (h header) indexEnd() int64 { return headerSize + 8*(h.blocks+1) }

func readHeader(ctx context.Context, src blockio.ReaderAt) (header, error) {
	buf := make([]byte, headerSize)
	n, err := src.ReadAtContext(ctx, buf, 0)
	if err != nil && err != io.EOF {
		return header{}, fmt.Errorf("read header: %w", err)
	}
	return parseHeader(buf[:n], src.Size())
}

// parseHeader checks the header at the start of an image of size bytes.
func parseHeader(buf []byte, size int64) (header, error) {
	if len(buf) < headerSize {
		return header{}, fmt.Errorf("%w: %d bytes are less than a header", ErrFormat, len(buf))
	}
	switch version := buf[versionOffset : versionOffset+4]; {
	case bytes.Equal(version, []byte("V2.0")):
	case bytes.Equal(version, []byte("V4.0")):
		return header{}, fmt.Errorf("%w: version 4.0", ErrUnsupported)
	default:
		return header{}, ErrFormat
	}
	h := header{blocks: int64(binary.BigEndian.Uint32(buf[132:]))}
	blockSize := binary.BigEndian.Uint32(buf[128:])
	if blockSize == 0 || blockSize%sectorSize != 0 || blockSize > maxBlockSize {
		return header{}, fmt.Errorf("%w: block size %d is not a multiple of %d up to %d",
			ErrCorrupt, blockSize, sectorSize, maxBlockSize)
	}
	h.blockSize = int(blockSize)
	if h.blocks == 0 {
		return header{}, fmt.Errorf("%w: no blocks", ErrCorrupt)
	}
	if h.indexEnd() > size {
		return header{}, fmt.Errorf("%w: an index of %d blocks does not fit the file of %d bytes (cut off?)",
			ErrCorrupt, h.blocks, size)
	}
	return h, nil
}
