package cache_test

import (
	"runtime"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/cache"
)

func TestMemoryConforms(t *testing.T) {
	for _, size := range []int64{0, 512, 10 * 512} {
		blockiotest.TestBlockCache(t, func() blockio.BlockCache { return cache.NewMemory(size, 512) })
	}
}

// A block that was used lately outlives one that was not.
func TestMemoryDropsLeastRecentlyUsed(t *testing.T) {
	m := cache.NewMemory(3*512, 512)
	put := func(n int64) {
		b, load := m.Acquire(n)
		if load {
			b.Publish(nil)
		}
		b.Release()
	}
	for _, n := range []int64{1, 2, 3, 1, 4} {
		put(n)
	}
	for n, want := range map[int64]bool{1: true, 2: false, 3: true, 4: true} {
		b, ok := m.Peek(n)
		if ok != want {
			t.Errorf("block %d kept: %v, want %v", n, ok, want)
		}
		if ok {
			b.Release()
		}
	}
}

func TestMemoryDoesNotAllocateForWhatItHolds(t *testing.T) {
	m := cache.NewMemory(1<<20, 512)
	b, _ := m.Acquire(1)
	b.Publish(nil)
	b.Release()
	if allocs := testing.AllocsPerRun(100, func() {
		b, _ := m.Acquire(1)
		b.Release()
	}); allocs != 0 {
		t.Errorf("%v allocations for a block in memory, want 0", allocs)
	}
}

// What is held, found and loaded is counted.
func TestMemoryStats(t *testing.T) {
	m := cache.NewMemory(2*512, 512)
	for _, n := range []int64{1, 2, 2, 3} {
		b, load := m.Acquire(n)
		if load {
			b.Publish(nil)
		}
		b.Release()
	}
	if b, ok := m.Peek(3); ok {
		b.Release()
	}
	m.Peek(9)
	if got, want := m.Stats(), (cache.MemoryStats{Blocks: 2, Bytes: 1024, Hits: 2, Loads: 3}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}

// A block takes memory from when it is filled, and none after it was discarded: its loader may
// wait for the network.
func TestLoadingTakesNoMemory(t *testing.T) {
	const blocks, size = 50, 1 << 20
	m := cache.NewMemory(size, size)
	inUse := func() int64 {
		var st runtime.MemStats
		runtime.GC() // the second drops what is kept to be used again
		runtime.GC()
		runtime.ReadMemStats(&st)
		return int64(st.HeapAlloc)
	}
	before := inUse()
	held := make([]blockio.CachedBlock, blocks)
	for n := range held {
		held[n], _ = m.Acquire(int64(n))
		if n%2 == 1 {
			held[n].Bytes()[0] = 1
			held[n].Discard()
		}
	}
	if took := inUse() - before; took > blocks*size/4 {
		t.Errorf("%d blocks that are being loaded take %d KiB", blocks, took>>10)
	}
	for _, b := range held {
		b.Bytes()[0] = 1
	}
	if took := inUse() - before; took < blocks*size {
		t.Errorf("%d blocks that were filled take %d KiB", blocks, took>>10)
	}
	for _, b := range held {
		b.Publish(nil)
		b.Release()
	}
}
