package cache_test

import (
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
