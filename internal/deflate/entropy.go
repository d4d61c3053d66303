package deflate

import "math/bits"

// Bits are counted in fixed point, so that every machine comes to the same output.
const (
	fractionBits = 12
	oneBit       = 1 << fractionBits
)

// logarithms are log2 n, rounded down, for small n.
var logarithms = func() (t [4 << 10]int64) {
	for n := 1; n < len(t); n++ {
		whole := bits.Len(uint(n)) - 1
		t[n] = int64(whole)
		// Squaring a number from 1 to 2 shows the next binary digit of its logarithm.
		const one = 1 << 31
		for x, i := uint64(n)<<31>>whole, 0; i < fractionBits; i++ {
			x = x * x >> 31
			t[n] <<= 1
			if x >= 2*one {
				t[n]++
				x >>= 1
			}
		}
	}
	return t
}()

// log2 is log2 n, n > 0, in parts of a bit; of a large n only the first digits count.
func log2(n int64) int64 {
	if n < int64(len(logarithms)) {
		return logarithms[n]
	}
	more := bits.Len64(uint64(n)) - bits.Len(uint(len(logarithms)-1))
	return logarithms[n>>more] + int64(more)<<fractionBits
}

// exp2 is about 2 to the power of so many parts of a bit: right for whole ones, and
// by a straight line between them.
func exp2(x int64) int64 {
	if x < 0 {
		return 0
	}
	whole, part := x>>fractionBits, x&(oneBit-1)
	return (oneBit + part) << whole >> fractionBits
}

// entropy is what so many symbols take at least, in parts of a bit.
func entropy(counts []uint32) int64 {
	total, sum := int64(0), int64(0)
	for _, c := range counts {
		n := int64(c)
		total += n
		sum += n * log2(max(n, 1))
	}
	return total*log2(max(total, 1)) - sum
}

// used is how many symbols there are.
func used(counts []uint32) (n int) {
	for _, c := range counts {
		if c > 0 {
			n++
		}
	}
	return n
}

// count is how often there are any.
func count(counts []uint32) (n int64) {
	for _, c := range counts {
		n += int64(c)
	}
	return n
}
