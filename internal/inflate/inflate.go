// Package inflate decodes zlib streams (RFC 1950, RFC 1951) from one buffer into another.
// Both are there whole, and how much can come out is known: that is what makes it several
// times as fast as a decoder of streams.
//
// Input is hostile: whatever it is, nothing outside the two buffers is touched, and the
// work is bounded by their lengths.
package inflate

import (
	"encoding/binary"
	"errors"
	"sync"
)

var (
	// ErrHeader says that the input does not begin as a zlib stream does, or that it
	// needs a preset dictionary.
	ErrHeader = errors.New("not a zlib stream")
	// ErrCorrupt says that the stream breaks a rule of RFC 1951.
	ErrCorrupt = errors.New("corrupt deflate data")
	// ErrTruncated says that the input ends before the stream does.
	ErrTruncated = errors.New("the zlib stream is cut off")
	// ErrTooLong says that the stream decodes to more than there is room for.
	ErrTooLong = errors.New("the zlib stream decodes to more than there is room for")
	// ErrChecksum says that the decoded bytes are not those that were encoded.
	ErrChecksum = errors.New("the zlib stream's checksum is wrong")
)

// decoders are used again and again: their tables are large.
var decoders = sync.Pool{New: func() any { return new(decoder) }}

// Zlib decodes the zlib stream at the beginning of src into dst, which must not overlap
// it, and returns how many bytes it has decoded to. What follows the stream is ignored.
// What is in dst behind those means nothing, and after an error nothing in it does. It is
// safe for concurrent use, and allocates nothing in the steady state.
func Zlib(dst, src []byte) (n int, err error) {
	if len(src) < 2 {
		return 0, ErrTruncated
	}
	// Deflate with a window of at most 32 KiB; a multiple of 31; no dictionary.
	if head := binary.BigEndian.Uint16(src); head&0x8f00 != 0x0800 || head%31 != 0 || head&0x20 != 0 {
		return 0, ErrHeader
	}
	d := decoders.Get().(*decoder)
	defer decoders.Put(d)
	n, used, err := d.inflate(dst, src[2:])
	if err != nil {
		return 0, err
	}
	sum := src[2+used:]
	if len(sum) < 4 {
		return 0, ErrTruncated
	}
	if binary.BigEndian.Uint32(sum) != Adler32(dst[:n]) {
		return 0, ErrChecksum
	}
	return n, nil
}
