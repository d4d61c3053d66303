//go:build integration

package test

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/anchore/go-lzo"

	ours "github.com/cloopfs/cloopfs/internal/lzo"
)

// BenchmarkLZO compares decoders of LZO1X, as BenchmarkInflate those of zlib: on blocks that
// liblzo2 has packed (lzo1x_999), of the first 300 MB of a disk, that are neither zeros nor
// incompressible.
func BenchmarkLZO(b *testing.B) {
	f := need(b, debian64K)
	pack := filepath.Join(b.TempDir(), "pack")
	must(b, "gcc", "-O2", "-o", pack, "testdata/lzo-pack.c", "-llzo2")
	for _, size := range []int{64 * kib, mib} {
		file := filepath.Join(b.TempDir(), fmt.Sprint(size))
		must(b, pack, f.raw, fmt.Sprint(size), file)
		set := blockSet{size: size, stored: readBlocks(b, file)}.compressible()
		b.Run(fmt.Sprintf("%dK", size/kib), func(b *testing.B) {
			dst := make([]byte, size)
			decoder := func(name string, decode func(dst, src []byte) (int, error)) contestant {
				return inGo(name, set, func(_ int, stored []byte) error {
					n, err := decode(dst, stored)
					return whole(n, size, err)
				})
			}
			takeTurns(b, set, []contestant{
				decoder("cloopfs", ours.Decode),
				decoder("anchore", func(dst, src []byte) (int, error) { return lzo.Decompress(src, dst) }),
			})
		})
	}
}

// readBlocks reads what blockSet.file and testdata/lzo-pack.c write.
func readBlocks(b *testing.B, file string) (blocks [][]byte) {
	b.Helper()
	p, err := os.ReadFile(file)
	if err != nil {
		b.Fatal(err)
	}
	for len(p) > 0 {
		n := 4 + binary.NativeEndian.Uint32(p)
		blocks, p = append(blocks, p[4:n]), p[n:]
	}
	return blocks
}
