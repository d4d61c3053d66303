package cloop_test

import (
	"bytes"
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
