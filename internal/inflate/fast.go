package inflate

// What a turn of the fast loop may go beyond where it begins: two loads of 8 bytes, the
// second 7 bytes after the first; two literals, a match, and what its last copy has too
// much, or three literals.
const (
	inSlack  = 7 + 8
	outSlack = 2 + 258 + 32
)

// fast decodes symbols until the block is done, or an end of one of the buffers is near.
//
// Each turn begins with at least 56 bits, and with the entry of the next code looked up.
// At most 11 + 11 bits are taken for two literals, 20 for a length, 28 for a distance.
// Of count only the lowest byte means anything: subtracting a whole entry saves taking
// that out.
func (d *decoder) fast() (done bool, err error) {
	in, out := d.in, d.out
	inEnd, outEnd := len(d.src)-inSlack, len(d.dst)-outSlack
	if in > inEnd || out > outEnd {
		return false, nil
	}
	src, dst := viewOf(d.src), viewOf(d.dst)
	literals, distances := &d.literals, &d.distances
	bits, count := d.bits, entry(d.count)

	bits, count, in = src.refill(bits, count, in)
	e := literals[bits&(1<<literalBits-1)]
	for in <= inEnd && out <= outEnd {
		before := bits
		bits >>= e & 63
		count -= e
		if int32(e) < 0 {
			dst.store8(out, byte(e>>valueShift))
			out++
			e = literals[bits&(1<<literalBits-1)]
			before = bits
			bits >>= e & 63
			count -= e
			if int32(e) < 0 {
				dst.store8(out, byte(e>>valueShift))
				out++
				e = literals[bits&(1<<literalBits-1)]
				before = bits
				bits >>= e & 63
				count -= e
				if int32(e) < 0 {
					dst.store8(out, byte(e>>valueShift))
					out++
					bits, count, in = src.refill(bits, count, in)
					e = literals[bits&(1<<literalBits-1)]
					continue
				}
			}
		}
		if e&exception != 0 {
			if e&pointer != 0 {
				e = literals[(e>>valueShift+entry(bits)&(1<<(e>>codeShift&15)-1))&(literalsSize-1)]
				before = bits
				bits >>= e & 63
				count -= e
				if int32(e) < 0 {
					dst.store8(out, byte(e>>valueShift))
					out++
					bits, count, in = src.refill(bits, count, in)
					e = literals[bits&(1<<literalBits-1)]
					continue
				}
			}
			if e&exception != 0 {
				d.in, d.out, d.bits, d.count = in, out, bits, uint(count&63)
				if e&end != 0 {
					return true, nil
				}
				return false, ErrCorrupt
			}
		}
		length := int(e>>valueShift) + int(before&(1<<(e&63)-1)>>(e>>codeShift&15))

		if count&0xff < 28 {
			bits, count, in = src.refill(bits, count, in)
		}
		e = distances[bits&(1<<distanceBits-1)]
		if e&exception != 0 {
			if e&pointer == 0 {
				return false, ErrCorrupt
			}
			bits >>= distanceBits
			count -= distanceBits
			e = distances[(e>>valueShift+entry(bits)&(1<<(e>>codeShift&15)-1))&(distancesSize-1)]
			if e&exception != 0 {
				return false, ErrCorrupt
			}
		}
		distance := int(e>>valueShift) + int(bits&(1<<(e&63)-1)>>(e>>codeShift&15))
		bits >>= e & 63
		count -= e
		if distance > out {
			return false, ErrCorrupt
		}

		// The next code is looked up before the bytes are copied, so that the one does
		// not wait for the other.
		bits, count, in = src.refill(bits, count, in)
		e = literals[bits&(1<<literalBits-1)]

		from, to := out-distance, out
		out += length
		if distance >= 16 {
			dst.copy16(to, from)
			dst.copy16(to+16, from+16)
			for to += 32; to < out; to += 16 {
				dst.copy16(to, to-distance)
			}
			continue
		}
		if distance == 1 {
			dst.fill(to, out, dst.load8(from))
			continue
		}
		// A copy of 8 bytes adds as many right ones as lie between the two.
		for ; to-from < 8; to += to - from {
			dst.copy8(to, from)
		}
		for ; to < out; to, from = to+8, from+8 {
			dst.copy8(to, from)
		}
	}
	d.in, d.out, d.bits, d.count = in, out, bits, uint(count&63)
	return false, nil
}

// refill has at least 56 bits in bits.
func (v view) refill(bits uint64, count entry, in int) (uint64, entry, int) {
	return bits | v.load64(in)<<(count&63), count | 56, in + int(7-count>>3&7)
}
