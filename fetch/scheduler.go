package fetch

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// Options bounds a Scheduler. The zero value is usable.
type Options struct {
	// Requests says how many requests there may be at a time, by now. nil means 32.
	Requests func() int
	// MaxRequest is the largest number of bytes asked for in one request; a
	// single stored block may be longer. 1 MiB if 0: with 32 of them under
	// way that fills any line.
	MaxRequest int64
	// Keep is how many bytes of stored blocks are kept after they arrived;
	// 4 MiB if 0.
	Keep int64
	// Buffer is how many bytes of runs may be under way or being delivered at a time;
	// 64 MiB if 0. Five eighths of it are for what readers wait for, and one for what they
	// read from the store, so that nobody else can make them wait for room. A single block
	// may be longer.
	Buffer int64
	// Window is how many bytes may be on their way for other classes than demand;
	// as many as keep the line busy if 0. A single block may be longer.
	Window int64
	// Ahead brings what is likely to be wanted: what sequential readers will want, and
	// what lies near the last reads.
	Ahead bool
	// Spare says how many more bytes may be brought now that perhaps nobody will ask
	// for. It is called about once a second. nil means any number.
	Spare func() int64
	// Trip is the line's round trip, as it was lately, while it was idle; 0 if it is not
	// known. nil means that it is short.
	Trip func() time.Duration
	// Store keeps what was fetched, and is asked first. nil means none.
	Store blockio.BlockStore
}

var errClosed = errors.New("closed")

// Scheduler fetches stored blocks. It is safe for concurrent use.
type Scheduler struct {
	src blockio.Ranges
	ext blockio.Extents
	opt Options

	ctx    context.Context // of every flight; ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup // all goroutines
	wake   chan struct{}  // there may be something for the pump to do
	demand budget
	local  budget // likewise, for what is read from the store
	others budget // for the classes after Demand

	// mu guards the fields below, and those of block and request that say so.
	mu     sync.Mutex
	blocks map[int64]*block // flying, kept or failed
	queue  [blockio.Classes][]*request
	active [blockio.Classes]int // requests under way
	due    int64                // bytes of them that have not come, but for demand
	waited int64                // those of demand
	kept   []*block             // in the order in which they arrived
	room   int64                // of Keep, what is left
	failed []*block             // in the order in which they failed

	policy    policy
	line      estimate
	read      int64                  // bytes of blocks that readers have had
	ahead     [blockio.Classes]int64 // bytes that the pump has asked for and nobody has read, by class
	loose     int64                  // of those that have come, what is not in the store
	looseN    int                    // the blocks that these are of
	storing   bool                   // the last block that came is in the store
	longest   int64                  // block that the pump has looked at, in bytes
	pause     time.Time              // until then the pump brings nothing
	more      bool                   // the pump may have something to bring
	claimless time.Time              // until then what other processes claim counts for nothing
	stats     Stats
	unread    [blockio.Classes]bitset // of what was stored for other classes than demand, what nobody has read
	closed    bool
}

// block is one copy of a stored block.
type block struct {
	n   int64
	ext blockio.Extent
	req *request // nil for a block that needs none: of no bytes, or local

	// done is closed when stored or err is set.
	done   chan struct{}
	stored []byte // from getBuffer
	err    error
	// local says that the store seems to have the block: it is read when it is
	// delivered.
	local bool

	// Guarded by Scheduler.mu.
	users     int       // readers that have joined it, and one while it flies or is kept
	fetched   bool      // its bytes came from the source
	used      bool      // a reader has got its bytes
	counted   bool      // it is a part of Scheduler.ahead
	loose     bool      // likewise of Scheduler.loose
	fail      error     // why this copy is of no use; whoever wants the block gets it until failUntil
	failUntil time.Time // zero unless fail is set
}

// request is a run of blocks that are asked for together.
type request struct {
	rng    blockio.Range
	blocks []*block

	// Guarded by Scheduler.mu.
	started bool
	ahead   bool  // of readers: it is made even if nobody wants it
	awaited bool  // a reader has joined it since
	users   int   // of its blocks, until it is started
	due     int64 // bytes that have not come
}

// New returns a Scheduler for the blocks that ext locates in src.
func New(src blockio.Ranges, ext blockio.Extents, opt Options) *Scheduler {
	if opt.Requests == nil {
		opt.Requests = func() int { return 32 }
	}
	if opt.MaxRequest == 0 {
		opt.MaxRequest = 1 << 20
	}
	if opt.Keep == 0 {
		opt.Keep = 4 << 20
	}
	if opt.Buffer == 0 {
		opt.Buffer = 64 << 20
	}
	others, local := opt.Buffer/4, opt.Buffer/8
	s := &Scheduler{
		src: src, ext: ext, opt: opt,
		demand: newBudget(opt.Buffer - others - local),
		local:  newBudget(local),
		others: newBudget(others),
		blocks: make(map[int64]*block),
		room:   opt.Keep,
		wake:   make(chan struct{}, 1),

		storing: opt.Store != nil,
		line:    newEstimate(opt.Trip),
		policy:  policy{blocks: ext.Blocks(), ahead: opt.Ahead},
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.wg.Go(s.pump)
	return s
}

// Close ends all flights and waits for them. Readers get an error.
func (s *Scheduler) Close() {
	s.mu.Lock()
	s.closed = true
	for class := range s.queue {
		for _, r := range s.queue[class] {
			s.failLocked(r, errClosed)
		}
		s.queue[class] = nil
	}
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
}

// located is a block and where it lies.
type located struct {
	n     int64
	ext   blockio.Extent
	local bool // in the store, as it seems
}

// locate finds block n.
func (s *Scheduler) locate(ctx context.Context, n int64) (located, error) {
	ext, err := s.ext.Extent(ctx, n)
	if err != nil {
		return located{}, &blockio.BlockError{Block: n, Err: err}
	}
	local := s.opt.Store != nil && ext.Len > 0 && s.opt.Store.Have(n, ext)
	return located{n, ext, local}, nil
}

// arrived is the done of a block that is never asked for.
var arrived = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// maxLocal is how many blocks that need no flight are made at a time.
const maxLocal = 256

// join finds or starts a flight for each block of run, which are in order, and appends it
// to joined. The caller must leave each. Those that need no flight are appended to local.
func (s *Scheduler) join(class blockio.Class, run []located, joined []*block, local []block) ([]*block, []block) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.purgeLocked()
	most := s.opt.MaxRequest
	if class > blockio.Demand && s.opt.Window == 0 {
		most = min(most, s.line.window(class)/maxFill) // which somebody who waits may have to wait for
	}
	var r *request // the request being put together
	for _, l := range run {
		if l.ext.Len == 0 || l.local {
			if len(local) == cap(local) {
				local = make([]block, 0, min(max(len(run), 2), maxLocal)) // the others stay where they are
			}
			local = append(local, block{n: l.n, ext: l.ext, done: arrived, local: l.local})
			joined = append(joined, &local[len(local)-1])
			continue
		}
		b := s.blocks[l.n]
		if b != nil && b.ext != l.ext {
			b = nil // the index says otherwise by now
		}
		if b == nil {
			if r == nil || l.ext.Off != r.rng.End() || r.rng.Len+l.ext.Len > most {
				s.submitLocked(r)
				r = &request{rng: blockio.Range{Extent: blockio.Extent{Off: l.ext.Off}, Class: class}}
			}
			b = s.addLocked(r, l)
		} else {
			s.promoteLocked(b.req, class)
			b.req.awaited = b.req.awaited || class == blockio.Demand
		}
		s.useLocked(b)
		joined = append(joined, b)
	}
	s.submitLocked(r)
	s.startLocked() // what was promoted
	return joined, local
}

// addLocked appends a block to a request that has not been submitted.
func (s *Scheduler) addLocked(r *request, l located) *block {
	b := &block{n: l.n, ext: l.ext, req: r, done: make(chan struct{})}
	r.blocks = append(r.blocks, b)
	r.rng.Len += l.ext.Len
	s.blocks[l.n] = b
	return b
}

// promoteLocked moves a queued request to class, if that is served earlier.
func (s *Scheduler) promoteLocked(r *request, class blockio.Class) {
	if r.started || s.closed || class >= r.rng.Class {
		return // with s closed it has failed
	}
	s.unqueueLocked(r)
	for _, b := range r.blocks {
		switch {
		case class == blockio.Demand:
			s.uncountLocked(b) // it is no longer brought for nobody
		case b.counted:
			s.ahead[r.rng.Class] -= b.ext.Len
			s.ahead[class] += b.ext.Len
		}
	}
	r.rng.Class = class
	s.queue[class] = append(s.queue[class], r)
}

func (s *Scheduler) unqueueLocked(r *request) {
	q := &s.queue[r.rng.Class]
	*q = slices.DeleteFunc(*q, func(other *request) bool { return other == r })
}

func (s *Scheduler) useLocked(b *block) {
	b.users++
	b.req.users++
}

// releaseLocked drops one user of b. With the last goes its buffer, or the
// place in the queue of a request that nobody wants any more.
func (s *Scheduler) releaseLocked(b *block) {
	if b.req == nil {
		return
	}
	b.users--
	b.req.users--
	switch {
	case b.req.started && b.users == 0:
		putBuffer(b.stored)
		b.stored = nil
	case !b.req.started && b.req.users == 0 && !b.req.ahead:
		s.unqueueLocked(b.req)
		for _, b := range b.req.blocks {
			s.forgetLocked(b)
		}
	}
}

func (s *Scheduler) forgetLocked(b *block) {
	if s.blocks[b.n] == b {
		delete(s.blocks, b.n)
	}
}

// leave ends what join began. read says that the caller has had b's bytes.
func (s *Scheduler) leave(b *block, read bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case read && b.fetched:
		s.read += b.ext.Len
		s.uncountLocked(b)
		if !b.used {
			b.used = true
			s.stats.of(b.req.rng).Used += b.ext.Len
			s.unread[b.req.rng.Class].remove(b.n)
		}
	case read: // its flight has taken it from the store
		s.readLocalLocked(b)
	}
	s.releaseLocked(b)
}

// abandon leaves blocks that may still be flying, and calls then when they no
// longer are.
func (s *Scheduler) abandon(blocks []*block, then func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var flying []*block
	for _, b := range blocks {
		s.releaseLocked(b)
		if !b.finished() && b.req.started {
			flying = append(flying, b)
		}
	}
	if len(flying) == 0 {
		then()
		return
	}
	s.wg.Go(func() {
		for _, b := range flying {
			<-b.done
		}
		then()
	})
}

// ahead says that b was asked for before anybody wanted it.
func (b *block) ahead() bool { return b.req != nil && b.req.ahead }

// finished says that b's bytes have arrived, or never will.
func (b *block) finished() bool {
	select {
	case <-b.done:
		return true
	default:
		return false
	}
}

// wait waits for b's bytes.
func (s *Scheduler) wait(ctx context.Context, b *block) ([]byte, error) {
	if err := s.failing(b); err != nil {
		return nil, err
	}
	if b.finished() {
		return b.stored, b.err
	}
	select {
	case <-b.done:
		return b.stored, b.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// errRange is for callers that ask for blocks that do not exist.
func errRange(first, count, blocks int64) error {
	return fmt.Errorf("blocks %d+%d of %d", first, count, blocks)
}
