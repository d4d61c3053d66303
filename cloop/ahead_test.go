package cloop_test

import (
	"bytes"
	"context"
	"errors"
	"runtime"
	"slices"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

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
	gate map[int64]chan struct{} // to be closed; by block

	mu    sync.Mutex
	asked []int64
}

func (im *aheadImage) ReadRun(ctx context.Context, class blockio.Class, first, count int64,
	deliver func(int64, []byte) error,
) error {
	im.mu.Lock()
	for n := first; n < first+count; n++ {
		im.asked = append(im.asked, n)
	}
	im.mu.Unlock()
	if gate := im.gate[first]; gate != nil {
		<-gate
	}
	return im.Runs.ReadRun(ctx, class, first, count, deliver)
}

// take returns the blocks that were asked for since, in their order on the disk.
func (im *aheadImage) take() []int64 {
	synctest.Wait()
	im.mu.Lock()
	defer im.mu.Unlock()
	asked := im.asked
	im.asked = nil
	slices.Sort(asked)
	return asked
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
	im := &aheadImage{Runs: s, gate: make(map[int64]chan struct{})}
	im.Image = cloop.NewImage(ix, im, cache.NewMemory(16*aheadBlock, aheadBlock))
	im.DecodeAhead(near, 3)
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

func all(int64) bool { return true }

// A sequential reader finds the next blocks decoded; nobody else has any decoded.
func TestDecodeAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		im := newAheadImage(t, 3, filled(12), all)
		check := func(what string, want ...int64) {
			t.Helper()
			if diff := cmp.Diff(want, im.take()); diff != "" {
				t.Errorf("%s: blocks asked for (-want +got):\n%s", what, diff)
			}
		}
		for _, n := range []int64{9, 5, 7} {
			if _, err := im.ReadAtContext(t.Context(), make([]byte, 100), n*aheadBlock+100); err != nil {
				t.Fatal(err)
			}
			check("read at random", n)
		}
		for _, c := range []struct {
			n    int64
			want []int64
		}{
			{0, []int64{0}},
			{1, []int64{1, 2, 3, 4}}, // by the end of the second block
			{2, nil},                 // 5 is in memory
			{3, []int64{6}},
			{4, nil},
			{5, []int64{8}},
			{6, nil},
			{7, []int64{10}},
			{8, []int64{11}}, // the last
			{9, nil},
			{10, nil},
			{11, nil},
		} {
			if err := im.readBlock(c.n); err != nil {
				t.Fatalf("block %d: %v", c.n, err)
			}
			check("read in order", c.want...)
		}
	})
}

// What is not at hand is not waited for, and zeros are nothing to decode.
func TestDecodeAheadOfNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		blocks := filled(8)
		blocks[2] = nil // which are zeros, and asked for once
		im := newAheadImage(t, 3, blocks, func(n int64) bool { return n != 4 })
		for what, want := range [][]int64{{0, 1, 2, 3}, nil} { // the second time all is known
			for n := range int64(2) {
				if err := im.readBlock(n); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(want, im.take()); diff != "" {
				t.Errorf("%d: blocks asked for (-want +got):\n%s", what, diff)
			}
		}
	})
}

// On so many cores, one less decode ahead, and readers of other blocks do not wait for
// them.
func TestDecodeAheadIsBounded(t *testing.T) {
	for cores, want := range map[int][]int64{1: {0, 1}, 2: {0, 1, 2}, 3: {0, 1, 2, 3}} {
		synctest.Test(t, func(t *testing.T) {
			im := newAheadImage(t, cores, filled(12), all)
			for n := int64(2); n < 5; n++ {
				im.gate[n] = make(chan struct{})
			}
			for n := range int64(2) {
				if err := im.readBlock(n); err != nil {
					t.Fatal(err)
				}
			}
			if diff := cmp.Diff(want, im.take()); diff != "" {
				t.Errorf("%d cores: blocks asked for (-want +got):\n%s", cores, diff)
			}
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

// A reader who has to wait for a block decodes the next ones meanwhile.
func TestWaitingReaderDecodes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		im := newAheadImage(t, 2, filled(12), all)
		im.gate[2] = make(chan struct{})
		for n := range int64(2) {
			if err := im.readBlock(n); err != nil {
				t.Fatal(err)
			}
		}
		im.take()
		read := make(chan error)
		go func() { read <- im.readBlock(2) }()
		if diff := cmp.Diff([]int64{3, 4}, im.take()); diff != "" {
			t.Errorf("while it waits, blocks asked for (-want +got):\n%s", diff)
		}
		close(im.gate[2])
		if err := <-read; err != nil {
			t.Error(err)
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
