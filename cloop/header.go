package cloop

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"

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

	// tailSize is what is read of an image's end: a header, and what Open wants
	// to see of the index before it.
	tailSize = headerSize + entrySize*(pageEntries+1)

	// maxBlockSize is the largest block size accepted, as in QEMU.
	maxBlockSize = 64 << 20
)

// header is what the fixed part of an image says, and where it was found.
type header struct {
	raw       bool           // no header at all: the image is the disk
	footer    bool           // the header is the image's end
	codecs    bool           // version 4.0: index entries tell a block's codec
	blockSize int            // bytes of a decoded block
	blocks    int64          // number of blocks
	disk      int64          // bytes of the disk
	index     int64          // offset of the index
	data      blockio.Extent // where stored blocks may lie
	tail      []byte         // the image's last bytes, if the header is among them; nil after Open
}

// readHeader finds the header: at the image's start, or at its end, where a
// writer to a pipe puts it.
func readHeader(ctx context.Context, src blockio.ReaderAt) (header, error) {
	size := src.Size()
	start, err := blockio.ReadUpTo(ctx, src, 0, headerSize+4)
	if err != nil {
		return header{}, fmt.Errorf("read header: %w", err)
	}
	if known(start) {
		h, err := parseHeader(start, size)
		h.index = headerSize
		h.data = blockio.Extent{Off: h.index + h.indexSize(), Len: size - h.index - h.indexSize()}
		return h, err
	}
	if reason := foreign(start); reason != "" {
		return header{}, fmt.Errorf("%w: %s", ErrUnsupported, reason)
	}
	tail, err := blockio.ReadUpTo(ctx, src, max(0, size-tailSize), tailSize)
	if err != nil {
		return header{}, fmt.Errorf("read header at the end: %w", err)
	}
	end := tail[max(0, len(tail)-headerSize):]
	switch {
	case known(end):
		h, err := parseHeader(end, size)
		h.footer, h.tail = true, tail
		h.index = size - headerSize - h.indexSize()
		h.data = blockio.Extent{Len: h.index}
		return h, err
	case bytes.HasSuffix(end, []byte("\nCLOOP3\n")):
		return header{}, fmt.Errorf("%w: version 3", ErrUnsupported)
	case len(start) < headerSize:
		return header{}, fmt.Errorf("%w: %d bytes are less than a header", ErrFormat, size)
	}
	return header{}, ErrFormat
}

// known says whether buf starts with the header of a version that is read here.
func known(buf []byte) bool {
	if len(buf) < headerSize {
		return false
	}
	version := string(buf[versionOffset : versionOffset+4])
	return version == "V2.0" || version == "V4.0"
}

// parseHeader checks a header of an image of size bytes.
func parseHeader(buf []byte, size int64) (header, error) {
	h := header{
		codecs: buf[versionOffset+1] == '4',
		blocks: int64(binary.BigEndian.Uint32(buf[132:])),
	}
	blockSize := binary.BigEndian.Uint32(buf[128:])
	if blockSize == 0 || blockSize%sectorSize != 0 || blockSize > maxBlockSize {
		return header{}, fmt.Errorf("%w: block size %d is not a multiple of %d up to %d",
			ErrCorrupt, blockSize, sectorSize, maxBlockSize)
	}
	h.blockSize = int(blockSize)
	h.disk = h.blocks * int64(blockSize) // fits 63 bits: 2^32 blocks of at most 64 MiB
	if h.blocks == 0 {
		return header{}, fmt.Errorf("%w: no blocks", ErrCorrupt)
	}
	if headerSize+h.indexSize() > size {
		return header{}, fmt.Errorf("%w: an index of %d blocks does not fit the file of %d bytes (cut off?)",
			ErrCorrupt, h.blocks, size)
	}
	return h, nil
}

// indexSize is the length of the index in bytes.
func (h header) indexSize() int64 { return entrySize * (h.blocks + 1) }

// foreign names the relatives of the format that are told by their start.
func foreign(buf []byte) string {
	if len(buf) < headerSize+4 || !bytes.HasPrefix(buf, []byte("#!/bin/sh\n#")) {
		return ""
	}
	letter, digit := buf[versionOffset], buf[versionOffset+1]
	if digit >= '0' && digit <= '9' && buf[versionOffset+2] == '.' {
		// FreeBSD's mkuzip: the letter names the codec, a small one says that
		// equal blocks are stored once.
		switch letter {
		case 'L', 'l':
			return "FreeBSD uzip with xz"
		case 'Z', 'z':
			return "FreeBSD uzip with zstd"
		case 'v':
			return "FreeBSD uzip with shared blocks"
		case 'V':
			return "version " + string(buf[versionOffset+1:versionOffset+4])
		}
	}
	// cloop 0.68 and older: no version, and offsets of 32 bits.
	blocks := int64(binary.BigEndian.Uint32(buf[132:]))
	if int64(binary.BigEndian.Uint32(buf[headerSize:])) == headerSize+4*(blocks+1) {
		return "an old cloop image with 32-bit offsets (cloop 0.68 or older)"
	}
	return ""
}
