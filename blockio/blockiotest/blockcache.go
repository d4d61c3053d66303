package blockiotest

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// TestBlockCache checks caches made by open, which must be able to hold at least one
// block and fewer than 100.
func TestBlockCache(t *testing.T, open func() blockio.BlockCache) {
	t.Helper()
	// load fills a block with its number.
	load := func(b blockio.CachedBlock, n int64) {
		p := b.Bytes()
		for i := range p {
			p[i] = byte(n)
		}
		b.Publish(nil)
	}
	check := func(t *testing.T, b blockio.CachedBlock, n int64) {
		t.Helper()
		for _, c := range b.Bytes() {
			if c != byte(n) {
				t.Fatalf("block %d holds bytes of block %d", n, c)
			}
		}
	}
	t.Run("loaded once", func(t *testing.T) {
		c := open()
		if _, ok := c.Peek(1); ok {
			t.Fatal("an empty cache has block 1")
		}
		first, mine := c.Acquire(1)
		if !mine {
			t.Fatal("the first to ask is not the loader")
		}
		var wg sync.WaitGroup
		for range 8 {
			b, mine := c.Acquire(1)
			if mine {
				t.Fatal("a second loader")
			}
			wg.Go(func() {
				defer b.Release()
				if err := b.Wait(t.Context()); err != nil {
					t.Errorf("Wait: %v", err)
					return
				}
				check(t, b, 1)
			})
		}
		if _, ok := c.Peek(1); ok {
			t.Error("Peek returns a block that is being loaded")
		}
		load(first, 1)
		first.Release()
		wg.Wait()
		b, ok := c.Peek(1)
		if !ok {
			t.Fatal("Peek does not return a loaded block")
		}
		check(t, b, 1)
		b.Release()
	})
	t.Run("loader fails", func(t *testing.T) {
		c := open()
		b, _ := c.Acquire(1)
		waiter, _ := c.Acquire(1)
		bad := errors.New("no luck")
		waited := make(chan error)
		go func() { waited <- waiter.Wait(t.Context()) }()
		time.Sleep(10 * time.Millisecond) // so that it does wait
		b.Publish(bad)
		b.Release()
		for range 2 {
			if err := <-waited; !errors.Is(err, bad) {
				t.Errorf("Wait = %v, want the loader's error", err)
			}
			go func() { waited <- waiter.Wait(t.Context()) }() // and who comes later
		}
		if err := <-waited; err == nil {
			t.Error("Wait = nil after a failed load")
		}
		waiter.Release()
		again, mine := c.Acquire(1)
		if !mine {
			t.Fatal("after a failure the next to ask is not the loader")
		}
		load(again, 1)
		again.Release()
	})
	t.Run("waiter gives up", func(t *testing.T) {
		c := open()
		b, _ := c.Acquire(1)
		waiter, _ := c.Acquire(1)
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		if err := waiter.Wait(ctx); !errors.Is(err, context.Canceled) {
			t.Errorf("Wait = %v, want the context's error", err)
		}
		waiter.Release()
		load(b, 1)
		check(t, b, 1)
		b.Release()
	})
	t.Run("bounded, and held blocks stay", func(t *testing.T) {
		c := open()
		held, _ := c.Acquire(0)
		load(held, 0)
		for n := int64(1); n < 200; n++ {
			b, mine := c.Acquire(n)
			if !mine {
				t.Fatalf("block %d was there before", n)
			}
			load(b, n)
			b.Release()
		}
		kept := 0
		for n := range int64(200) {
			if b, ok := c.Peek(n); ok {
				kept++
				check(t, b, n)
				b.Release()
			}
		}
		if kept == 0 || kept >= 100 {
			t.Errorf("%d of 200 blocks kept", kept)
		}
		check(t, held, 0)
		held.Release()
	})
	t.Run("loads are bounded", func(t *testing.T) {
		c := open()
		reserved := 0
		for c.TryReserve() {
			if reserved++; reserved > 200 {
				t.Fatal("200 blocks may be filled at a time")
			}
		}
		if reserved < 2 {
			t.Fatal("two blocks can't be filled at a time")
		}
		waits := make(chan struct{})
		go func() {
			c.Reserve()
			close(waits)
		}()
		for range reserved {
			c.Unreserve()
		}
		<-waits
		c.Unreserve()
	})
	t.Run("parallel", func(t *testing.T) {
		c := open()
		var wg sync.WaitGroup
		var loads atomic.Int64
		for g := range 8 {
			wg.Go(func() {
				for i := range 500 {
					n := int64((i*7 + g) % 120)
					b, mine := c.Acquire(n)
					if mine {
						loads.Add(1)
						load(b, n)
					} else if err := b.Wait(t.Context()); err != nil {
						t.Errorf("Wait: %v", err)
					}
					check(t, b, n)
					b.Release()
				}
			})
		}
		wg.Wait()
		if loads.Load() < 120 {
			t.Errorf("%d loads of 120 blocks", loads.Load())
		}
	})
}
