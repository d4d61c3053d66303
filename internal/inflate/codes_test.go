package inflate_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"hash/adler32"
	"math/bits"
	"math/rand/v2"
	"testing"

	"github.com/cloopfs/cloopfs/internal/inflate"
)

// bitWriter writes a zlib stream bit by bit. newStream makes one.
type bitWriter struct {
	out   []byte
	bits  uint64
	count int
	plain []byte // what the stream decodes to, for its checksum
}

func newStream() *bitWriter { return &bitWriter{out: []byte{0x78, 0x9c}} }

// put writes n bits of v, the lowest first.
func (w *bitWriter) put(v uint64, n int) {
	w.bits |= v << w.count
	for w.count += n; w.count >= 8; w.count -= 8 {
		w.out = append(w.out, byte(w.bits))
		w.bits >>= 8
	}
}

// end completes the last byte, and adds the checksum.
func (w *bitWriter) end() []byte {
	if w.count > 0 {
		w.put(0, 8-w.count)
	}
	return binary.BigEndian.AppendUint32(w.out, adler32.Checksum(w.plain))
}

// code is a canonical code: of each symbol the length in bits, 0 for none.
type code []int

// bits are the codes of the symbols, the first bit lowest.
func (c code) bits() []uint64 {
	list, next := make([]uint64, len(c)), uint64(0)
	for n := 1; n <= 15; n++ {
		next <<= 1
		for symbol, length := range c {
			if length == n {
				list[symbol] = bits.Reverse64(next) >> (64 - n)
				next++
			}
		}
	}
	return list
}

// uneven is a complete code of up to most bits for some of n symbols, always also for
// that one. (One that has but one symbol has one bit.)
func uneven(r *rand.Rand, n, symbols, always, most int) code {
	lengths := []int{1, 1}
	for len(lengths) < symbols {
		i := len(lengths) - 1 - r.IntN(min(3, len(lengths)))
		for lengths[i] == most {
			i = r.IntN(len(lengths))
		}
		lengths[i]++
		lengths = append(lengths, lengths[i])
	}
	c := make(code, n)
	chosen := r.Perm(n)[:symbols]
	for k, symbol := range chosen {
		c[symbol] = lengths[k]
	}
	if c[always] == 0 {
		c[always], c[chosen[0]] = c[chosen[0]], 0
	}
	return c
}

// codes writes the beginning of the last block, with these codes.
func (w *bitWriter) codes(literals, distances code) {
	w.put(0b101, 3)
	w.put(uint64(len(literals)-257), 5)
	w.put(uint64(len(distances)-1), 5)
	w.put(19-4, 4)
	precode := make(code, 19)
	for symbol := range 16 {
		precode[symbol] = 4
	}
	for _, symbol := range []int{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15} {
		w.put(uint64(precode[symbol]), 3)
	}
	list := precode.bits()
	for _, c := range []code{literals, distances} {
		for _, n := range c {
			w.put(list[n], 4)
		}
	}
}

func (w *bitWriter) symbol(c code, symbol int) { w.put(c.bits()[symbol], c[symbol]) }

func (w *bitWriter) literal(c code, symbol int) {
	w.symbol(c, symbol)
	w.plain = append(w.plain, byte(symbol))
}

// match writes these symbols and any extra bits.
func (w *bitWriter) match(r *rand.Rand, literals, distances code, symbol, distance int) {
	length, bits := lengthOf(symbol)
	extra := r.IntN(1 << bits)
	w.symbol(literals, symbol)
	w.put(uint64(extra), bits)
	length += extra
	from, bits := distanceOf(distance)
	extra = r.IntN(1 << bits)
	w.symbol(distances, distance)
	w.put(uint64(extra), bits)
	from += extra
	for range length {
		w.plain = append(w.plain, w.plain[len(w.plain)-from])
	}
}

// lengthOf and distanceOf are the bases and extra bits of symbols 257 and 0 on, as in the
// tables of RFC 1951, 3.2.5.
func lengthOf(symbol int) (base, extra int) {
	if symbol == 285 {
		return 258, 0
	}
	return spread(symbol-257, 4, 3)
}

func distanceOf(symbol int) (base, extra int) { return spread(symbol, 2, 1) }

func spread(i, group, first int) (base, extra int) {
	base = first
	for k := range i {
		base += 1 << (max(k/group, 1) - 1)
	}
	return base, max(i/group, 1) - 1
}

// Codes of all shapes, up to 15 bits, and what is left of them when some bits are wrong.
func TestRandomCodes(t *testing.T) {
	r := rand.New(rand.NewPCG(11, 12))
	for range 300 {
		literals := uneven(r, 257+r.IntN(30), 2+r.IntN(250), 256, 15)
		distances := uneven(r, 2+r.IntN(29), 2, 0, 15)
		if n := len(distances); r.IntN(4) > 0 {
			distances = uneven(r, n, 2+r.IntN(n-1), 0, 15)
		}
		w := newStream()
		w.codes(literals, distances)
		for range r.IntN(3000) {
			symbol, distance := r.IntN(len(literals)), r.IntN(len(distances))
			if literals[symbol] == 0 || symbol == 256 || symbol > 285 {
				continue
			}
			if symbol < 256 {
				w.literal(literals, symbol)
				continue
			}
			if base, extra := distanceOf(distance); distances[distance] > 0 && base+1<<extra <= len(w.plain) {
				w.match(r, literals, distances, symbol, distance)
			}
		}
		w.symbol(literals, 256)
		src := w.end()
		if n, err := compare(t, len(w.plain), src); err != nil || n != len(w.plain) {
			t.Fatalf("%d bytes: %d, %v", len(w.plain), n, err)
		}
		for range 3 {
			bad := bytes.Clone(src)
			bad[2+r.IntN(len(bad)-6)] ^= 1 << r.IntN(8)
			compareRight(t, bad, len(w.plain)+r.IntN(600))
		}
	}
}

// No turn of the fast loop takes more bits than it has: two literals of the longest codes
// that the table has itself, and the longest length and distance.
func TestLongestCodes(t *testing.T) {
	literals, distances := make(code, 286), make(code, 30)
	for n := 1; n <= 15; n++ {
		literals['a'+n], distances[n] = n, n
	}
	literals[256], literals[284], literals['a'+15] = 15, 15, 0
	literals[285], literals['a'+1] = 1, 0
	distances[29], distances[0], distances[1] = 15, 1, 0
	r := rand.New(rand.NewPCG(13, 14))
	w := newStream()
	w.codes(literals, distances)
	w.literal(literals, 'a'+11)
	for len(w.plain) < 33<<10 {
		w.match(r, literals, distances, 285, 0)
	}
	for i := range 1000 {
		for range i % 4 {
			w.literal(literals, 'a'+9+r.IntN(3))
		}
		w.match(r, literals, distances, 284, 29)
	}
	w.symbol(literals, 256)
	if n, err := compare(t, len(w.plain), w.end()); err != nil || n != len(w.plain) {
		t.Errorf("%d bytes: %d, %v", len(w.plain), n, err)
	}
}

// What RFC 1951 leaves open, or only implies, as zlib has it.
func TestRules(t *testing.T) {
	fixed := func(put func(w *bitWriter)) func(*bitWriter) {
		return func(w *bitWriter) {
			w.put(0b011, 3)
			w.put(bits.Reverse64(0x30+'a')>>56, 8)
			put(w)
			w.put(0, 7)
			w.plain = []byte("a")
		}
	}
	// Of literals there are "a" and the end, of one bit each.
	two := make(code, 286)
	two['a'], two[256] = 1, 1
	three := make(code, 286)
	three['a'], three[256], three[257] = 1, 2, 2
	dynamic := func(literals, distances code, symbols ...uint64) func(*bitWriter) {
		return func(w *bitWriter) {
			w.codes(literals, distances)
			for _, b := range symbols {
				w.put(b, 1)
			}
		}
	}
	for name, c := range map[string]struct {
		write func(w *bitWriter)
		right bool
	}{
		"a third kind of block":           {func(w *bitWriter) { w.put(0b111, 3) }, false},
		"an empty one":                    {func(w *bitWriter) { w.put(0b011, 3); w.put(0, 7) }, true},
		"287 literals":                    {dynamic(append(two, 0), code{0}, 1), false},
		"31 distances":                    {dynamic(two, make(code, 31), 1), false},
		"no distances":                    {dynamic(two, code{0}, 1), true},
		"a distance where there is none":  {dynamic(three, code{0}, 0, 1, 1, 0), false},
		"one distance of a bit, not used": {dynamic(two, code{1}, 1), true},
		"one of two bits":                 {dynamic(two, code{2}, 1), false},
		"two of two bits":                 {dynamic(two, code{2, 2}, 1), false},
		"three of a bit":                  {dynamic(two, code{1, 1, 1}, 1), false},
		"no literals":                     {dynamic(make(code, 257), code{0}, 1), false},
		"only an end":                     {dynamic(append(make(code, 256), 1), code{0}, 0), true},
		"the other bit of it":             {dynamic(append(make(code, 256), 1), code{0}, 1), false},
		"one distance of a bit": {func(w *bitWriter) {
			dynamic(three, code{1}, 0, 1, 1, 0, 1, 0)(w)
			w.plain = []byte("aaaa")
		}, true},
		"its other bit": {func(w *bitWriter) {
			dynamic(three, code{1}, 0, 1, 1, 1, 1, 0)(w)
			w.plain = []byte("aaaa")
		}, false},
		"literal 286":          {fixed(func(w *bitWriter) { w.put(bits.Reverse64(0xc6)>>56, 8); w.put(0, 5) }), false},
		"distance 30":          {fixed(func(w *bitWriter) { w.put(bits.Reverse64(1)>>57, 7); w.put(bits.Reverse64(30)>>59, 5) }), false},
		"beyond the beginning": {fixed(func(w *bitWriter) { w.put(bits.Reverse64(1)>>57, 7); w.put(bits.Reverse64(1)>>59, 5) }), false},
		"258 as 227 and 31": {func(w *bitWriter) {
			fixed(func(w *bitWriter) { w.put(bits.Reverse64(0xc4)>>56, 8); w.put(31, 5); w.put(0, 5) })(w)
			w.plain = bytes.Repeat([]byte("a"), 259)
		}, true},
	} {
		t.Run(name, func(t *testing.T) {
			w := newStream()
			c.write(w)
			src := append(w.end(), make([]byte, 40)...) // the fast loop needs some
			for _, src := range [][]byte{src, src[:len(src)-40]} {
				n, err := compare(t, 1000, src)
				if c.right && (err != nil || n != len(w.plain)) || !c.right && !errors.Is(err, inflate.ErrCorrupt) {
					t.Errorf("%d bytes, %v", n, err)
				}
			}
		})
	}
}
