package fetch

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	"golang.org/x/sync/semaphore"

	"github.com/cloopfs/cloopfs/blockio"
)

// Options bounds a Scheduler. The zero value is usable.
type Options struct {
	// Requests is the largest number of requests at a time; 32 if 0.
	Requests int
	// MaxRequest is the largest number of bytes asked for in one request; a
	// single stored block may be longer. 1 MiB if 0: with 32 of them under
	// way that fills any line, and bounds what they hold in memory.
	MaxRequest int64
	// Keep is how many bytes of stored blocks are kept after they arrived;
	// 4 MiB if 0.
	Keep int64
	// Buffer is how many bytes may be under way or being delivered at a time;
	// 64 MiB if 0. A single block may be longer.
	Buffer int64
}

// failTime is how long a block that failed fails at once.
const failTime = time.Second

var errClosed = errors.New("closed")

// Scheduler fetches stored blocks. It is safe for concurrent use.
type Scheduler struct {
	src blockio.Ranges
	ext blockio.Extents
	opt Options

	ctx    context.Context // of every flight; ended by Close
	cancel context.CancelFunc
	wg     sync.WaitGroup      // all goroutines
	buffer *semaphore.Weighted // bytes that readers have asked for, see run.reserve

	// mu guards the fields below, and those of block and request that say so.
	mu     sync.Mutex
	blocks map[int64]*block // flying, kept or failed
	queue  [blockio.Classes][]*request
	active int // requests under way
	kept   []*request
	room   int64 // of Keep, what is left
	closed bool
}

// block is one copy of a stored block.
type block struct {
	n   int64
	ext blockio.Extent
	req *request

	// done is closed when stored or err is set.
	done   chan struct{}
	stored []byte
	err    error

	// Guarded by Scheduler.mu: until failUntil whoever wants the block gets
	// fail. dead says that this copy will never be of use.
	fail      error
	failUntil time.Time
	dead      bool
}

// request is a run of blocks that are asked for together.
type request struct {
	rng    blockio.Range
	blocks []*block
	buf    []byte // set and filled by the flight

	// Guarded by Scheduler.mu.
	class   blockio.Class
	started bool
	users   int // readers that have joined a block, and one while it flies or is kept
}

// New returns a Scheduler for the blocks that ext locates in src.
func New(src blockio.Ranges, ext blockio.Extents, opt Options) *Scheduler {
	if opt.Requests == 0 {
		opt.Requests = 32
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
	s := &Scheduler{
		src: src, ext: ext, opt: opt,
		buffer: semaphore.NewWeighted(opt.Buffer),
		blocks: make(map[int64]*block),
		room:   opt.Keep,
	}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	return s
}

// Close ends all flights and waits for them. Readers get an error.
func (s *Scheduler) Close() {
	s.mu.Lock()
	s.closed = true
	for class := range s.queue {
		for _, r := range s.queue[class] {
			s.finishLocked(r, errClosed)
		}
		s.queue[class] = nil
	}
	s.mu.Unlock()
	s.cancel()
	s.wg.Wait()
}

// located is a block and where it lies.
type located struct {
	n   int64
	ext blockio.Extent
}

// join finds or starts a flight for each block of run, which are in order. The
// caller must leave each.
func (s *Scheduler) join(class blockio.Class, run []located) []*block {
	joined := make([]*block, len(run))
	now := time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	var r *request // the request being put together
	for i, l := range run {
		b := s.blocks[l.n]
		if b == nil || b.dead && !now.Before(b.failUntil) {
			if r == nil || l.ext.Off != r.rng.End() || r.rng.Len+l.ext.Len > s.opt.MaxRequest {
				s.submitLocked(r)
				r = &request{rng: blockio.Range{Extent: blockio.Extent{Off: l.ext.Off}}, class: class}
			}
			b = s.addLocked(r, l)
		} else {
			s.promoteLocked(b.req, class)
		}
		b.req.users++
		joined[i] = b
	}
	s.submitLocked(r)
	return joined
}

// addLocked appends a block to a request that has not been submitted.
func (s *Scheduler) addLocked(r *request, l located) *block {
	b := &block{n: l.n, ext: l.ext, req: r, done: make(chan struct{})}
	r.blocks = append(r.blocks, b)
	r.rng.Len += l.ext.Len
	s.blocks[l.n] = b
	return b
}

// submitLocked queues r, and starts what may start. nil is let pass.
func (s *Scheduler) submitLocked(r *request) {
	switch {
	case r == nil:
	case s.closed:
		s.finishLocked(r, errClosed)
	default:
		s.queue[r.class] = append(s.queue[r.class], r)
		s.startLocked()
	}
}

// startLocked starts queued requests, the highest class first, as far as the
// limit lets it.
func (s *Scheduler) startLocked() {
	for class := range s.queue {
		for len(s.queue[class]) > 0 && s.active < s.opt.Requests {
			r := s.queue[class][0]
			s.queue[class] = s.queue[class][1:]
			r.started = true
			r.users++ // the flight itself
			s.active++
			s.wg.Go(func() { s.fly(r) })
		}
	}
}

// promoteLocked moves a request that is queued for a higher class.
func (s *Scheduler) promoteLocked(r *request, class blockio.Class) {
	if r.started || class >= r.class {
		return
	}
	s.unqueueLocked(r)
	r.class = class
	s.queue[class] = append(s.queue[class], r)
}

func (s *Scheduler) unqueueLocked(r *request) {
	q := &s.queue[r.class]
	*q = slices.DeleteFunc(*q, func(other *request) bool { return other == r })
}

// fly receives r's blocks, then lets the next request start.
func (s *Scheduler) fly(r *request) {
	err := s.receive(r)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active--
	s.finishLocked(r, err)
	s.keepLocked(r)
	s.startLocked()
}

// receive reads r's range and hands out each block as it is complete.
func (s *Scheduler) receive(r *request) error {
	body, err := s.src.OpenRange(s.ctx, r.rng)
	if err != nil {
		return err
	}
	defer body.Close()
	r.buf = getBuffer(r.rng.Len)
	for _, b := range r.blocks {
		at := b.ext.Off - r.rng.Off
		stored := r.buf[at : at+b.ext.Len : at+b.ext.Len]
		if _, err := io.ReadFull(body, stored); err != nil {
			return err
		}
		b.stored = stored
		close(b.done)
	}
	return nil
}

// finished says that b's bytes have arrived, or never will.
func (b *block) finished() bool {
	select {
	case <-b.done:
		return true
	default:
		return false
	}
}

// finishLocked ends the blocks of r that have not arrived.
func (s *Scheduler) finishLocked(r *request, err error) {
	for _, b := range r.blocks {
		if !b.finished() {
			b.err = err
			s.condemnLocked(b, err)
			close(b.done)
		}
	}
}

// condemnLocked says that b is of no use, and why.
func (s *Scheduler) condemnLocked(b *block, why error) {
	b.dead, b.fail, b.failUntil = true, why, time.Now().Add(failTime)
}

// keepLocked keeps what r brought for readers still to come, in place of what
// arrived longest ago.
func (s *Scheduler) keepLocked(r *request) {
	s.kept = append(s.kept, r) // its user is no longer the flight but this list
	s.room -= r.rng.Len
	for s.room < 0 {
		old := s.kept[0]
		s.kept = s.kept[1:]
		s.room += old.rng.Len
		for _, b := range old.blocks {
			s.forgetLocked(b)
		}
		s.releaseLocked(old)
	}
}

func (s *Scheduler) forgetLocked(b *block) {
	if s.blocks[b.n] == b {
		delete(s.blocks, b.n)
	}
}

// leave ends what join began.
func (s *Scheduler) leave(b *block) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.releaseLocked(b.req)
}

// abandon leaves blocks that may still be flying, and calls then when they no
// longer are.
func (s *Scheduler) abandon(blocks []*block, then func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var flying []*block
	for _, b := range blocks {
		s.releaseLocked(b.req)
		if b.req.started && !b.finished() {
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

// releaseLocked drops one user of r. With the last goes its buffer, or its
// place in the queue.
func (s *Scheduler) releaseLocked(r *request) {
	if r.users--; r.users > 0 {
		return
	}
	if r.started {
		putBuffer(r.buf)
		return
	}
	s.unqueueLocked(r)
	for _, b := range r.blocks {
		s.forgetLocked(b)
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

// failing is why b is not worth waiting for now, nil if it is.
func (s *Scheduler) failing(b *block) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(b.failUntil) && (b.dead || !b.finished()) {
		return b.fail
	}
	return nil
}

// timedOut makes readers of blocks that have not arrived fail for a while: the
// kernel repeats a read that has just timed out.
func (s *Scheduler) timedOut(err error, blocks []*block) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, b := range blocks {
		if !b.finished() {
			b.fail, b.failUntil = err, time.Now().Add(failTime)
		}
	}
}

// reject says that b's bytes are bad. It returns the block's next copy, which
// the caller has joined.
func (s *Scheduler) reject(b *block) *block {
	s.mu.Lock()
	defer s.mu.Unlock()
	next := s.blocks[b.n]
	if next == nil || next == b {
		r := &request{rng: blockio.Range{Extent: blockio.Extent{Off: b.ext.Off}, Refetch: true}, class: blockio.Demand}
		next = s.addLocked(r, located{n: b.n, ext: b.ext})
		s.submitLocked(r)
	}
	next.req.users++
	return next
}

// condemn says that b's bytes are bad for the second time.
func (s *Scheduler) condemn(b *block, why error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.condemnLocked(b, why)
}

// errRange is for callers that ask for blocks that do not exist.
func errRange(first, count, blocks int64) error {
	return fmt.Errorf("blocks %d+%d of %d", first, count, blocks)
}
