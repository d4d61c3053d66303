// Package deflate makes zlib streams (RFC 1950, 1951) of whole blocks in memory.
//
// The libraries for Go look for matches of four bytes and more, and cut their
// output into blocks by the count. Both costs one to five percent in size, at any
// speed, for blocks of 64 KiB. Here matches have three bytes and more, as in zlib,
// and a block ends where the statistics change.
//
// It is built of a search for matches by hash chains (match.go), a lazy choice of
// those that are used (parse.go), blocks (split.go) and their codes (huffman.go,
// block.go).
package deflate

import (
	"encoding/binary"
	"hash/adler32"
)

// Encoder makes zlib streams, one after the other. What it makes depends on nothing
// but level and input. It holds about 1 MiB, and is for one goroutine.
type Encoder struct {
	level  int
	effort effort
	worth  worth
	matcher
	tokens tokens
	bits   bitWriter
	codes  blockCodes
}

// New returns an encoder of a level from 0, which copies, to 9, the smallest.
func New(level int) *Encoder {
	return &Encoder{level: level, effort: efforts[level], matcher: matcher{fours: level == 1, base: 1}}
}

// Append appends the zlib stream of src, of at most 1 GiB, to dst.
func (e *Encoder) Append(dst, src []byte) []byte {
	const deflate32K = 0x78
	flevel := [...]byte{0, 0, 1, 1, 1, 1, 2, 3, 3, 3}[e.level]
	head := uint16(deflate32K)<<8 | uint16(flevel)<<6
	dst = binary.BigEndian.AppendUint16(dst, head+31-head%31)
	e.bits = bitWriter{out: dst}
	if e.level == 0 {
		e.bits.stored(src, true)
	} else {
		e.begin()
		e.parse(src)
		e.end(len(src))
	}
	dst = e.bits.finish()
	return binary.BigEndian.AppendUint32(dst, adler32.Checksum(src))
}
