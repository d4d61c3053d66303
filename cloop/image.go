package cloop

import (
	"context"
	"errors"
	"fmt"
	"sync"

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
	zeros  *zeroSet
	ahead  *ahead
}

// NewImage returns the disk whose stored blocks, located by ix, runs brings.
// The blocks of cache must have ix.BlockSize() bytes.
func NewImage(ix *Index, runs blockio.Runs, cache blockio.BlockCache) *Image {
	return &Image{index: ix, runs: runs, blocks: cache, zeros: newZeroSet(ix)}
}

// Size is the size of the disk in bytes.
func (im *Image) Size() int64 { return im.index.DiskSize() }

// ReadAtContext reads from the disk. Adjacent blocks that are not in memory
// are asked for as one run. An error wraps a *blockio.BlockError where it
// belongs to one block.
func (im *Image) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	p, eof := blockio.Clip(p, off, im.Size())
	if len(p) == 0 {
		return 0, eof
	}
	im.decodeAhead(off, int64(len(p)))
	r := newRead(im, p, off)
	defer r.recycle()
	if err := r.run(ctx); err != nil {
		return 0, err
	}
	return len(p), eof
}

// read is one call of ReadAtContext, and what it works with.
type read struct {
	call
	// codecs is those of the run being read, from block first on; none stand for zlib
	// alone.
	codecs []codec
	// handOut is the method deliver.
	handOut func(n int64, stored []byte) error
}

// call is what is new with each call.
type call struct {
	im  *Image
	p   []byte
	off int64
	// partial holds the blocks that this read covers in part: at most its
	// first and its last.
	partial  [2]partial
	partials int
	first    int64 // see codecs
}

// reads are recycled, so that reading makes no garbage.
var reads = sync.Pool{New: func() any {
	r := new(read)
	r.handOut = r.deliver
	return r
}}

func newRead(im *Image, p []byte, off int64) *read {
	r := reads.Get().(*read)
	r.call, r.codecs = call{im: im, p: p, off: off}, r.codecs[:0]
	return r
}

// recycle ends the use of r.
func (r *read) recycle() {
	r.call = call{}
	reads.Put(r)
}

type partial struct {
	n     int64
	block blockio.CachedBlock // nil but while this read loads it, or waits for it
	done  bool                // its bytes have been copied
}

// giveBack ends the use of s.block.
func (s *partial) giveBack() {
	s.block.Release()
	s.block = nil
}

// ready says whether its loader has done with it.
func (s *partial) ready() bool { return !errors.Is(s.block.Wait(blockio.AtOnce), context.Canceled) }

func (r *read) run(ctx context.Context) (err error) {
	defer func() { r.release(err) }()
	bs := int64(r.im.index.blockSize)
	first, end := r.off/bs, (r.off+int64(len(r.p))+bs-1)/bs
	r.peek(first)
	if end-1 > first {
		r.peek(end - 1)
	}
	if err := r.load(ctx, first, end); err != nil {
		return err
	}
	return r.await(ctx)
}

// peek looks at the first or last block: if the read covers it in part, it is
// copied from memory, or gets a place in r.partial.
func (r *read) peek(n int64) {
	if dst, _ := r.span(n); len(dst) == r.im.index.blockSize {
		return
	}
	r.partial[r.partials] = partial{n: n, done: r.atHand(n) != wanted}
	r.partials++
}

// atHand takes what the read covers of block n from memory, if it is there.
func (r *read) atHand(n int64) whereabouts {
	dst, skip := r.span(n)
	if r.im.zeros.has(n) {
		clear(dst)
		return cleared
	}
	b, ok := r.im.blocks.Peek(n)
	if !ok {
		return wanted
	}
	copy(dst, b.Bytes()[skip:])
	b.Release()
	r.im.had(n)
	return here
}

// load reads the blocks [first, end) that are not in memory, except those that
// another reader is loading.
func (r *read) load(ctx context.Context, first, end int64) error {
	start, need := first, first // the run to be read
	for n := first; n < end; n++ {
		switch r.want(n) {
		case wanted:
			need = n + 1
		case cleared: // zeros are left out at a run's ends, and inside cost less than a second run
			if need == start {
				start, need = n+1, n+1
			}
		case here:
			if err := r.readRun(ctx, start, need); err != nil {
				return err
			}
			start, need = n+1, n+1
		}
	}
	return r.readRun(ctx, start, need)
}

// find returns block n's place among those that the read covers in part, nil
// if it covers the block whole.
func (r *read) find(n int64) *partial {
	for i := range r.partial[:r.partials] {
		if r.partial[i].n == n {
			return &r.partial[i]
		}
	}
	return nil
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

// whereabouts is what a read knows of a block before it asks for it.
type whereabouts int

const (
	wanted  whereabouts = iota // it has to be read
	here                       // it has been copied from memory, or will be by await
	cleared                    // it is zeros
)

// want says where block n is, and takes what is at hand.
func (r *read) want(n int64) whereabouts {
	s := r.find(n)
	switch {
	case s == nil:
		return r.atHand(n)
	case s.done:
		return here
	}
	var load bool
	if s.block, load = r.im.blocks.Acquire(n); load {
		return wanted
	}
	r.take(s, s.block.Wait(blockio.AtOnce))
	return here
}

// readRun reads and decodes the blocks [first, end).
func (r *read) readRun(ctx context.Context, first, end int64) error {
	if first == end {
		return nil
	}
	if err := r.findCodecs(ctx, first, end); err != nil {
		return err
	}
	err := r.im.runs.ReadRun(ctx, blockio.Demand, first, end-first, r.handOut)
	if err == nil {
		return nil
	}
	var bad *blockio.BlockError
	if errors.As(err, &bad) && errors.Is(err, ErrCorrupt) {
		// It came twice. The index may be wrong about where it lies.
		r.im.index.forget(bad.Block / pageEntries)
	}
	return err
}

// findCodecs looks up the codecs of the blocks [first, end). deliver must not:
// that might need a part of the index that has to be read.
func (r *read) findCodecs(ctx context.Context, first, end int64) error {
	if !r.im.index.codecs {
		return nil
	}
	r.first, r.codecs = first, r.codecs[:0]
	for n := first; n < end; n++ {
		_, c, err := r.im.index.entry(ctx, n)
		if err != nil {
			return &blockio.BlockError{Block: n, Err: err}
		}
		r.codecs = append(r.codecs, c)
	}
	return nil
}

// deliver decodes block n to where the read wants it. Calls for different
// blocks may run at the same time.
func (r *read) deliver(n int64, stored []byte) error {
	c := codecZlib
	if len(r.codecs) > 0 {
		c = r.codecs[n-r.first]
	}
	dst, skip := r.span(n)
	s := r.find(n)
	if s == nil {
		_, err := r.im.decode(n, c, dst, stored)
		return err
	}
	r.im.blocks.Reserve()
	defer r.im.blocks.Unreserve()
	empty, err := r.im.decode(n, c, s.block.Bytes(), stored)
	if err != nil {
		s.block.Discard() // others come to be decoded, until better bytes have come
		return err
	}
	copy(dst, s.block.Bytes()[skip:])
	s.done = true
	if empty {
		err = errZeros
	}
	s.block.Publish(err)
	s.giveBack()
	r.im.loaded(n)
	return nil
}

// errZeros is published of a block of zeros, so that it is not kept in memory.
var errZeros = errors.New("nothing but zeros")

// decode decodes block n, and remembers if it is zeros.
func (im *Image) decode(n int64, c codec, dst, stored []byte) (empty bool, err error) {
	empty, err = im.index.decode(n, c, dst, stored)
	if empty {
		im.zeros.add(n)
	}
	return empty, err
}

// await copies what other readers have been loading.
func (r *read) await(ctx context.Context) error {
	for i := range r.partial[:r.partials] {
		for s := &r.partial[i]; !s.done; {
			if err := r.awaitOne(ctx, s); err != nil {
				return err
			}
		}
	}
	return nil
}

// awaitOne waits for the loader of s. If that reader went away before it was done, one of
// those who wait takes its place. Who waits has time to decode what comes next.
func (r *read) awaitOne(ctx context.Context, s *partial) error {
	var load bool
	if s.block, load = r.im.blocks.Acquire(s.n); load {
		return r.readRun(ctx, s.n, s.n+1)
	}
	for ctx.Err() == nil && !s.ready() && r.im.lend(s.n) {
	}
	err := s.block.Wait(ctx)
	r.take(s, err)
	switch {
	case s.done, abandoned(err) && ctx.Err() == nil:
		return nil
	case abandoned(err):
		return ctx.Err()
	}
	return err
}

// take copies what another reader has loaded, if Wait says so by err, and gives the block
// back: it is not to stay in memory while this read waits for the network.
func (r *read) take(s *partial, err error) {
	dst, skip := r.span(s.n)
	switch err {
	case nil:
		copy(dst, s.block.Bytes()[skip:])
		s.done = true
		r.im.had(s.n)
	case errZeros:
		clear(dst)
		s.done = true
	}
	s.giveBack()
}

// abandoned says that a block's loader stopped for a reason of its own.
func abandoned(err error) bool {
	return errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, errPassedOn)
}

// about is what a read that failed with err has to say of block n, which it was to load. Not
// that another block is bad, or is not here: of those who wait for this one, one tries for
// all. An outage he learns of at once: below, what has just failed is not asked for again.
func about(n int64, err error) error {
	if be, ok := errors.AsType[*blockio.BlockError](err); ok && be.Block != n {
		return errPassedOn
	}
	return err
}

// release gives back the partial blocks that were not loaded, with the reason.
func (r *read) release(err error) {
	for i := range r.partial[:r.partials] {
		s := &r.partial[i]
		switch {
		case s.block == nil:
		case err == nil:
			panic(fmt.Sprintf("cloop: internal error: block %d was not delivered", s.n))
		default:
			s.block.Publish(about(s.n, err))
			s.giveBack()
		}
	}
}
