package blockiotest

import (
	"bytes"
	"context"
	"errors"
	"math"
	"sync"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
)

// TestRuns checks that runs delivers the blocks that ext locates in image.
func TestRuns(t *testing.T, runs blockio.Runs, ext blockio.Extents, image []byte) {
	t.Helper()
	blocks := ext.Blocks()
	stored := func(n int64) []byte {
		e, err := ext.Extent(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		return image[e.Off:e.End()]
	}
	// collect reads a run and checks that each block came once, with its bytes.
	collect := func(class blockio.Class, first, count int64) {
		var mu sync.Mutex
		seen := make(map[int64]int)
		err := runs.ReadRun(t.Context(), class, first, count, func(n int64, p []byte) error {
			mu.Lock()
			defer mu.Unlock()
			if seen[n]++; !bytes.Equal(p, stored(n)) {
				t.Errorf("block %d: other bytes", n)
			}
			return nil
		})
		if err != nil {
			t.Errorf("ReadRun(%d+%d): %v", first, count, err)
		}
		for n := first; n < first+count; n++ {
			if seen[n] != 1 {
				t.Errorf("ReadRun(%d+%d) delivered block %d %d times", first, count, n, seen[n])
			}
		}
		if int64(len(seen)) != count {
			t.Errorf("ReadRun(%d+%d) delivered %d blocks", first, count, len(seen))
		}
	}
	t.Run("all", func(t *testing.T) { collect(blockio.Demand, 0, blocks) })
	t.Run("parts, in parallel", func(t *testing.T) {
		var wg sync.WaitGroup
		for i := range int64(16) {
			wg.Go(func() {
				first := i * blocks / 32
				collect(blockio.Class(i%int64(blockio.Classes)), first, blocks/2)
			})
		}
		wg.Wait()
	})
	t.Run("empty", func(t *testing.T) {
		collect(blockio.Demand, 0, 0)
		collect(blockio.Demand, blocks, 0)
	})
	t.Run("out of bounds", func(t *testing.T) {
		for _, c := range [][2]int64{{-1, 1}, {0, blocks + 1}, {blocks, 1}, {blocks + 1, 0}, {0, -1}, {1, math.MaxInt64}} {
			if err := runs.ReadRun(t.Context(), blockio.Demand, c[0], c[1], nil); err == nil {
				t.Errorf("ReadRun(%d+%d) of %d blocks: no error", c[0], c[1], blocks)
			}
		}
	})
	t.Run("prefetch", func(t *testing.T) {
		if err := runs.ReadRun(t.Context(), blockio.Fill, 0, blocks, nil); err != nil {
			t.Error(err)
		}
	})
	t.Run("rejected once", func(t *testing.T) {
		var calls int
		err := runs.ReadRun(t.Context(), blockio.Demand, 0, 1, func(_ int64, p []byte) error {
			if calls++; calls == 1 {
				return errors.New("does not decode")
			}
			if !bytes.Equal(p, stored(0)) {
				t.Error("the second copy has other bytes")
			}
			return nil
		})
		if err != nil || calls != 2 {
			t.Errorf("%d calls, %v; want 2 and no error", calls, err)
		}
	})
	t.Run("ended context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		err := runs.ReadRun(ctx, blockio.Demand, 0, blocks, func(n int64, p []byte) error {
			if !bytes.Equal(p, stored(n)) {
				t.Errorf("block %d: other bytes", n)
			}
			return nil
		})
		if err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("error %v, want one that wraps the context's", err)
		}
	})
	// Last: it may leave the block failing for a while.
	t.Run("rejected twice", func(t *testing.T) {
		bad := errors.New("does not decode")
		calls := 0
		err := runs.ReadRun(t.Context(), blockio.Demand, 1, 1, func(int64, []byte) error { calls++; return bad })
		var be *blockio.BlockError
		if !errors.As(err, &be) || be.Block != 1 || !errors.Is(err, bad) || calls < 2 || calls > 3 {
			t.Errorf("%d calls, error %v; want 2 or 3 and a BlockError of block 1 that wraps deliver's", calls, err)
		}
	})
}
