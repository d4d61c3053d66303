package cloop_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/fetch"
)

// oneBad is runs of which one block is bad, and found to be before any other is delivered,
// when it is told to be.
type oneBad struct {
	blockio.Runs
	bad int64
	now chan struct{}
}

func (o *oneBad) ReadRun(ctx context.Context, class blockio.Class, first, count int64,
	deliver func(int64, []byte) error,
) error {
	if first <= o.bad && o.bad < first+count {
		<-o.now
		return &blockio.BlockError{Block: o.bad, Err: cloop.ErrCorrupt}
	}
	return o.Runs.ReadRun(ctx, class, first, count, deliver)
}

// Who waits for a block that another reader loads together with a bad one gets his block, and
// who waits for the bad one the error.
func TestBadNeighbour(t *testing.T) {
	const bs = 4096
	disk := mixed(2 * bs)
	for bad := range int64(2) {
		t.Run(fmt.Sprintf("block %d", bad), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ix, runs := openRuns(t, disk, bs)
				defer runs.Close()
				held := &oneBad{Runs: runs, bad: bad, now: make(chan struct{})}
				im := cloop.NewImage(ix, held, cache.NewMemory(16*bs, bs))
				var wg sync.WaitGroup
				read := func(off, n int64, want error) {
					wg.Go(func() {
						p := make([]byte, n)
						_, err := im.ReadAtContext(t.Context(), p, off)
						var be *blockio.BlockError
						switch {
						case want == nil && (err != nil || !bytes.Equal(p, disk[off:off+n])):
							t.Errorf("%d bytes at %d: %v, or other bytes", n, off, err)
						case want != nil && (!errors.Is(err, want) || !errors.As(err, &be) || be.Block != bad):
							t.Errorf("%d bytes at %d: %v, want a BlockError of block %d with %v", n, off, err, bad, want)
						}
					})
					synctest.Wait()
				}
				read(bs/2, bs, cloop.ErrCorrupt) // which loads both
				read(bad*bs+10, 10, cloop.ErrCorrupt)
				for range 3 {
					read((1-bad)*bs+10, 10, nil)
				}
				close(held.now)
				wg.Wait()
			})
		})
	}
}

// What fails for all fails for those who wait for another reader's block, too, and for all of
// them at once: they do not ask one after the other, nor for what has just failed.
func TestNeighbourInAnOutage(t *testing.T) {
	const (
		bs      = 4096
		timeout = 30 * time.Second
	)
	for _, c := range []struct {
		name     string
		opt      fetch.Options
		requests int
		took     time.Duration
	}{
		{"both in a request", fetch.Options{}, 1, timeout},
		{"each in one", fetch.Options{MaxRequest: bs + 500}, 2, timeout},
		{"each in one, of one at a time", fetch.Options{MaxRequest: bs + 500, Requests: func() int { return 1 }}, 2, 2 * timeout},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src := &blockiotest.Source{Data: clooptest.Build(mixed(2*bs), bs)}
				ix, err := cloop.Open(t.Context(), src)
				if err != nil {
					t.Fatal(err)
				}
				src.Asked()
				down := errors.New("down")
				src.Open = func(context.Context, blockio.Range, io.Reader) (io.Reader, error) {
					time.Sleep(timeout)
					return nil, down
				}
				runs := fetch.New(src, ix, c.opt)
				defer runs.Close()
				im := cloop.NewImage(ix, runs, cache.NewMemory(16*bs, bs))
				begin := time.Now()
				var wg sync.WaitGroup
				read := func(off, n, block int64, took time.Duration) {
					wg.Go(func() {
						_, err := im.ReadAtContext(t.Context(), make([]byte, n), off)
						var be *blockio.BlockError
						if !errors.Is(err, down) || !errors.As(err, &be) || be.Block != block || time.Since(begin) != took {
							t.Errorf("%d bytes at %d: %v after %v, want a BlockError of block %d with %v after %v", n, off, err, time.Since(begin), block, down, took)
						}
					})
					synctest.Wait()
					time.Sleep(time.Second)
				}
				read(bs/2, bs, 0, timeout) // which loads both
				for range 5 {
					read(bs+10, 10, 1, c.took)
				}
				wg.Wait()
				if n := len(src.Asked()); n != c.requests {
					t.Errorf("%d requests, want %d", n, c.requests)
				}
			})
		})
	}
}

// openRuns returns the index of an image of disk, and what brings its blocks.
func openRuns(t *testing.T, disk []byte, blockSize int) (*cloop.Index, *fetch.Scheduler) {
	t.Helper()
	src := &blockiotest.Source{Data: clooptest.Build(disk, blockSize)}
	ix, err := cloop.Open(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	return ix, fetch.New(src, ix, fetch.Options{})
}

// stuck is runs whose first blocks don't come before the reader's time is over; those with odd
// numbers come once, and bad.
type stuck struct {
	blockio.Runs
	below int64
}

func (s *stuck) ReadRun(ctx context.Context, class blockio.Class, first, count int64,
	deliver func(int64, []byte) error,
) error {
	if first >= s.below {
		return s.Runs.ReadRun(ctx, class, first, count, deliver)
	}
	if first%2 == 1 && deliver(first, []byte("bad")) == nil {
		return errors.New("bad bytes were taken for good ones")
	}
	<-ctx.Done()
	return &blockio.BlockError{Block: first, Err: ctx.Err()}
}

// However many wait for blocks that don't come, or for better bytes: those that are at hand
// are read. There is room for two in memory.
func TestRoomForWhatIsAtHand(t *testing.T) {
	const bs, waiting = 4096, 16
	disk := mixed(2 * waiting * bs)
	synctest.Test(t, func(t *testing.T) {
		ix, runs := openRuns(t, disk, bs)
		defer runs.Close()
		im := cloop.NewImage(ix, &stuck{runs, waiting}, cache.NewMemory(bs, bs))
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		for n := range int64(waiting) {
			go func() {
				if _, err := im.ReadAtContext(ctx, make([]byte, 10), n*bs+10); !errors.Is(err, context.Canceled) {
					t.Errorf("block %d: %v, want that it waits", n, err)
				}
			}()
		}
		synctest.Wait()
		const off = waiting*bs + 10 // parts of three blocks
		p := make([]byte, 2*bs)
		if _, err := im.ReadAtContext(ctx, p, off); err != nil || !bytes.Equal(p, disk[off:off+2*bs]) {
			t.Errorf("blocks at hand: %v, or other bytes", err)
		}
	})
}

// What another reader has loaded meanwhile is not held while a read waits for the network.
func TestNothingIsHeldMeanwhile(t *testing.T) {
	const bs = 4096
	disk := mixed(4 * bs)
	synctest.Test(t, func(t *testing.T) {
		ix, runs := openRuns(t, disk, bs)
		defer runs.Close()
		memory := &slowMemory{BlockCache: cache.NewMemory(bs, bs), gate: map[int64]chan struct{}{1: make(chan struct{})}}
		im := cloop.NewImage(ix, &stuck{runs, 1}, memory)
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		read := func(off, n int64) {
			go func() { _, _ = im.ReadAtContext(ctx, make([]byte, n), off) }()
			synctest.Wait()
		}
		read(bs+10, 10)  // loads block 1
		read(bs-10, 100) // loads block 0, and will wait for block 1
		if held := memory.held.Load(); held != 2 {
			t.Errorf("%d blocks are held while two are being loaded", held)
		}
		close(memory.gate[1])
		synctest.Wait()
		if held := memory.held.Load(); held != 1 {
			t.Errorf("%d blocks are held while one is being loaded", held)
		}
	})
}
