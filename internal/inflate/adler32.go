package inflate

const (
	adlerModulus = 65521 // the largest prime below 1<<16 (RFC 1950, 8.2)
	// adlerPiece is how much is summed up before the sums are reduced: in both ways to
	// sum they have room for that.
	adlerPiece = 1 << 20
)

// Adler32 is the checksum of RFC 1950 of p.
func Adler32(p []byte) uint32 {
	a, b := uint64(1), uint64(0)
	for len(p) > 0 {
		piece := p[:min(len(p), adlerPiece)]
		p = p[len(piece):]
		sum, weighted, n := sums(piece)
		b += uint64(n)*a + weighted
		a += sum
		for _, c := range piece[n:] {
			a += uint64(c)
			b += a
		}
		a %= adlerModulus
		b %= adlerModulus
	}
	return uint32(b<<16 | a)
}

// swarGroup is how many words' bytes are summed up in lanes of 16 bits: with 22 the sum of
// sums comes to 255 * 22 * 23 / 2 = 64,515 at most.
const swarGroup = 22

// sumsSWAR returns the sum of the first n bytes of p, of which it chooses as many as it
// can take, and that of the bytes times their distances from the n-th.
func sumsSWAR(p []byte) (sum, weighted uint64, n int) {
	const lanes = 0x00ff00ff00ff00ff
	v := viewOf(p)
	for ; len(p)-n >= 8*swarGroup; n += 8 * swarGroup {
		var even, odd, evens, odds uint64 // sums of bytes, and sums of sums
		for i := n; i < n+8*swarGroup; i += 8 {
			w := v.load64(i)
			even += w & lanes
			odd += w >> 8 & lanes
			evens += even
			odds += odd
		}
		// In its word byte 2k is in lane k of even, and byte 2k+1 in that of odd.
		both := even + odd
		group := addLanes(both)
		weighted += 8*swarGroup*sum + 8*(addLanes(evens)+addLanes(odds)) -
			2*(both>>16&0xffff+2*(both>>32&0xffff)+3*(both>>48)) - addLanes(odd)
		sum += group
	}
	return sum, weighted, n
}

// addLanes adds up four lanes of 16 bits.
func addLanes(w uint64) uint64 {
	w = w&0x0000ffff0000ffff + w>>16&0x0000ffff0000ffff
	return w&0xffffffff + w>>32
}
