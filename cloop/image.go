package cloop

import (
	"context"
	"errors"
	"fmt"

	"github.com/cloopfs/cloopfs/blockio"
)

// Image is the disk that a cloop image decodes to. It implements
// [blockio.ReaderAt].
//
// A block that a read covers whole is decoded straight into the reader's
// buffer; one that it covers in part is decoded into the block cache, once for
// all its readers.
type Image struct {
	index  *Index
	runs   blockio.Runs
	blocks blockio.BlockCache
}

// NewImage returns the disk whose stored blocks, located by ix, runs brings.
// The blocks of cache must have ix.BlockSize() bytes.
func NewImage(ix *Index, runs blockio.Runs, cache blockio.BlockCache) *Image {
	return &Image{index: ix, runs: runs, blocks: cache}
}

// Size is the size of the disk in bytes: a whole number of blocks.
func (im *Image) Size() int64 { return im.index.diskSize() }

// ReadAtContext reads from the disk. Adjacent blocks that are not in memory
// are asked for as one run. An error wraps a *blockio.BlockError where it
// belongs to one block.
func (im *Image) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	p, eof := blockio.Clip(p, off, im.Size())
	if len(p) == 0 {
		return 0, eof
	}
	r := read{im: im, p: p, off: off}
	if err := r.run(ctx); err != nil {
		return 0, err
	}
	return len(p), eof
}

// read is one call of ReadAtContext.
type read struct {
	im  *Image
	p   []byte
	off int64
	// partial holds the blocks that this read covers in part and has to load
	// or to wait for: at most its first and its last.
	partial [2]partial
}

type partial struct {
	n     int64
	block blockio.CachedBlock // nil: this slot is not in use
	load  bool                // this read is the block's loader
	done  bool                // its bytes have been copied
}

func (r *read) run(ctx context.Context) (err error) {
	defer func() { r.release(err) }()
	bs := int64(r.im.index.blockSize)
	first, end := r.off/bs, (r.off+int64(len(r.p))+bs-1)/bs
	start := first // the run to be read is [start, n)
	for n := first; n < end; n++ {
		if r.want(n) {
			continue
		}
		if err := r.readRun(ctx, start, n); err != nil {
			return err
		}
		start = n + 1
	}
	if err := r.readRun(ctx, start, end); err != nil {
		return err
	}
	return r.await(ctx)
}

// span is the part of block n that the read covers: block[skip:] in dst.
func (r *read) span(n int64) (dst []byte, skip int) {
	bs := int64(r.im.index.blockSize)
	from, to := n*bs-r.off, (n+1)*bs-r.off
	if from < 0 {
		skip, from = int(-from), 0
	}
	return r.p[from:min(to, int64(len(r.p)))], skip
}

// want says whether block n has to be read. If not, it has been copied from
// memory, or await will do that when it is loaded.
func (r *read) want(n int64) bool {
	if dst, _ := r.span(n); len(dst) == r.im.index.blockSize {
		b, ok := r.im.blocks.Peek(n)
		if ok {
			copy(dst, b.Bytes())
			b.Release()
		}
		return !ok
	}
	b, load := r.im.blocks.Acquire(n)
	s := &r.partial[0]
	if s.block != nil {
		s = &r.partial[1]
	}
	*s = partial{n: n, block: b, load: load}
	return load
}

// readRun reads and decodes the blocks [first, end).
func (r *read) readRun(ctx context.Context, first, end int64) error {
	if first == end {
		return nil
	}
	return r.im.runs.ReadRun(ctx, blockio.Demand, first, end-first, r.deliver)
}

// deliver decodes block n to where the read wants it. Calls for different
// blocks may run at the same time.
func (r *read) deliver(n int64, stored []byte) error {
	dst, skip := r.span(n)
	if len(dst) == r.im.index.blockSize {
		return r.im.index.decode(n, dst, stored)
	}
	s := &r.partial[0]
	if s.n != n || s.block == nil {
		s = &r.partial[1]
	}
	if err := r.im.index.decode(n, s.block.Bytes(), stored); err != nil {
		return err
	}
	copy(dst, s.block.Bytes()[skip:])
	s.done = true
	s.block.Publish(nil)
	return nil
}

// await copies what other readers have been loading.
func (r *read) await(ctx context.Context) error {
	for i := range r.partial {
		s := &r.partial[i]
		for s.block != nil && !s.done {
			if err := r.awaitOne(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitOne waits for the loader of s. If that reader went away before it was
// done, this one takes its place.
func (r *read) awaitOne(ctx context.Context, s *partial) error {
	err := s.block.Wait(ctx)
	if err == nil {
		dst, skip := r.span(s.n)
		copy(dst, s.block.Bytes()[skip:])
		s.done = true
		return nil
	}
	if ctx.Err() != nil || !abandoned(err) {
		return err
	}
	s.block.Release()
	s.block, s.load = r.im.blocks.Acquire(s.n)
	if s.load {
		return r.readRun(ctx, s.n, s.n+1)
	}
	return nil
}

// abandoned says that a block's loader stopped for a reason of its own.
func abandoned(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded)
}

// release gives the partial blocks back, those not loaded with the reason.
func (r *read) release(err error) {
	for i := range r.partial {
		s := &r.partial[i]
		if s.block == nil {
			continue
		}
		if s.load && !s.done {
			if err == nil {
				panic(fmt.Sprintf("cloop: internal error: block %d was not delivered", s.n))
			}
			s.block.Publish(err)
		}
		s.block.Release()
	}
}
