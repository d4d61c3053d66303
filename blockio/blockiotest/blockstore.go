package blockiotest

import (
	"bytes"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
)

// TestBlockStore checks a store for the blocks that ext locates in image. It must be
// empty, and have room for all of them.
func TestBlockStore(t *testing.T, store blockio.BlockStore, ext blockio.Extents, image []byte) {
	t.Helper()
	var at []blockio.Extent
	for n := range ext.Blocks() {
		e, err := ext.Extent(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		at = append(at, e)
	}
	stored := func(n int) []byte { return image[at[n].Off:at[n].End()] }
	put := func(n int, p []byte) { store.Put(int64(n), at[n], p) }
	// get says whether block n is there. Other bytes than those of image are an
	// error.
	get := func(t *testing.T, n int) bool {
		t.Helper()
		p := make([]byte, at[n].Len)
		ok := store.Get(int64(n), at[n], p)
		if ok && !bytes.Equal(p, stored(n)) {
			t.Errorf("block %d: other bytes", n)
		}
		return ok
	}
	here := func(t *testing.T, n int, want bool) {
		t.Helper()
		if got := get(t, n); got != want {
			t.Errorf("Get(%d) = %v, want %v", n, got, want)
		}
		if got := store.Have(int64(n), at[n]); got != want {
			t.Errorf("Have(%d) = %v, want %v", n, got, want)
		}
	}
	// Blocks without bytes need no store.
	var blocks []int
	for _, n := range rand.New(rand.NewPCG(4, 4)).Perm(len(at)) {
		if at[n].Len > 0 {
			blocks = append(blocks, n)
		}
	}
	t.Run("empty", func(t *testing.T) {
		for _, n := range blocks {
			here(t, n, false)
		}
	})
	t.Run("put one by one", func(t *testing.T) {
		for i, n := range blocks {
			put(n, stored(n))
			here(t, n, true)
			if i+1 < len(blocks) {
				here(t, blocks[i+1], false)
			}
		}
		for _, n := range blocks {
			here(t, n, true)
		}
	})
	t.Run("forgotten", func(t *testing.T) {
		for i, n := range blocks {
			store.Forget(int64(n), at[n])
			here(t, n, false)
			here(t, blocks[(i+1)%len(blocks)], true)
			put(n, stored(n))
			here(t, n, true)
		}
	})
	t.Run("bad bytes", func(t *testing.T) {
		for i, n := range blocks {
			bad := bytes.Clone(stored(n))
			bad[len(bad)/2] ^= 1
			put(n, bad)
			p := make([]byte, len(bad))
			if store.Get(int64(n), at[n], p) && !bytes.Equal(p, bad) {
				t.Errorf("block %d: other bytes than those stored last", n)
			}
			// The neighbour is right, or not there.
			get(t, blocks[(i+1)%len(blocks)])
			store.Forget(int64(n), at[n])
			here(t, n, false)
			put(n, stored(n))
			here(t, n, true)
		}
	})
	t.Run("claims", func(t *testing.T) {
		for _, n := range blocks {
			for range 2 {
				release, ok := store.Claim(at[n], blockio.Demand)
				if !ok {
					t.Fatalf("block %d, which nobody else wants, can't be claimed", n)
				}
				release()
			}
		}
	})
	t.Run("parallel", func(t *testing.T) {
		var wg sync.WaitGroup
		for seed := range uint64(8) {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(5, seed))
				for range 500 {
					n := blocks[rnd.IntN(len(blocks))]
					switch rnd.IntN(8) {
					case 0:
						store.Forget(int64(n), at[n])
					case 1:
						store.Have(int64(n), at[n])
					case 2:
						if release, ok := store.Claim(at[n], blockio.Demand); ok {
							put(n, stored(n))
							release()
						}
					case 3:
						put(n, stored(n))
					default:
						get(t, n)
					}
				}
			})
		}
		wg.Wait()
	})
}
