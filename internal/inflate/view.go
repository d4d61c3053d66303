package inflate

// fill stores a byte from to on, up to end and at most 7 times more.
func (v view) fill(to, end int, b byte) {
	w := uint64(b) * 0x0101010101010101
	for ; to < end; to += 8 {
		v.store64(to, w)
	}
}
