package manifest

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// ErrMismatch says that a stored block, or what the image's index says of it, is not what
// was signed.
var ErrMismatch = errors.New("not as the manifest says")

// Blocks says how stored blocks lie in an image. It is safe for concurrent use.
type Blocks interface {
	// Entry locates stored block n and tells the number of its codec.
	Entry(ctx context.Context, n int64) (blockio.Extent, uint8, error)
	// Doubt says that Entry was wrong about block n, and returns whether it looks anew
	// the next time.
	Doubt(n int64) bool
}

// Checked passes the stored blocks of an image on, each when its number, codec, length and
// bytes have been compared with a tree of hashes. It implements [blockio.Runs] and
// [blockio.Taker].
//
// Bytes that do not match are an error for the layers below, before anybody has seen them:
// they forget them and get others, as they do with bytes that do not decode. An error about
// the tree or the image's index is no fault of the bytes: the layers below do not hear of it.
type Checked struct {
	runs   blockio.Runs
	blocks Blocks
	tree   *Tree

	proven    atomic.Int64 // blocks
	refused   atomic.Int64 // stored blocks that were wrong
	diagnosed atomic.Int64 // bytes that were hashed to say what is wrong with them
}

// NewChecked returns the stored blocks that runs brings, checked. blocks is the image's
// index, and has as many blocks as tree.
func NewChecked(runs blockio.Runs, blocks Blocks, tree *Tree) *Checked {
	return &Checked{runs: runs, blocks: blocks, tree: tree}
}

// CheckedStats counts blocks.
type CheckedStats struct {
	Proven  int64 // stored blocks that were what was signed
	Refused int64 // those that were not
}

// Stats says what was compared so far.
func (c *Checked) Stats() CheckedStats {
	return CheckedStats{c.proven.Load(), c.refused.Load()}
}

// Expect says that blocks will soon be wanted: what proves them is read. It does not wait.
func (c *Checked) Expect(first, count int64) { c.tree.Expect(first, count) }

// nextPage is how many blocks before the end of a page the next one is read: who reads on
// does not wait for it.
const nextPage = fanOut / 4

// ReadRun is [blockio.Runs]'s. The pages of hashes are read at the same time as the blocks.
func (c *Checked) ReadRun(ctx context.Context, class blockio.Class, first, count int64,
	deliver func(n int64, stored []byte) error,
) error {
	total := c.tree.facts.Blocks
	if first < 0 || count <= 0 || first > total-count {
		return c.runs.ReadRun(ctx, class, first, count, deliver) // which says what is wrong
	}
	since := time.Now()
	c.tree.Expect(first, count)
	if end := first + count; end < total && end%fanOut > fanOut-nextPage {
		c.tree.Expect(end-end%fanOut+fanOut, 1)
	}
	if deliver == nil {
		return c.runs.ReadRun(ctx, class, first, count, nil)
	}
	r := checkedRuns.Get().(*checkedRun)
	r.checkedCall = checkedCall{c: c, ctx: ctx, since: since, class: class, deliver: deliver}
	err := r.read(first, count)
	r.recycle()
	if err != nil {
		c.failed(err)
	}
	return err
}

// failed is told of what comes of a run. A block that is bad has come twice: the index may be
// wrong about where it lies.
func (c *Checked) failed(err error) {
	var bad *blockio.BlockError
	if errors.As(err, &bad) && errors.Is(err, ErrMismatch) {
		c.blocks.Doubt(bad.Block)
	}
}

// Codec is the codec of block n, if that is in memory: it is when its bytes have just been
// compared.
func (c *Checked) Codec(n int64) (codec uint8, ok bool) {
	leaf, ok := c.tree.have(n)
	return leaf.Codec, ok
}

// Take is [blockio.Taker]'s. A block that can't be proven at once is not here.
func (c *Checked) Take(n int64, deliver func(n int64, stored []byte) error) bool {
	from, ok := c.runs.(blockio.Taker)
	if !ok {
		return false
	}
	if _, ok := c.tree.have(n); !ok {
		c.tree.Expect(n, 1)
		return false
	}
	r := checkedRuns.Get().(*checkedRun)
	defer r.recycle()
	r.checkedCall = checkedCall{c: c, ctx: blockio.AtOnce, deliver: deliver}
	return r.find(n, 1) == nil && from.Take(n, r.handOut) && len(r.failed) == 0
}

// Had is [blockio.Taker]'s.
func (c *Checked) Had(n int64) {
	if from, ok := c.runs.(blockio.Taker); ok {
		from.Had(n)
	}
}

// checkedRun is one call of ReadRun or Take, and what it works with.
type checkedRun struct {
	checkedCall
	codecs []uint8 // of the blocks from first on
	// handOut is the method check.
	handOut func(n int64, stored []byte) error

	// mu guards the field below.
	mu     sync.Mutex
	failed []blockio.BlockError // those that could not be compared, or are not as the index says
}

// checkedCall is what is new with each call.
type checkedCall struct {
	c       *Checked
	ctx     context.Context
	since   time.Time // when it came
	class   blockio.Class
	first   int64 // see codecs
	deliver func(n int64, stored []byte) error
}

// checkedRuns are recycled, so that checking makes no garbage.
var checkedRuns = sync.Pool{New: func() any {
	r := new(checkedRun)
	r.handOut = r.check
	return r
}}

// recycle ends the use of r.
func (r *checkedRun) recycle() {
	r.checkedCall, r.failed = checkedCall{}, nil
	checkedRuns.Put(r)
}

// read reads and compares blocks. Those of which the index is wrong are read once more,
// if it can be, too.
func (r *checkedRun) read(first, count int64) error {
	err := r.readRun(first, count)
	if len(r.failed) == 0 {
		return err
	}
	failed := r.failed
	r.failed = nil
	slices.SortFunc(failed, func(a, b blockio.BlockError) int { return cmp.Compare(a.Block, b.Block) })
	for _, f := range failed {
		if before(err, f.Block) {
			return err
		}
		// The index may be right by now: it is read in pages.
		if !errors.Is(f.Err, ErrMismatch) || !r.agrees(f.Block) && !r.c.blocks.Doubt(f.Block) {
			return &f
		}
		err := r.readRun(f.Block, 1)
		switch {
		case err != nil:
			return err
		case len(r.failed) > 0:
			return &r.failed[0]
		}
	}
	return err
}

// agrees says whether the index and the tree say the same of block n.
func (r *checkedRun) agrees(n int64) bool {
	e, codec, err := r.c.blocks.Entry(r.ctx, n)
	leaf, ok := r.c.tree.have(n)
	return err == nil && ok && codec == leaf.Codec && e.Len == leaf.Length
}

// before says that err is about a block before n.
func before(err error, n int64) bool {
	var be *blockio.BlockError
	return err != nil && (!errors.As(err, &be) || be.Block < n)
}

// readRun reads blocks as far as the index locates them.
func (r *checkedRun) readRun(first, count int64) error {
	notFound := r.find(first, count)
	if n := int64(len(r.codecs)); n > 0 {
		if err := r.c.runs.ReadRun(r.ctx, r.class, first, n, r.handOut); err != nil {
			return err
		}
	}
	return notFound
}

// find looks up the codecs of blocks, up to the first that the index does not locate.
// check must not: that might need a part of the index that has to be read.
func (r *checkedRun) find(first, count int64) error {
	r.first, r.codecs = first, r.codecs[:0]
	for n := first; n < first+count; n++ {
		_, codec, err := r.c.blocks.Entry(r.ctx, n)
		if err != nil {
			return &blockio.BlockError{Block: n, Err: err}
		}
		r.codecs = append(r.codecs, codec)
	}
	return nil
}

// check compares a stored block and delivers it. Calls for different blocks may run at the
// same time.
func (r *checkedRun) check(n int64, stored []byte) error {
	codec := r.codecs[n-r.first]
	leaf, ok := r.c.tree.have(n)
	if !ok {
		var err error
		if leaf, err = r.c.tree.leaf(r.ctx, n, r.since); err != nil {
			r.fail(n, err)
			return nil
		}
	}
	switch {
	case leaf.Codec != codec:
		r.fail(n, fmt.Errorf("%w: its codec is %d in the index, %d in the manifest", ErrMismatch, codec, leaf.Codec))
		return nil
	case leaf.Length != int64(len(stored)):
		r.fail(n, fmt.Errorf("%w: it has %d bytes in the index, %d in the manifest", ErrMismatch, len(stored), leaf.Length))
		return nil
	case LeafOf(n, codec, stored).Hash != leaf.Hash:
		r.c.refused.Add(1)
		return r.c.diagnose(n, leaf, stored)
	}
	r.c.proven.Add(1)
	return r.deliver(n, stored)
}

// fail notes that block n could not be compared.
func (r *checkedRun) fail(n int64, err error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.failed = append(r.failed, blockio.BlockError{Block: n, Err: err})
}

// maxDiagnosed bounds how many bytes are hashed, in all, to find out what bad blocks are
// instead: in a disk that is not compressed all blocks have one length. It is a fraction of a second,
// and enough for eight such blocks of 64 KiB.
const maxDiagnosed = 256 << 20

// diagnose says in which way stored is not block n.
func (c *Checked) diagnose(n int64, leaf Leaf, stored []byte) error {
	first := n - n%fanOut
	for other := first; other < min(first+fanOut, c.tree.facts.Blocks); other++ {
		l, ok := c.tree.have(other)
		if !ok || other == n || l.Codec != leaf.Codec || l.Length != leaf.Length {
			continue
		}
		if c.diagnosed.Add(l.Length) > maxDiagnosed {
			break
		}
		if LeafOf(other, l.Codec, stored) == l {
			return fmt.Errorf("%w: these are the bytes of block %d", ErrMismatch, other)
		}
	}
	return fmt.Errorf("%w: its bytes are others", ErrMismatch)
}
