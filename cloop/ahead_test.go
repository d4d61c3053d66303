package cloop_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/fetch"
)

const aheadBlock = 4096

// aheadImage is an image whose reads are noted, and held up where gate says so.
type aheadImage struct {
	*cloop.Image
	blockio.Runs
	near func(n int64) bool
	// What is published of a block, and before that taken, waits for these to be closed.
	gate, hold map[int64]chan struct{}
	memory     *slowMemory

	mu    sync.Mutex
	asked []int64 // by readers
	taken []int64
	had   []int64
}

func (im *aheadImage) ReadRun(ctx context.Context, class blockio.Class, first, count int64,
	deliver func(int64, []byte) error,
) error {
	im.mu.Lock()
	for n := first; n < first+count; n++ {
		im.asked = append(im.asked, n)
	}
	im.mu.Unlock()
	return im.Runs.ReadRun(ctx, class, first, count, deliver)
}

func (im *aheadImage) Take(n int64, deliver func(int64, []byte) error) bool {
	if !im.near(n) {
		return false
	}
	im.mu.Lock()
	im.taken = append(im.taken, n)
	im.mu.Unlock()
	if hold := im.hold[n]; hold != nil {
		<-hold
	}
	ok := true
	err := im.Runs.ReadRun(context.Background(), blockio.Demand, n, 1, func(n int64, stored []byte) error {
		ok = deliver(n, stored) == nil
		return nil
	})
	return ok && err == nil
}

func (im *aheadImage) Had(n int64) {
	im.mu.Lock()
	defer im.mu.Unlock()
	im.had = append(im.had, n)
}

// blocks is what readers have asked for, what was taken, and what of that was had.
type blocks struct{ Asked, Taken, Had []int64 }

// take returns what has happened since, in the order of the disk.
func (im *aheadImage) take() blocks {
	synctest.Wait()
	im.mu.Lock()
	defer im.mu.Unlock()
	b := blocks{im.asked, im.taken, im.had}
	im.asked, im.taken, im.had = nil, nil, nil
	for _, list := range [][]int64{b.Asked, b.Taken, b.Had} {
		slices.Sort(list)
	}
	return b
}

// slowMemory holds up what is published of some blocks, counts the blocks that are held, and
// may have no room for who does not wait.
type slowMemory struct {
	blockio.BlockCache
	gate map[int64]chan struct{}
	held atomic.Int64
	full bool
}

func (m *slowMemory) TryReserve() bool { return !m.full && m.BlockCache.TryReserve() }

func (m *slowMemory) Peek(n int64) (blockio.CachedBlock, bool) {
	b, ok := m.BlockCache.Peek(n)
	if ok {
		m.held.Add(1)
	}
	return slowBlock{b, m, nil}, ok
}

func (m *slowMemory) Acquire(n int64) (blockio.CachedBlock, bool) {
	b, load := m.BlockCache.Acquire(n)
	m.held.Add(1)
	return slowBlock{b, m, m.gate[n]}, load
}

type slowBlock struct {
	blockio.CachedBlock
	memory *slowMemory
	gate   chan struct{}
}

func (b slowBlock) Publish(err error) {
	if b.gate != nil {
		<-b.gate
	}
	b.CachedBlock.Publish(err)
}

func (b slowBlock) Release() {
	b.memory.held.Add(-1)
	b.CachedBlock.Release()
}

// newAheadImage has blocks, decodes 3 of them ahead, and does that on so many cores.
func newAheadImage(t *testing.T, cores int, blocks [][]byte, near func(int64) bool) *aheadImage {
	t.Helper()
	before := runtime.GOMAXPROCS(cores)
	t.Cleanup(func() { runtime.GOMAXPROCS(before) })
	src := &blockiotest.Source{Data: clooptest.Assemble(aheadBlock, blocks)}
	ix, err := cloop.Open(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	s := fetch.New(src, ix, fetch.Options{})
	t.Cleanup(s.Close)
	im := &aheadImage{Runs: s, near: near, gate: make(map[int64]chan struct{}), hold: make(map[int64]chan struct{})}
	im.memory = &slowMemory{BlockCache: cache.NewMemory(16*aheadBlock, aheadBlock), gate: im.gate}
	im.Image = cloop.NewImage(ix, im, im.memory)
	im.DecodeAhead(3)
	t.Cleanup(func() {
		synctest.Wait()
		if n := im.memory.held.Load(); n != 0 {
			t.Errorf("%d blocks are still held", n)
		}
	})
	return im
}

// filled are n blocks, each full of its number and one.
func filled(n int) (blocks [][]byte) {
	for i := range n {
		blocks = append(blocks, clooptest.Deflate(bytes.Repeat([]byte{byte(i + 1)}, aheadBlock), 6))
	}
	return blocks
}

// readBlock reads a block in eight parts.
func (im *aheadImage) readBlock(n int64) error {
	p := make([]byte, aheadBlock/8)
	for part := range int64(8) {
		_, err := im.ReadAtContext(context.Background(), p, n*aheadBlock+part*int64(len(p)))
		if err != nil {
			return err
		}
		if want := bytes.Repeat([]byte{byte(n + 1)}, len(p)); !bytes.Equal(p, want) {
			return errors.New("other bytes")
		}
	}
	return nil
}

// readBlocks reads the first n blocks.
func (im *aheadImage) readBlocks(t *testing.T, n int64) {
	t.Helper()
	for n := range n {
		if err := im.readBlock(n); err != nil {
			t.Fatal(err)
		}
	}
}

func all(int64) bool { return true }

// check compares what has happened since.
func (im *aheadImage) check(t *testing.T, what string, want blocks) {
	t.Helper()
	if diff := cmp.Diff(want, im.take(), cmpopts.EquateEmpty()); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

// A sequential reader finds the next blocks decoded, and is seen to read them; nobody else
// has any decoded.
func TestDecodeAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		im := newAheadImage(t, 3, filled(12), all)
		for _, n := range []int64{9, 5, 7} {
			if _, err := im.ReadAtContext(t.Context(), make([]byte, 100), n*aheadBlock+100); err != nil {
				t.Fatal(err)
			}
			im.check(t, "read at random", blocks{Asked: []int64{n}})
		}
		for n := range int64(12) {
			if err := im.readBlock(n); err != nil {
				t.Fatalf("block %d: %v", n, err)
			}
			var want blocks
			switch {
			case n == 0:
				want.Asked = []int64{0}
			case n == 1: // by the end of the second block
				want = blocks{Asked: []int64{1}, Taken: []int64{2, 3, 4}}
			case n < 9:
				want = blocks{Taken: []int64{n + 3}, Had: []int64{n}}
			default:
				want.Had = []int64{n}
			}
			im.check(t, fmt.Sprint("read block ", n), want)
		}
	})
}

// Who reads whole blocks has what was taken for another, too; and who goes while memory has
// no room takes nothing with him.
func TestWholeReadOfTaken(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		im := newAheadImage(t, 3, filled(12), all)
		im.readBlocks(t, 2)
		im.check(t, "read blocks 0 and 1", blocks{Asked: []int64{0, 1}, Taken: []int64{2, 3, 4}})
		p := make([]byte, 3*aheadBlock)
		if _, err := im.ReadAtContext(t.Context(), p, 2*aheadBlock); err != nil || p[0] != 3 || p[len(p)-1] != 5 {
			t.Errorf("blocks 2 to 4: %v, or other bytes", err)
		}
		im.check(t, "read blocks 2 to 4", blocks{Had: []int64{2, 3, 4}})
		for n := int64(5); n < 8; n++ {
			if _, err := im.ReadAtContext(t.Context(), p[:aheadBlock], n*aheadBlock); err != nil {
				t.Fatal(err)
			}
		}
		im.check(t, "read blocks 5 to 7, each as a whole", blocks{Asked: []int64{5, 6, 7}})
		im.memory.full = true
		if _, err := im.ReadAtContext(blockio.AtOnce, p[:10], 8*aheadBlock); !errors.Is(err, context.Canceled) {
			t.Errorf("without room in memory: %v, want the context's error", err)
		}
	})
}

// What is not at hand is left to its reader, and zeros are nothing to decode.
func TestDecodeAheadOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := filled(8)
		list[2] = nil          // which are zeros, and taken once
		var tries atomic.Int64 // to take block 4
		var here atomic.Bool
		im := newAheadImage(t, 3, list, func(n int64) bool {
			if n == 4 {
				tries.Add(1)
			}
			return n != 4 || here.Load()
		})
		for _, want := range []blocks{{Asked: []int64{0, 1}, Taken: []int64{2, 3}, Had: []int64{2}}, {}} { // the second time all is known
			im.readBlocks(t, 2)
			im.check(t, "read blocks 0 and 1", want)
		}
		if n := tries.Load(); n != 2 {
			t.Errorf("%d tries to take what is not at hand, want one at each of 2 block ends", n)
		}
		if _, err := im.ReadAtContext(t.Context(), make([]byte, 10), 4*aheadBlock); err != nil {
			t.Fatal(err)
		}
		im.check(t, "read block 4", blocks{Asked: []int64{4}})
		here.Store(true)
		if _, err := im.ReadAtContext(t.Context(), make([]byte, 10), 3*aheadBlock-10); err != nil {
			t.Fatal(err)
		}
		im.check(t, "come to the end of block 2, when block 4 is at hand", blocks{Taken: []int64{4, 5}})
	})
}

// An image whose blocks can't be taken, or shall not be, is read as any other.
func TestNothingIsDecodedAhead(t *testing.T) {
	const bs = 4096
	disk := mixed(8 * bs)
	for depth, wrap := range map[int]func(blockio.Runs) blockio.Runs{
		0: func(r blockio.Runs) blockio.Runs { return r },
		3: func(r blockio.Runs) blockio.Runs { return &loggedRuns{Runs: r} }, // no Taker
	} {
		src := &blockiotest.Source{Data: clooptest.Build(disk, bs)}
		ix, err := cloop.Open(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		runs := fetch.New(src, ix, fetch.Options{})
		defer runs.Close()
		im := cloop.NewImage(ix, wrap(runs), cache.NewMemory(8*bs, bs))
		im.DecodeAhead(depth)
		got := make([]byte, len(disk))
		for off := 0; off < len(disk); off += bs / 4 {
			if _, err := im.ReadAtContext(t.Context(), got[off:off+bs/4], int64(off)); err != nil {
				t.Fatal(err)
			}
		}
		if !bytes.Equal(got, disk) {
			t.Errorf("depth %d: other bytes", depth)
		}
		im.Close()
	}
}

// On so many cores, one less decode ahead, and readers of other blocks do not wait for
// them.
func TestDecodeAheadIsBounded(t *testing.T) {
	for cores, want := range map[int][]int64{1: nil, 2: {2}, 3: {2, 3}} {
		synctest.Test(t, func(t *testing.T) {
			im := newAheadImage(t, cores, filled(12), all)
			for n := int64(2); n < 5; n++ {
				im.gate[n] = make(chan struct{})
			}
			im.readBlocks(t, 2)
			im.check(t, fmt.Sprint(cores, " cores"), blocks{Asked: []int64{0, 1}, Taken: want})
			if err := im.readBlock(8); err != nil {
				t.Error(err)
			}
			for _, gate := range im.gate {
				close(gate)
			}
			synctest.Wait()
		})
	}
}

// Several readers share the bound, and what was taken for somebody who has gone does not
// fill it for ever.
func TestDecodeAheadIsShared(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		im := newAheadImage(t, 3, filled(200), all)
		count := func() int { return len(im.take().Taken) }
		for n := range int64(2) {
			if err := errors.Join(im.readBlock(n), im.readBlock(193+n)); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if n := count(); n != 3 {
			t.Errorf("%d blocks were taken for two readers, want 3", n)
		}
		for n := int64(20); n < 190; n += 2 { // and never the block behind
			if err := im.readBlock(n); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		if n := count(); n != 0 {
			t.Errorf("%d blocks were taken for a reader who leaves out every second", n)
		}
		for n := int64(10); n < 12; n++ {
			if err := im.readBlock(n); err != nil {
				t.Fatal(err)
			}
		}
		if n := count(); n == 0 {
			t.Error("no block was taken for a sequential reader who came later")
		}
	})
}

// When Close has returned, nothing is taken, and nothing will be.
func TestDecodeAheadIsClosed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		im := newAheadImage(t, 3, filled(12), all)
		im.gate[3] = make(chan struct{})
		im.readBlocks(t, 2)
		im.take()
		closed := make(chan struct{})
		go func() {
			im.Close()
			close(closed)
		}()
		synctest.Wait()
		select {
		case <-closed:
			t.Error("closed while a block is being decoded")
		default:
		}
		close(im.gate[3])
		<-closed
		im.readBlocks(t, 12)
		if b := im.take(); b.Taken != nil {
			t.Errorf("blocks %d were taken after that", b.Taken)
		}
	})
}

// A whole disk is read without a place lost, be it of the bound or of memory.
func TestDecodeAheadToTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		im := newAheadImage(t, 3, filled(200), all)
		for range 2 {
			for n := range int64(200) {
				if err := im.readBlock(n); err != nil {
					t.Fatal(err)
				}
				synctest.Wait() // the helpers are in time
			}
			if b := im.take(); len(b.Asked) != 2 || len(b.Taken) != 198 || len(b.Had) != 198 {
				t.Errorf("of 200 blocks %d were asked for, %d taken, %d of those had; want all but 2", len(b.Asked), len(b.Taken), len(b.Had))
			}
		}
	})
}

// Where memory has no room nothing is taken on and on.
func TestDecodeAheadWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		im := newAheadImage(t, 2, filled(12), all)
		im.memory.full = true
		im.readBlocks(t, 2)
		im.check(t, "read blocks 0 and 1", blocks{Asked: []int64{0, 1}, Taken: []int64{2}})
	})
}

// A block that its reader has loaded before it could be decoded ahead is his alone.
func TestReaderIsFaster(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		im := newAheadImage(t, 2, filled(12), all)
		im.hold[2] = make(chan struct{})
		im.readBlocks(t, 2)
		if err := im.readBlock(2); err != nil {
			t.Fatal(err)
		}
		im.check(t, "read blocks 0 to 2", blocks{Asked: []int64{0, 1, 2}, Taken: []int64{2}})
		close(im.hold[2])
		im.check(t, "after that", blocks{Taken: []int64{3, 4, 5}})
	})
}

// A reader who has to wait for a block decodes the next ones meanwhile.
func TestWaitingReaderDecodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		im := newAheadImage(t, 2, filled(12), all)
		im.gate[2] = make(chan struct{})
		im.readBlocks(t, 2)
		im.check(t, "read blocks 0 and 1", blocks{Asked: []int64{0, 1}, Taken: []int64{2}})
		read := make(chan error)
		go func() { read <- im.readBlock(2) }()
		im.check(t, "wait for block 2", blocks{Taken: []int64{3, 4}})
		// Another, who goes.
		ctx, cancel := context.WithCancel(t.Context())
		gone := make(chan error)
		go func() {
			_, err := im.ReadAtContext(ctx, make([]byte, 10), 2*aheadBlock)
			gone <- err
		}()
		synctest.Wait()
		cancel()
		if err := <-gone; !errors.Is(err, context.Canceled) {
			t.Errorf("who has gone: %v", err)
		}
		close(im.gate[2])
		if err := <-read; err != nil {
			t.Error(err)
		}
		if b := im.take(); !slices.Contains(b.Had, 2) {
			t.Errorf("blocks %v were had, want 2 among them", b.Had)
		}
	})
}

// Who waits for a block that turns out bad while it is decoded ahead tries for himself.
func TestWaitingForBadBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		list := filled(8)
		list[2] = list[2][:10]
		im := newAheadImage(t, 2, list, all)
		im.gate[2] = make(chan struct{})
		im.readBlocks(t, 2)
		synctest.Wait() // it is being decoded
		read := make(chan error)
		go func() { read <- im.readBlock(2) }()
		synctest.Wait()
		close(im.gate[2])
		var be *blockio.BlockError
		if err := <-read; !errors.Is(err, cloop.ErrCorrupt) || !errors.As(err, &be) || be.Block != 2 {
			t.Errorf("block 2: %v, want a BlockError with ErrCorrupt", err)
		}
	})
}

// A bad block is an error for who reads it, and for nobody else.
func TestDecodeAheadOfBadBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blocks := filled(8)
		blocks[3] = blocks[3][:10]
		im := newAheadImage(t, 3, blocks, all)
		for n := range int64(8) {
			err := im.readBlock(n)
			var be *blockio.BlockError
			switch {
			case n != 3 && err != nil:
				t.Errorf("block %d: %v", n, err)
			case n == 3 && (!errors.Is(err, cloop.ErrCorrupt) || !errors.As(err, &be) || be.Block != 3):
				t.Errorf("block 3: %v, want a BlockError with ErrCorrupt", err)
			}
			synctest.Wait()
		}
	})
}
