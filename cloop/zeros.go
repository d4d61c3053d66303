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

// newZeroSet returns the set for an image; nil, which holds nothing, for one that is not
// compressed: there is no telling zeros from their stored bytes.
func newZeroSet(ix *Index) *zeroSet {
	if ix.raw {
		return nil
	}
	return &zeroSet{make([]atomic.Pointer[zeroPage], (ix.blocks+zeroPageBlocks-1)/zeroPageBlocks)}
}

func (z *zeroSet) has(n int64) bool {
	if z == nil {
		return false
	}
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
// more room in the image than a block of zeros does: one, and as many again as were zeros.
// What can't be read is not known to be zeros. It implements [blockio.Mapper].
func (im *Image) MapAt(ctx context.Context, off int64) (n int64, zeros bool, err error) {
	if im.zeros == nil {
		return im.Size() - off, false, nil
	}
	bs := int64(im.index.blockSize)
	first := off / bs
	last := min(first+max(1, mapSize/bs), im.index.blocks)
	end := first
	for end < last {
		if im.zeros.has(end) {
			end++
			continue
		}
		more := im.findZeros(ctx, end, min(end+max(1, end-first), last))
		if more == end {
			break
		}
		end = more
	}
	if end == first {
		return min((first+1)*bs, im.Size()) - off, false, ctx.Err()
	}
	return min(end*bs, im.Size()) - off, true, nil
}

// findZeros reads the blocks [first, end), as far as they may be zeros, and returns the end
// of those at their beginning that are.
func (im *Image) findZeros(ctx context.Context, first, end int64) int64 {
	maybe := first
	for maybe < end {
		e, err := im.index.Extent(ctx, maybe)
		if err != nil || e.Len > int64(im.index.maxZeroForm()) {
			break
		}
		maybe++
	}
	bs := int64(im.index.blockSize)
	buf := make([]byte, min(maybe*bs, im.Size())-first*bs)
	// A block that can't be read leaves the others known.
	_, _ = im.ReadAtContext(ctx, buf, first*bs)
	for first < maybe && im.zeros.has(first) {
		first++
	}
	return first
}
