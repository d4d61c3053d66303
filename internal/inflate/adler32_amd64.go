//go:build !purego

package inflate

import "golang.org/x/sys/cpu"

var hasAVX2 = cpu.X86.HasAVX2

// sums is sumsSWAR, by AVX2 where there is.
func sums(p []byte) (sum, weighted uint64, n int) {
	if n = len(p) &^ 63; !hasAVX2 || n == 0 {
		return sumsSWAR(p)
	}
	sum, weighted = sumsAVX2(p[:n])
	return sum, weighted, n
}

// sumsAVX2 is for p of 64 to adlerPiece bytes, a multiple of 64.
//
//go:noescape
func sumsAVX2(p []byte) (sum, weighted uint64)
