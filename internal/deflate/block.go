package deflate

import (
	"encoding/binary"
	"slices"
)

// bitWriter appends bits, the lowest first.
type bitWriter struct {
	out  []byte
	acc  uint64
	have uint // bits in acc, less than 8 between calls
}

// add appends up to 56 bits.
func (w *bitWriter) add(v uint64, n uint) {
	w.acc |= v << w.have
	w.have += n
	w.out = slices.Grow(w.out, 8)
	binary.LittleEndian.PutUint64(w.out[len(w.out):len(w.out)+8], w.acc)
	w.out = w.out[:len(w.out)+int(w.have/8)]
	w.acc >>= w.have &^ 7
	w.have &= 7
}

// finish appends what is left and returns all.
func (w *bitWriter) finish() []byte {
	if w.have > 0 {
		w.add(0, 8-w.have)
	}
	return w.out
}

// maxStored is how much a stored block holds.
const maxStored = 1<<16 - 1

// stored writes src as it is.
func (w *bitWriter) stored(src []byte, final bool) {
	for more := true; more; {
		part := src[:min(len(src), maxStored)]
		src = src[len(part):]
		more = len(src) > 0
		w.add(blockHead(0, final && !more), 3)
		w.out = w.finish()
		w.out = binary.LittleEndian.AppendUint16(w.out, uint16(len(part)))
		w.out = binary.LittleEndian.AppendUint16(w.out, ^uint16(len(part)))
		w.out = append(w.out, part...)
	}
}

// blockHead is the first 3 bits of a block.
func blockHead(kind uint64, final bool) uint64 {
	if final {
		return kind<<1 | 1
	}
	return kind << 1
}

// blockCodes are the codes of a block, and what is needed to write them.
type blockCodes struct {
	litLen, dist, sizes code
	runs                []sizeRun
	runCounts           [19]uint32
	nLitLen, nDist      int
}

// sizeRun is a symbol of the code that sizes of codes are written in.
type sizeRun struct {
	symbol, extra, extraBits uint8
}

// sizeOrder is in which the sizes of that code are written.
var sizeOrder = [19]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// fixed is the code that needs no description.
var fixed = func() *blockCodes {
	c := new(blockCodes)
	for s := range c.litLen.size {
		switch {
		case s < 144:
			c.litLen.set(s, 0x30+s, 8)
		case s < 256:
			c.litLen.set(s, 0x190+s-144, 9)
		case s < 280:
			c.litLen.set(s, s-256, 7)
		default:
			c.litLen.set(s, 0xc0+s-280, 8)
		}
	}
	for s := range dists {
		c.dist.set(s, s, 5)
	}
	return c
}()

// writeBlock writes the tokens of p, which stand for src, in the shortest way.
func (e *Encoder) writeBlock(p *piece, src []byte, final bool) {
	p.litLen[endOfBlock]++
	c := &e.codes
	c.litLen.build(p.litLen[:], maxCodeBits)
	c.dist.build(p.dist[:], maxCodeBits)
	described, sizesUsed := c.describe()
	extra := p.extraBits()
	dynamic := described + c.cost(&p.histogram) + extra
	plain := fixed.cost(&p.histogram) + extra
	stored := 8*len(src) + 40*(len(src)/maxStored+1)

	if stored < min(dynamic, plain) {
		e.bits.stored(src, final)
		return
	}
	e.bits.out = slices.Grow(e.bits.out, min(dynamic, plain)/8+64)
	if plain <= dynamic {
		e.bits.add(blockHead(1, final), 3)
		e.bits.tokens(p.tokens, fixed)
		return
	}
	e.bits.add(blockHead(2, final), 3)
	c.write(&e.bits, sizesUsed)
	e.bits.tokens(p.tokens, c)
}

// extraBits is how many bits follow the symbols.
func (h *histogram) extraBits() (n int) {
	for s := endOfBlock + 1; s < litLens; s++ {
		n += int(h.litLen[s]) * int(lengthExtra[s])
	}
	for s, count := range h.dist {
		n += int(count) * int(distExtra(uint32(s)))
	}
	return n
}

// cost is how many bits the symbols take, and the block's first three.
func (c *blockCodes) cost(h *histogram) int {
	n := 3
	for s, count := range h.litLen {
		n += int(count) * int(c.litLen.size[s])
	}
	for s, count := range h.dist {
		n += int(count) * int(c.dist.size[s])
	}
	return n
}

// describe makes the description of the codes, and returns how many bits it takes
// and how many sizes of its own code it has.
func (c *blockCodes) describe() (bits, sizesUsed int) {
	c.nLitLen, c.nDist = litLens, dists
	for c.nLitLen > endOfBlock+1 && c.litLen.size[c.nLitLen-1] == 0 {
		c.nLitLen--
	}
	for c.nDist > 1 && c.dist.size[c.nDist-1] == 0 {
		c.nDist--
	}
	var all [litLens + dists]uint8
	n := copy(all[:], c.litLen.size[:c.nLitLen])
	n += copy(all[n:], c.dist.size[:c.nDist])
	c.runs = c.runs[:0]
	for i := 0; i < n; {
		same := 1
		for i+same < n && all[i+same] == all[i] {
			same++
		}
		c.addRun(all[i], same)
		i += same
	}
	clear(c.runCounts[:])
	for _, r := range c.runs {
		c.runCounts[r.symbol]++
		bits += int(r.extraBits)
	}
	c.sizes.build(c.runCounts[:], 7)
	for s, count := range c.runCounts {
		bits += int(count) * int(c.sizes.size[s])
	}
	sizesUsed = len(sizeOrder)
	for sizesUsed > 4 && c.sizes.size[sizeOrder[sizesUsed-1]] == 0 {
		sizesUsed--
	}
	return bits + 14 + 3*sizesUsed, sizesUsed
}

// addRun describes so many codes of one size.
func (c *blockCodes) addRun(size uint8, same int) {
	if size == 0 {
		for ; same >= 11; same -= min(same, 138) {
			c.runs = append(c.runs, sizeRun{18, uint8(min(same, 138) - 11), 7})
		}
		if same >= 3 {
			c.runs = append(c.runs, sizeRun{17, uint8(same - 3), 3})
			same = 0
		}
	} else if same > 3 {
		c.runs = append(c.runs, sizeRun{symbol: size})
		for same--; same >= 3; same -= min(same, 6) {
			c.runs = append(c.runs, sizeRun{16, uint8(min(same, 6) - 3), 2})
		}
	}
	for range same {
		c.runs = append(c.runs, sizeRun{symbol: size})
	}
}

// write writes the description.
func (c *blockCodes) write(w *bitWriter, sizesUsed int) {
	w.add(uint64(c.nLitLen-257)|uint64(c.nDist-1)<<5|uint64(sizesUsed-4)<<10, 14)
	for _, s := range sizeOrder[:sizesUsed] {
		w.add(uint64(c.sizes.size[s]), 3)
	}
	for _, r := range c.runs {
		size := uint(c.sizes.size[r.symbol])
		w.add(uint64(c.sizes.bits[r.symbol])|uint64(r.extra)<<size, size+uint(r.extraBits))
	}
}

// tokenBytes is more than the symbols of a token take.
const tokenBytes = 8

// tokens writes the symbols of a block, and its end.
func (w *bitWriter) tokens(list []token, c *blockCodes) {
	start := len(w.out)
	w.out = slices.Grow(w.out, tokenBytes*(len(list)+2))
	out := w.out[start : start+tokenBytes*(len(list)+2)]
	at, acc, have := 0, w.acc, w.have
	for _, t := range list {
		var v uint64
		var n uint
		if t&matchFlag == 0 {
			v, n = uint64(c.litLen.bits[t]), uint(c.litLen.size[t])
		} else {
			v, n = c.match(t)
		}
		acc |= v << (have & 63)
		have += n
		binary.LittleEndian.PutUint64(out[at:], acc)
		at += int(have / 8)
		acc >>= have & 56
		have &= 7
	}
	w.out, w.acc, w.have = w.out[:start+at], acc, have
	w.add(uint64(c.litLen.bits[endOfBlock]), uint(c.litLen.size[endOfBlock]))
}

// match is how a match is written: up to 48 bits, and how many.
func (c *blockCodes) match(t token) (v uint64, n uint) {
	length := uint32(t&^matchFlag) >> lengthShift
	s := lengthSymbols[length]
	v, n = uint64(c.litLen.bits[s]), uint(c.litLen.size[s])
	v |= uint64(length-uint32(lengthBase[s])) << n
	n += uint(lengthExtra[s])
	d := uint32(t) & (1<<lengthShift - 1)
	ds := distSymbol(d)
	v |= uint64(c.dist.bits[ds]) << n
	n += uint(c.dist.size[ds])
	extra := distExtra(ds)
	v |= uint64(d&(1<<extra-1)) << n
	return v, n + uint(extra)
}

// set gives symbol s the code v of size bits, the first one highest.
func (c *code) set(s, v, size int) {
	for i := range size {
		c.bits[s] |= uint16(v>>i&1) << (size - 1 - i)
	}
	c.size[s] = uint8(size)
}
