package fetch

// bitset is a set of blocks: a bit for each. The zero value is empty.
type bitset map[int64]uint64

func (s *bitset) add(n int64) {
	if *s == nil {
		*s = make(bitset)
	}
	(*s)[n/64] |= 1 << (n % 64)
}

func (s bitset) has(n int64) bool { return s[n/64]>>(n%64)&1 == 1 }

// remove says whether block n was there.
func (s bitset) remove(n int64) bool {
	word, bit := s[n/64], uint64(1)<<(n%64)
	switch {
	case word&bit == 0:
		return false
	case word == bit:
		delete(s, n/64)
	default:
		s[n/64] = word &^ bit
	}
	return true
}
