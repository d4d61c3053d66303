package cloop_test

import (
	"bytes"
	"context"
	"sync"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/fetch"
)

const zeroTestBlock = 4096

// zeroDisk has a block of data, two of zeros, and so on, and half a block at its end.
func zeroDisk(blocks int) []byte {
	disk := make([]byte, blocks*zeroTestBlock+zeroTestBlock/2)
	data := mixed(zeroTestBlock)
	for i := range blocks {
		if i%3 == 0 {
			copy(disk[i*zeroTestBlock:], data)
		}
	}
	return disk
}

// Blocks of zeros are not kept in memory, and are read without asking for them again, by
// whoever reads how many at a time.
func TestZerosInMemory(t *testing.T) {
	const blocks = 30
	disk := zeroDisk(blocks)
	src := &blockiotest.Source{Data: clooptest.Build(disk, zeroTestBlock)}
	ix, err := cloop.Open(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	runs := fetch.New(src, ix, fetch.Options{})
	t.Cleanup(runs.Close)
	memory := cache.NewMemory(100*zeroTestBlock, zeroTestBlock)
	im := cloop.NewImage(ix, runs, memory)
	readParts := func() {
		t.Helper()
		var wg sync.WaitGroup
		for range 4 {
			wg.Go(func() {
				p := make([]byte, 512)
				for off := int64(0); off < int64(len(disk)); off += zeroTestBlock / 4 {
					if _, err := im.ReadAtContext(t.Context(), p, off); err != nil || !bytes.Equal(p, disk[off:off+512]) {
						t.Errorf("512 bytes at %d: wrong, or %v", off, err)
					}
				}
			})
		}
		wg.Wait()
	}
	readParts()
	if got := memory.Stats().Blocks; got != blocks/3+1 {
		t.Errorf("%d blocks in memory; the disk has %d with data", got, blocks/3+1)
	}
	src.Asked() // forgets it
	readParts()
	p := make([]byte, 2*zeroTestBlock)
	if _, err := im.ReadAtContext(t.Context(), p, zeroTestBlock); err != nil || !bytes.Equal(p, disk[zeroTestBlock:3*zeroTestBlock]) {
		t.Errorf("two blocks of zeros: wrong, or %v", err)
	}
	if got := src.Asked(); len(got) > 0 {
		t.Errorf("the second time the source was asked for %v", got)
	}
}

// What MapAt does not know it finds out, but it does not read data.
func TestMapAt(t *testing.T) {
	const blocks = 3000
	disk := zeroDisk(blocks)
	src := &blockiotest.Source{Data: clooptest.Build(disk, zeroTestBlock)}
	im := openImage(t, src, 1)
	src.Asked()
	zeros := int64(0)
	for off := int64(0); off < im.Size(); {
		n, is, err := blockio.MapAt(t.Context(), im, off)
		if err != nil {
			t.Fatal(err)
		}
		if is {
			zeros += n
		}
		off += n
	}
	if want := int64(blocks * 2 / 3 * zeroTestBlock); zeros != want {
		t.Errorf("%d bytes of zeros, want %d", zeros, want)
	}
	asked := int64(0)
	for _, r := range src.Asked() {
		asked += r.Len
	}
	if asked > int64(len(src.Data))/2 {
		t.Errorf("it has read %d bytes of an image of %d", asked, len(src.Data))
	}
}

// unshared has a scheduler for each call: nothing that one has fetched is there for the next.
type unshared struct {
	src *blockiotest.Source
	ix  *cloop.Index
}

func (u unshared) ReadRun(ctx context.Context, class blockio.Class, first, count int64, deliver func(int64, []byte) error) error {
	runs := fetch.New(u.src, u.ix, fetch.Options{})
	defer runs.Close()
	return runs.ReadRun(ctx, class, first, count, deliver)
}

// openUnkept is openImage with next to nothing kept of what was fetched.
func openUnkept(t *testing.T, src *blockiotest.Source) (*cloop.Index, *cloop.Image) {
	t.Helper()
	ix, err := cloop.Open(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	return ix, cloop.NewImage(ix, unshared{src, ix}, cache.NewMemory(1, ix.BlockSize()))
}

// One read stays one run, whatever zeros lie inside; those at its ends are left out.
func TestZerosInsideRuns(t *testing.T) {
	const blocks = 31
	disk := zeroDisk(blocks)
	src := &blockiotest.Source{Data: clooptest.Build(disk, zeroTestBlock)}
	ix, im := openUnkept(t, src)
	for pass, from := range []int{0, 1} { // the second time two blocks of zeros come first
		src.Asked()
		part := disk[from*zeroTestBlock : blocks*zeroTestBlock]
		p := make([]byte, len(part))
		if _, err := im.ReadAtContext(t.Context(), p, int64(from*zeroTestBlock)); err != nil || !bytes.Equal(p, part) {
			t.Fatalf("pass %d: wrong bytes, or %v", pass, err)
		}
		first, err := ix.Extent(t.Context(), int64(3*from))
		if err != nil {
			t.Fatal(err)
		}
		if asked := src.Asked(); len(asked) != 1 || asked[0].Off != first.Off {
			t.Errorf("pass %d: asked for %v, want one request from %d on", pass, asked, first.Off)
		}
	}
}

// Blocks that are small and not zeros are read once or twice, not again and again.
func TestMapAtOfSmallBlocks(t *testing.T) {
	disk := make([]byte, 1000*zeroTestBlock)
	for i := 0; i < len(disk); i += 2 * zeroTestBlock {
		disk[i] = 1 + byte(i>>13)
	}
	src := &blockiotest.Source{Data: clooptest.Build(disk, zeroTestBlock)}
	_, im := openUnkept(t, src)
	src.Asked()
	for off := int64(0); off < im.Size(); {
		n, _, err := im.MapAt(t.Context(), off)
		if err != nil {
			t.Fatal(err)
		}
		off += n
	}
	asked := int64(0)
	for _, r := range src.Asked() {
		asked += r.Len
	}
	if asked > 3*int64(len(src.Data)) {
		t.Errorf("it has read %d bytes of an image of %d", asked, len(src.Data))
	}
}

// A block that can't be read hides nothing of those before it.
func TestMapAtBeforeBadBlock(t *testing.T) {
	disk := make([]byte, 8*zeroTestBlock)
	disk[5*zeroTestBlock+7] = 1
	src := &blockiotest.Source{Data: clooptest.Build(disk, zeroTestBlock)}
	ix, err := cloop.Open(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	e, err := ix.Extent(t.Context(), 5)
	if err != nil {
		t.Fatal(err)
	}
	flip(src.Data, int(e.End())-1)
	im := openImage(t, src, 1)
	if n, zeros, err := im.MapAt(t.Context(), 0); n != 5*zeroTestBlock || !zeros || err != nil {
		t.Errorf("MapAt(0) = %d, %v, %v", n, zeros, err)
	}
	if n, zeros, err := im.MapAt(t.Context(), 5*zeroTestBlock); n != zeroTestBlock || zeros || err != nil {
		t.Errorf("MapAt of the bad block = %d, %v, %v", n, zeros, err)
	}
}

// Of a disk that is not compressed nothing is known, however large somebody says it is.
func TestMapAtOfRaw(t *testing.T) {
	ix, err := cloop.Raw(1 << 62)
	if err != nil {
		t.Fatal(err)
	}
	im := cloop.NewImage(ix, nil, cache.NewMemory(1, ix.BlockSize()))
	if n, zeros, err := im.MapAt(t.Context(), 1000); n != im.Size()-1000 || zeros || err != nil {
		t.Errorf("MapAt(1000) = %d, %v, %v", n, zeros, err)
	}
}
