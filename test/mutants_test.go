//go:build integration

package test

import (
	"bytes"
	"math/rand/v2"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/inflate"
	"github.com/cloopfs/cloopfs/internal/zlibtest"
)

// Real blocks in which something was changed decode to the same as with the standard
// library, or are refused as there. (Fuzzing is fast with small inputs only.)
func TestMutatedBlocks(t *testing.T) {
	limit := envTime(t, "CLOOPFS_TEST_MUTANTS", 4*time.Second)
	var sets []blockSet
	for _, image := range []func() (fixture, error){debian64K, debian1M} {
		sets = append(sets, blocksOf(t, need(t, image).image).compressible())
	}
	var tried, accepted atomic.Int64
	deadline := time.Now().Add(limit)
	var wg sync.WaitGroup
	for range runtime.GOMAXPROCS(0) {
		wg.Go(func() {
			for time.Now().Before(deadline) && !t.Failed() {
				set := sets[min(1, rand.IntN(16)/15)] // one in 16 of a megabyte
				mutant := mutate(set)
				tried.Add(1)
				if compareBlock(t, set.size, mutant) {
					accepted.Add(1)
				}
				if right := zlibtest.Repair(set.size, mutant); right != nil && compareBlock(t, set.size, right) {
					accepted.Add(1)
				}
			}
		})
	}
	wg.Wait()
	t.Logf("%d mutants, %d of them streams", tried.Load(), accepted.Load())
	if accepted.Load() == 0 {
		t.Error("none of the mutants was a stream: nothing was compared but errors")
	}
}

// mutate changes a few bytes of a block: some bits, a byte more or less, or a piece of
// another block.
func mutate(set blockSet) []byte {
	p := bytes.Clone(set.stored[rand.IntN(len(set.stored))])
	for range 1 + rand.IntN(4) {
		at := rand.IntN(len(p))
		switch rand.IntN(4) {
		case 0:
			p[at] ^= 1 << rand.IntN(8)
		case 1:
			p[at] = byte(rand.Uint32())
		case 2:
			p = append(p[:at], p[min(len(p), at+1+rand.IntN(4)):]...)
			if len(p) == 0 {
				return p
			}
		case 3:
			other := set.stored[rand.IntN(len(set.stored))]
			copy(p[at:min(len(p), at+rand.IntN(64))], other[rand.IntN(len(other)):])
		}
	}
	return p
}

// compareBlock decodes a block of so many bytes both ways, and says whether it is one.
func compareBlock(t *testing.T, size int, stored []byte) bool {
	ours := make([]byte, size)
	n, err := inflate.Zlib(ours, stored)
	theirs, theirErr := zlibtest.Decode(size, stored)
	switch {
	case (err == nil) != (theirErr == nil):
		t.Errorf("%d bytes: %d, %v; the standard library says %d, %v; the stream is %x", len(stored), n, err, len(theirs), theirErr, stored)
	case err == nil && !bytes.Equal(ours[:n], theirs):
		t.Errorf("%d bytes: %d bytes differ from the standard library's %d; the stream is %x", len(stored), n, len(theirs), stored)
	}
	return err == nil
}
