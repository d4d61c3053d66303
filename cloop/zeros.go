package cloop

import (
	"context"
	"sync/atomic"
)

// zeroSet is the blocks that are known to be zeros: most of a real disk. They are cleared
// where they are wanted, and take no room in memory.
//
// It has a bit for each block, in pages that are made with the first bit in them. It is
// safe for concurrent use.
type zeroSet struct {
	pages []atomic.Pointer[zeroPage]
}

const zeroPageBlocks = 32 << 10

type zeroPage [zeroPageBlocks / 64]atomic.Uint64

func newZeroSet(blocks int64) *zeroSet {
	return &zeroSet{make([]atomic.Pointer[zeroPage], (blocks+zeroPageBlocks-1)/zeroPageBlocks)}
}

func (z *zeroSet) has(n int64) bool {
	page := z.pages[n/zeroPageBlocks].Load()
	return page != nil && page[n%zeroPageBlocks/64].Load()>>(n%64)&1 != 0
}

func (z *zeroSet) add(n int64) {
	at := &z.pages[n/zeroPageBlocks]
	page := at.Load()
	for page == nil {
		at.CompareAndSwap(nil, new(zeroPage))
		page = at.Load()
	}
	page[n%zeroPageBlocks/64].Or(1 << (n % 64))
}

// mapSize bounds the bytes of which MapAt finds out at a time whether they are zeros, but
// for one block.
const mapSize = 1 << 20

// MapAt says whether the n bytes at off are zeros. To know it reads blocks that take no
// more room in the image than a block of zeros does. It implements [blockio.Mapper].
func (im *Image) MapAt(ctx context.Context, off int64) (n int64, zeros bool, err error) {
	bs := int64(im.index.blockSize)
	first := off / bs
	last := min(first+max(1, mapSize/bs), im.index.blocks)
	end := first + 1
	if maybe, err := im.maybeZeros(ctx, first, last); err != nil {
		return 0, false, err
	} else if maybe > first {
		buf := make([]byte, min(maybe*bs, im.Size())-first*bs)
		if _, err := im.ReadAtContext(ctx, buf, first*bs); err != nil {
			return 0, false, err
		}
		zeros = im.zeros.has(first)
		for end < maybe && im.zeros.has(end) == zeros {
			end++
		}
	}
	return min(end*bs, im.Size()) - off, zeros, nil
}

// maybeZeros returns where those of the blocks [first, end) end that may be zeros.
func (im *Image) maybeZeros(ctx context.Context, first, end int64) (int64, error) {
	for n := first; n < end; n++ {
		if im.zeros.has(n) {
			continue
		}
		e, err := im.index.Extent(ctx, n)
		if err != nil || e.Len > int64(im.index.maxZeroForm()) {
			return n, err
		}
	}
	return end, nil
}
