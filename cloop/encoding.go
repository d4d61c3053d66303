package cloop

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Layout says where an image's header lies, and of which version it is.
type Layout uint8

// The layouts that can be written.
const (
	V2       Layout = iota // version 2.0, header first: zlib alone
	V4                     // version 4.0, header first
	V4Footer               // version 4.0, header last: for pipes
)

// Method says how blocks are stored.
type Method uint8

// The methods. Zlib and XZ give every block a checksum.
const (
	Zlib   Method = iota
	XZ            // an xz container for each block, with CRC32
	LZ4           // as is, where that is not longer
	Stored        // as is
	Best          // the shortest of these, block by block
)

// Methods are the names of all methods, each at its number.
func Methods() []string {
	return []string{Zlib: "zlib", XZ: "xz", LZ4: "lz4", Stored: "none", Best: "best"}
}

// DefaultBlockSize is the block size of Debian's tools and of KNOPPIX.
const DefaultBlockSize = 64 << 10

// Encoding says how an image is to be written. The same disk and encoding make
// the same image, on any number of cores.
type Encoding struct {
	Layout    Layout
	Method    Method
	Level     int // of zlib: from 0, not compressed, to 9, the smallest
	BlockSize int // bytes of a block: a multiple of 512 up to 64 MiB
}

// ErrEncoding says that an Encoding can't be.
var ErrEncoding = errors.New("no such encoding")

// Check returns an error that wraps ErrEncoding if no image can be written so.
func (e Encoding) Check() error {
	switch {
	case e.BlockSize <= 0 || e.BlockSize%sectorSize != 0 || e.BlockSize > maxBlockSize:
		return fmt.Errorf("%w: block size %d is not a multiple of %d up to %d", ErrEncoding, e.BlockSize, sectorSize, maxBlockSize)
	case e.Level < 0 || e.Level > 9:
		return fmt.Errorf("%w: level %d is not 0 to 9", ErrEncoding, e.Level)
	case e.Layout == V2 && e.Method != Zlib:
		return fmt.Errorf("%w: version 2.0 has zlib alone", ErrEncoding)
	case e.Layout > V4Footer || int(e.Method) >= len(Methods()):
		return fmt.Errorf("%w: layout %d, method %d", ErrEncoding, e.Layout, e.Method)
	}
	return nil
}

// header is the header of an image of so many blocks. The preamble is the one that
// QEMU looks for, to the letter.
func (e Encoding) header(blocks int64) []byte {
	version := "4.0"
	if e.Layout == V2 {
		version = "2.0"
	}
	header := make([]byte, headerSize)
	copy(header, "#!/bin/sh\n#V"+version+" Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\nexit $?\n")
	binary.BigEndian.PutUint32(header[128:], uint32(e.BlockSize))
	binary.BigEndian.PutUint32(header[132:], uint32(blocks))
	return header
}
