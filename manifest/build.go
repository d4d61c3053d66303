package manifest

import (
	"context"
	"fmt"
	"io"

	"golang.org/x/sync/errgroup"
)

// File is where a tree is built.
type File interface {
	io.WriterAt
	io.ReaderAt
}

// Build writes the file of hashes of an image into out, which is empty, and returns the
// root. leaves fills in what there is to say of the blocks from first on; it is called for
// several stretches of up to 512 blocks at a time, by as many goroutines as workers. done, which may be
// nil, is told now and then how many blocks are done. Memory does not grow with the number of blocks.
func Build(ctx context.Context, out File, f Facts, workers int,
	leaves func(ctx context.Context, first int64, leaves []Leaf) error, done func(blocks int64),
) (Hash, error) {
	b := &builder{out: out, shape: shapeOf(f.Blocks)}
	if err := b.blocks(ctx, workers, leaves, done); err != nil {
		return Hash{}, err
	}
	for at := 1; at < len(b.shape.levels); at++ {
		if err := b.level(ctx, at); err != nil {
			return Hash{}, err
		}
	}
	return f.root(b.top), nil
}

// builder writes a tree.
type builder struct {
	out   File
	shape shape
	top   Hash // of the page that was written last; in the end that is the top page
}

// blocks writes level 0.
func (b *builder) blocks(ctx context.Context, workers int,
	leaves func(ctx context.Context, first int64, leaves []Leaf) error, done func(blocks int64),
) error {
	count := b.shape.levels[0].entries
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(workers + 1)
	finished := make(chan int64, workers)
	g.Go(func() error {
		for total := int64(0); total < count; {
			select {
			case n := <-finished:
				if total += n; done != nil {
					done(total)
				}
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	for k := range b.shape.levels[0].pages() {
		if ctx.Err() != nil {
			break
		}
		g.Go(func() error {
			first := k * fanOut
			list := make([]Leaf, min(fanOut, count-first))
			if err := leaves(ctx, first, list); err != nil {
				return err
			}
			page := make([]byte, leafSize*len(list))
			for i, l := range list {
				l.put(page[leafSize*i:])
			}
			if err := b.write(0, k, page); err != nil {
				return err
			}
			select {
			case finished <- int64(len(list)):
			case <-ctx.Done():
			}
			return ctx.Err()
		})
	}
	return g.Wait()
}

// level hashes the pages of the level below a level; its own pages hold these hashes.
func (b *builder) level(ctx context.Context, at int) error {
	buf := make([]byte, nodeFanOut*nodeSize)
	for k := range b.shape.levels[at].pages() {
		if err := ctx.Err(); err != nil {
			return err
		}
		e := b.shape.page(at, k)
		page := buf[:e.Len]
		if _, err := b.out.ReadAt(page, e.Off); err != nil {
			return fmt.Errorf("read the hashes again: %w", err)
		}
		if err := b.hand(at, k, page); err != nil {
			return err
		}
	}
	return nil
}

// write writes page k of a level.
func (b *builder) write(at int, k int64, page []byte) error {
	if _, err := b.out.WriteAt(page, b.shape.page(at, k).Off); err != nil {
		return err
	}
	return b.hand(at, k, page)
}

// hand hands the hash of a page up to the level above.
func (b *builder) hand(at int, k int64, page []byte) error {
	sum := hashPage(at, k, page)
	if at == len(b.shape.levels)-1 {
		b.top = sum
		return nil
	}
	_, err := b.out.WriteAt(sum[:], b.shape.levels[at+1].off+k*nodeSize)
	return err
}
