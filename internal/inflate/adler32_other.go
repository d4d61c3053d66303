//go:build purego || !(amd64 || arm64)

package inflate

func sums(p []byte) (sum, weighted uint64, n int) { return sumsSWAR(p) }
