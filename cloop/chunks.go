package cloop

import (
	"context"

	"golang.org/x/sync/errgroup"
)

const (
	// createChunk is about how much of a disk is in work together: enough for
	// the hand-over to cost nothing, little enough to spread over many cores.
	createChunk = 1 << 20
	// commitChunk is that where stored blocks are fetched: large requests.
	commitChunk = 4 << 20
	// commitStored bounds the stored bytes of a chunk that are fetched, but for one
	// block: a base may store its blocks in many times the bytes they decode to. Those
	// that don't compress have room in it with what their codec adds.
	commitStored = commitChunk + commitChunk/4
	// commitMemory is about how much of a disk the workers may have in work where
	// the size of the blocks was not chosen here.
	commitMemory = 128 << 20
	// fetches is how many stretches of a chunk are fetched at a time.
	fetches = 32
	// aheadSize bounds what is ahead of the workers and behind them, but for
	// one chunk.
	aheadSize = 64 << 20
)

// storedBlock is a block that waits to be written.
type storedBlock struct {
	size   int // bytes
	codec  codec
	copied bool // they are the next in the chunk's copied, not in its stored
}

// chunk is adjacent blocks on their way into an image.
type chunk struct {
	first int64 // block
	count int64
	disk  []byte // their decoded bytes, or what was needed of them
	zeros bool   // nothing but zeros are on the disk; the bytes in disk mean nothing

	blocks []storedBlock // how they are stored
	stored []byte        // the stored bytes of those made here, one behind the other
	base   []baseBlock   // where there is a base: what it has of each
	copied []byte        // the stored bytes of those that it has

	packed chan struct{} // gets a value when stored and blocks are there
}

// add appends a block to those that are to be written.
func (c *chunk) add(stored []byte, k codec) {
	c.stored = append(c.stored, stored...)
	c.blocks = append(c.blocks, storedBlock{size: len(stored), codec: k})
}

// chunkBlocks is how many blocks make a chunk of about so many bytes.
func chunkBlocks(bytes, blockSize int) int64 { return int64(max(1, bytes/blockSize)) }

// counted returns the function that divides a number of blocks into chunks.
func counted(blocks, perChunk int64) func(context.Context, *chunk) (bool, error) {
	first := int64(0)
	return func(_ context.Context, c *chunk) (bool, error) {
		c.first, c.count = first, min(perChunk, blocks-first)
		first += c.count
		return c.count > 0, nil
	}
}

// pipeline makes an image of chunks: next fills in what the next one is, or says
// that there is none, for one after the other; pack stores the blocks of several
// at a time; write gets them in order. It holds a few more chunks than workers.
type pipeline struct {
	workers int
	chunk   int64 // bytes of the disk
	next    func(ctx context.Context, c *chunk) (more bool, err error)
	pack    func(ctx context.Context, c *chunk) error
	write   func(c *chunk) error
}

// run returns when all chunks are written, or with the first error.
func (p pipeline) run(ctx context.Context) error {
	inWork := p.workers + max(1, min(p.workers, int(aheadSize/p.chunk)))
	free := make(chan *chunk, inWork)
	for range inWork {
		free <- &chunk{packed: make(chan struct{}, 1)}
	}
	order := make(chan *chunk, inWork) // to be written
	jobs := make(chan *chunk, inWork)  // to be packed
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(order)
		defer close(jobs)
		for {
			select {
			case c := <-free:
				more, err := p.next(ctx, c)
				if !more || err != nil {
					return err
				}
				order <- c // these two never wait: there is room for all
				jobs <- c
			case <-ctx.Done():
				return ctx.Err()
			}
		}
	})
	for range p.workers {
		g.Go(func() error {
			for c := range jobs {
				if err := ctx.Err(); err != nil {
					return err
				}
				c.stored, c.blocks = c.stored[:0], c.blocks[:0]
				if err := p.pack(ctx, c); err != nil {
					return err
				}
				c.packed <- struct{}{}
			}
			return nil
		})
	}
	g.Go(func() error {
		for c := range order {
			select {
			case <-c.packed:
			case <-ctx.Done():
				return ctx.Err()
			}
			if err := p.write(c); err != nil {
				return err
			}
			free <- c
		}
		return nil
	})
	return g.Wait()
}
