package cloop_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/fetch"
)

// A disk that is not compressed is read through the whole line as it is, with no
// byte more than it has.
func TestRawImage(t *testing.T) {
	for _, size := range []int{1, 511, 512, 64<<10 - 1, 64 << 10, 64<<10 + 1, 3*64<<10 + 512, 1_000_001} {
		t.Run(fmt.Sprint(size), func(t *testing.T) {
			src := &blockiotest.Source{Data: mixed(size)}
			ix, err := cloop.Raw(src.Size())
			if err != nil {
				t.Fatal(err)
			}
			if ix.DiskSize() != src.Size() {
				t.Errorf("DiskSize() = %d, want %d", ix.DiskSize(), size)
			}
			if table := ix.Table(); table != (blockio.Extent{}) || ix.Doubt(0) {
				t.Errorf("its index is at %v, or can be read again", table)
			}
			runs := fetch.New(src, ix, fetch.Options{})
			defer runs.Close()
			im := cloop.NewImage(ix, runs, cache.NewMemory(2*int64(ix.BlockSize()), ix.BlockSize()))
			blockiotest.TestReaderAt(t, im, src.Data)
		})
	}
}

func TestRawIsNotEmpty(t *testing.T) {
	for _, size := range []int64{0, -1} {
		if _, err := cloop.Raw(size); !errors.Is(err, cloop.ErrFormat) {
			t.Errorf("Raw(%d): %v, want ErrFormat", size, err)
		}
	}
}

func TestRawExtents(t *testing.T) {
	const block = 64 << 10
	for _, c := range []struct {
		size, blocks, last int64 // last: bytes of the last block
	}{
		{1, 1, 1},
		{block, 1, block},
		{block + 1, 2, 1},
		{10 * block, 10, block},
		{10*block + 100, 11, 100},
		{1<<40 + 512, 1<<24 + 1, 512},
		{1<<63 - 1, 1 << 47, block - 1},
	} {
		ix, err := cloop.Raw(c.size)
		if err != nil {
			t.Fatal(err)
		}
		if ix.BlockSize() != block || ix.Blocks() != c.blocks {
			t.Errorf("%d bytes: %d blocks of %d, want %d of %d", c.size, ix.Blocks(), ix.BlockSize(), c.blocks, block)
		}
		for n, want := range map[int64]int64{0: min(block, c.size), c.blocks / 2: block, c.blocks - 1: c.last} {
			if n == c.blocks-1 {
				want = c.last
			}
			if e, err := ix.Extent(t.Context(), n); err != nil || e != (blockio.Extent{Off: n * block, Len: want}) {
				t.Errorf("%d bytes: Extent(%d) = %v, %v; want %d+%d", c.size, n, e, err, n*block, want)
			}
		}
		for _, n := range []int64{-1, c.blocks} {
			if _, err := ix.Extent(t.Context(), n); err == nil {
				t.Errorf("%d bytes: Extent(%d): no error", c.size, n)
			}
		}
	}
}

// An image that ends before the disk does is an error, not zeros.
func TestRawShortSource(t *testing.T) {
	src := &blockiotest.Source{Data: mixed(100_000)}
	ix, err := cloop.Raw(200_000)
	if err != nil {
		t.Fatal(err)
	}
	runs := fetch.New(src, ix, fetch.Options{})
	defer runs.Close()
	im := cloop.NewImage(ix, runs, cache.NewMemory(1<<20, ix.BlockSize()))
	if _, err := im.ReadAtContext(t.Context(), make([]byte, 1000), 150_000); err == nil {
		t.Error("no error for bytes that are not there")
	}
}
