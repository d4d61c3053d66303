package cloop

import (
	"context"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/cloopfs/cloopfs/blockio"
)

// committer stores the blocks of a disk that has a base. It is safe for concurrent use.
type committer struct {
	Changes
	packer *packer
	copied atomic.Int64 // blocks
}

// pack stores the blocks of c: those that the base has as they are there.
func (k *committer) pack(ctx context.Context, c *chunk) error {
	codecs, err := k.copyable(ctx, c)
	if err != nil {
		return err
	}
	if err := k.fetch(ctx, c, codecs); err != nil {
		return err
	}
	if err := k.read(ctx, c, codecs); err != nil {
		return err
	}
	for i := range c.count {
		if codecs[i] < 0 {
			if err := k.packer.packBlock(c, i, false); err != nil {
				return err
			}
			continue
		}
		c.add(c.copied[i], codec(codecs[i]))
		k.copied.Add(1)
	}
	return nil
}

// makeAnew stands for a codec where the base has nothing to copy.
const makeAnew = -1

// copyable returns the codecs of the blocks of c, and makeAnew for those that are
// not to be copied.
func (k *committer) copyable(ctx context.Context, c *chunk) ([]int, error) {
	codecs := make([]int, c.count)
	for i := range codecs {
		codecs[i] = makeAnew
		n := c.first + int64(i)
		if k.Changed(n) {
			continue
		}
		ext, codec, err := k.Base.entry(ctx, n)
		if err != nil {
			return nil, &blockio.BlockError{Block: n, Err: err}
		}
		if ext.Len > 0 {
			codecs[i] = int(codec)
		}
	}
	return codecs, nil
}

// stretches calls f for each stretch [from, to) of adjacent blocks that are to be
// copied, or of those that are not.
func stretches(codecs []int, copied bool, f func(from, to int64) error) error {
	for from := 0; from < len(codecs); {
		to := from
		for to < len(codecs) && codecs[to] >= 0 == copied {
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

// fetch gets what is to be copied, all stretches at once, and sees whether it decodes.
func (k *committer) fetch(ctx context.Context, c *chunk, codecs []int) error {
	for int64(len(c.copied)) < c.count {
		c.copied = append(c.copied, nil)
	}
	g, ctx := errgroup.WithContext(ctx)
	_ = stretches(codecs, true, func(from, to int64) error {
		g.Go(func() error {
			first := c.first + from
			check, err := k.Base.Checker(ctx, first, to-from)
			if err != nil {
				return err
			}
			return k.Runs.ReadRun(ctx, blockio.Demand, first, to-from, func(n int64, stored []byte) error {
				i := n - c.first
				if err := check(n, stored); err != nil {
					return err
				}
				c.copied[i] = append(c.copied[i][:0], stored...)
				return nil
			})
		})
		return nil
	})
	if err := g.Wait(); err != nil {
		return err
	}
	return k.completeLast(c, codecs)
}

// completeLast has the last block made anew if it decodes to less than a block:
// not every reader takes that.
func (k *committer) completeLast(c *chunk, codecs []int) error {
	last := k.Base.blocks - 1 - c.first
	if last >= c.count || codecs[last] == makeAnew {
		return nil
	}
	n, err := decoders[codecs[last]](make([]byte, k.Base.blockSize), c.copied[last])
	if n < k.Base.blockSize {
		codecs[last] = makeAnew
	}
	return err
}

// read reads from the disk what is to be made anew.
func (k *committer) read(ctx context.Context, c *chunk, codecs []int) error {
	size := int64(k.Base.blockSize)
	return stretches(codecs, false, func(from, to int64) error {
		c.reserve(c.count, k.Base.blockSize)
		return readDisk(ctx, k.Disk, c.disk[from*size:to*size], (c.first+from)*size)
	})
}
