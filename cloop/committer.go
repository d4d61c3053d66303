package cloop

import (
	"context"
	"fmt"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/cloopfs/cloopfs/blockio"
)

// committer stores the blocks of a disk that has a base. Its pack is safe for
// concurrent use.
type committer struct {
	Changes
	packer   *packer
	checker  *checker
	perChunk int64        // blocks, at most
	first    int64        // block that is in no chunk yet; next's alone
	copied   atomic.Int64 // blocks
}

func newCommitter(c Changes, p *packer) *committer {
	return &committer{
		Changes: c, packer: p, checker: newChecker(c.Base),
		perChunk: chunkBlocks(commitChunk, c.Base.blockSize),
	}
}

// baseBlock is what the base has of a block.
type baseBlock struct {
	size  int // stored bytes; 0 if there is nothing to copy and the block is made anew
	off   int // of these in the chunk's copied
	codec codec
}

// next makes c the next blocks, as many as a chunk may have.
func (k *committer) next(ctx context.Context, c *chunk) (bool, error) {
	c.first, c.count, c.base = k.first, 0, c.base[:0]
	size := 0
	for c.count < min(k.perChunk, k.Base.blocks-c.first) {
		b, err := k.baseBlock(ctx, c.first+c.count)
		if err != nil {
			return false, err
		}
		if size > 0 && size+b.size > commitStored {
			break
		}
		b.off = size
		size += b.size
		c.base = append(c.base, b)
		c.count++
	}
	if cap(c.copied) < size {
		c.copied = make([]byte, size)
	}
	c.copied = c.copied[:size]
	k.first += c.count
	return c.count > 0, nil
}

// baseBlock tells what there is to copy of block n.
func (k *committer) baseBlock(ctx context.Context, n int64) (baseBlock, error) {
	if k.Changed(n) {
		return baseBlock{}, nil
	}
	ext, codec, err := k.Base.entry(ctx, n)
	if err != nil {
		return baseBlock{}, &blockio.BlockError{Block: n, Err: err}
	}
	return baseBlock{size: int(ext.Len), codec: codec}, nil
}

// pack stores the blocks of c: those that the base has as they are there.
func (k *committer) pack(ctx context.Context, c *chunk) error {
	if err := k.fetch(ctx, c); err != nil {
		return err
	}
	if err := k.completeLast(c); err != nil {
		return err
	}
	if err := k.read(ctx, c); err != nil {
		return err
	}
	for i, b := range c.base {
		if b.size == 0 {
			if err := k.packer.packBlock(c, int64(i), false); err != nil {
				return err
			}
			continue
		}
		c.blocks = append(c.blocks, storedBlock{size: b.size, codec: b.codec, copied: true})
		k.copied.Add(1)
	}
	return nil
}

// stretches calls f for each stretch [from, to) of adjacent blocks that are to be
// copied, or of those that are not.
func (c *chunk) stretches(copied bool, f func(from, to int64) error) error {
	for from := 0; from < len(c.base); {
		to := from
		for to < len(c.base) && c.base[to].size > 0 == copied {
			to++
		}
		if to > from {
			if err := f(int64(from), int64(to)); err != nil {
				return err
			}
		}
		from = max(to, from+1)
	}
	return nil
}

// fetch gets what is to be copied, many stretches at once, and sees whether it decodes.
func (k *committer) fetch(ctx context.Context, c *chunk) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(fetches)
	_ = c.stretches(true, func(from, to int64) error {
		g.Go(func() error {
			return k.Runs.ReadRun(ctx, blockio.Demand, c.first+from, to-from, func(n int64, stored []byte) error {
				b := c.base[n-c.first]
				if len(stored) != b.size {
					return fmt.Errorf("%w: has %d bytes, and had %d before", ErrCorrupt, len(stored), b.size)
				}
				if c, err := k.Base.provenCodec(n, b.codec); err != nil || c != b.codec {
					return fmt.Errorf("%w: its codec is another than before", ErrCorrupt)
				}
				if err := k.checker.check(n, b.codec, stored); err != nil {
					return err
				}
				copy(c.copied[b.off:], stored)
				return nil
			})
		})
		return nil
	})
	return g.Wait()
}

// completeLast has the last block made anew if it decodes to less than a block:
// not every reader takes that.
func (k *committer) completeLast(c *chunk) error {
	last := k.Base.blocks - 1 - c.first
	if last >= c.count || c.base[last].size == 0 {
		return nil
	}
	b := &c.base[last]
	n, err := decoders[b.codec](make([]byte, k.Base.blockSize), c.copied[b.off:b.off+b.size])
	if n < k.Base.blockSize {
		b.size = 0
	}
	return err
}

// read reads from the disk what is to be made anew.
func (k *committer) read(ctx context.Context, c *chunk) error {
	size := int64(k.Base.blockSize)
	return c.stretches(false, func(from, to int64) error {
		c.reserve(c.count, k.Base.blockSize)
		return readDisk(ctx, k.Disk, c.disk[from*size:to*size], (c.first+from)*size)
	})
}
