//go:build !purego

package inflate

// sums is sumsSWAR, by NEON.
func sums(p []byte) (sum, weighted uint64, n int) {
	if n = len(p) &^ 31; n > 0 {
		sum, weighted = sumsNEON(p[:n])
	}
	return sum, weighted, n
}

// sumsNEON is for p of 32 to adlerPiece bytes, a multiple of 32.
//
//go:noescape
func sumsNEON(p []byte) (sum, weighted uint64)
