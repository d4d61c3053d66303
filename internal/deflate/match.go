package deflate

import (
	"encoding/binary"
	"math/bits"
)

const (
	minMatch = 3
	maxMatch = 258
	window   = 32 << 10

	hashBits3 = 14
	hashBits4 = 16
)

// matcher finds what has been there before. Positions are counted on from one
// input to the next, so that what is left of the last one need not be removed: it
// lies before base.
type matcher struct {
	fours bool                  // matches of three bytes are not looked for
	base  int32                 // position of the input's first byte
	head3 [1 << hashBits3]int32 // the last position of three bytes, by their hash
	head4 [1 << hashBits4]int32 // the same of four bytes
	next  [window]int32         // by a position: the one before it with the same four
}

// begin makes room for the positions of another input.
func (m *matcher) begin() {
	if m.base > 1<<30 {
		*m = matcher{fours: m.fours, base: 1}
	}
}

// end leaves an input of n bytes behind.
func (m *matcher) end(n int) { m.base += int32(n) }

func load32(p []byte, i int) uint32 { return binary.LittleEndian.Uint32(p[i:]) }

const hashFactor = 0x9e3779b1 // of Fibonacci hashing: 2^32 by the golden ratio

func hash3(v uint32) uint32 { return v << 8 * hashFactor >> (32 - hashBits3) }
func hash4(v uint32) uint32 { return v * hashFactor >> (32 - hashBits4) }

// insert notes position i of src, which has four bytes there.
func (m *matcher) insert(src []byte, i int) {
	v := load32(src, i)
	pos := m.base + int32(i)
	if !m.fours {
		m.head3[hash3(v)] = pos
	}
	h := hash4(v)
	m.next[pos&(window-1)] = m.head4[h]
	m.head4[h] = pos
}

// longest notes position i of src, which has four bytes there, and returns the
// longest match that is longer than beat, after a look at up to depth places; nice is long
// enough. Without one, length is 0.
func (m *matcher) longest(src []byte, i, beat, depth, nice int) (length, dist int) {
	v := load32(src, i)
	pos := m.base + int32(i)
	h := hash4(v)
	at := m.head4[h]
	m.head4[h] = pos
	m.next[pos&(window-1)] = at
	near := int32(0)
	if !m.fours {
		h := hash3(v)
		near = m.head3[h]
		m.head3[h] = pos
	}

	most := min(maxMatch, len(src)-i)
	if beat >= most {
		return 0, 0
	}
	oldest := max(m.base, pos-window)
	if beat < minMatch && near >= oldest {
		if c := int(near - m.base); (load32(src, c)^v)<<8 == 0 {
			beat, length, dist = minMatch, minMatch, i-c
		}
	}
	beat = max(beat, minMatch)
	if beat >= most {
		return length, dist
	}
	last := load32(src, i+beat-3) // what a longer match has to end with
	for ; at >= oldest && depth > 0; depth-- {
		c := int(at - m.base)
		if load32(src, c+beat-3) == last && load32(src, c) == v {
			if n := 4 + common(src[c+4:], src[i+4:i+most]); n > beat {
				beat, length, dist = n, n, i-c
				if n >= nice || n == most {
					break
				}
				last = load32(src, i+beat-3)
			}
		}
		at = m.next[at&(window-1)]
	}
	return length, dist
}

// common is how many bytes a, which is not shorter, and b have in common.
func common(a, b []byte) int {
	n := 0
	for len(b)-n >= 8 {
		if x := binary.LittleEndian.Uint64(a[n:]) ^ binary.LittleEndian.Uint64(b[n:]); x != 0 {
			return n + bits.TrailingZeros64(x)/8
		}
		n += 8
	}
	for n < len(b) && a[n] == b[n] {
		n++
	}
	return n
}
