package fetch

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

const (
	// lookAhead is how many requests of the largest size a run may be ahead
	// of what has been delivered.
	lookAhead = 8
	// maxAhead is how many blocks that may be: they can be very small. A request of the
	// pump has no more, and as many are kept.
	maxAhead = 4096
)

// ReadRun reads the stored blocks [first, first+count); see [blockio.Runs]. It
// delivers them in order, from the caller's goroutine; to readers (blockio.Demand) also
// several at a time, in any order, where they are at hand. An error is a
// *blockio.BlockError where it belongs to one block; those before it have been delivered.
func (s *Scheduler) ReadRun(ctx context.Context, class blockio.Class, first, count int64,
	deliver func(n int64, stored []byte) error,
) error {
	if first < 0 || count < 0 || first > s.ext.Blocks()-count {
		return errRange(first, count, s.ext.Blocks())
	}
	if class == blockio.Demand && count > 0 {
		s.wanted(first, count)
	}
	r := runs.Get().(*run)
	r.call = call{s: s, ctx: ctx, class: class, budget: &s.demand, next: first, end: first + count}
	if class > blockio.Demand {
		r.budget = &s.others
	}
	defer r.close()
	for {
		if err := r.lookAhead(); err != nil {
			return err
		}
		if len(r.ahead) == 0 {
			return r.lost
		}
		r.together(deliver)
		if err := r.serve(deliver); err != nil {
			return err
		}
	}
}

// wanted notes that a reader wants blocks.
func (s *Scheduler) wanted(first, count int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.policy.idle() {
		return
	}
	s.policy.wanted(time.Now(), first, count)
	s.more = true
	s.wakeLocked()
}

// run is one call of ReadRun, and what it works with.
type run struct {
	call
	found []located // by lookAhead
	all   []*block  // in front of ahead there are those that were served
	local []block   // of those in the store
	tried []trial   // what together has made of the first blocks ahead
}

// call is what is new with each call.
type call struct {
	s         *Scheduler
	ctx       context.Context // of the call
	class     blockio.Class
	budget    *budget
	next, end int64    // blocks that have not been joined
	lost      error    // why the block at end can't be located, if it is one of the run's
	ahead     []*block // joined, not served
	bytes     int64    // of the buffers for ahead
	reserved  int64    // of the budget
}

// runs are recycled, so that what is at hand is read without making garbage.
var runs = sync.Pool{New: func() any { return new(run) }}

// lookAhead joins the next blocks, as many as may be under way at a time.
func (r *run) lookAhead() error {
	limit := min(lookAhead*r.s.opt.MaxRequest, r.budget.size)
	if r.next == r.end || r.bytes > limit/2 || len(r.ahead) > maxAhead/2 {
		return nil
	}
	found := r.found[:0]
	bytes := int64(0)
	for n := r.next; n < r.end && len(found) < maxAhead/2; n++ {
		l, err := r.s.locate(r.ctx, n)
		if err != nil && r.ctx.Err() != nil {
			return err // nobody waits for those before it
		}
		if err != nil {
			r.end, r.lost = n, err // for when those before it have been delivered
			break
		}
		size := r.share(l.ext, l.local)
		if len(found) > 0 && r.bytes+bytes+size > limit {
			break
		}
		found = append(found, l)
		bytes += size
	}
	r.found = found
	if len(found) == 0 {
		return nil
	}
	if ok, err := r.reserve(bytes); !ok {
		return err
	}
	r.letGo()
	done := r.done()
	r.all, r.local = r.s.join(r.class, found, r.all, r.local)
	r.ahead = r.all[done:]
	r.next += int64(len(found))
	r.bytes += bytes
	return nil
}

// letGo forgets what was served, when that is most of what there was.
func (r *run) letGo() {
	done := r.done()
	if done < len(r.ahead) {
		return
	}
	r.tried = append(r.tried[:0], r.tried[min(done, len(r.tried)):]...)
	n := copy(r.all, r.ahead)
	clear(r.all[n:])
	r.all = r.all[:n]
	r.ahead = r.all
	if n == 0 {
		r.local = r.local[:0]
	}
}

// done is how many of r.all were served.
func (r *run) done() int { return len(r.all) - len(r.ahead) }

// close leaves the blocks that were not delivered. Their part of the budget is
// given back when the flights that go on without this reader have ended.
func (r *run) close() {
	if len(r.ahead) > 0 {
		r.s.abandon(r.ahead, func() { r.unreserve(r.reserved) })
		return
	}
	clear(r.all)
	r.call = call{}
	runs.Put(r)
}

// serve delivers the first block ahead, and fetches it once more if its bytes
// turn out to be bad.
func (r *run) serve(deliver func(n int64, stored []byte) error) error {
	b := &r.ahead[0]
	if r.trial(0) == given || (*b).local && r.serveLocal(b, deliver) {
		r.served(*b, deliver)
		return nil
	}
	if (*b).local {
		return blockError((*b).n, r.ctx.Err())
	}
	for {
		stored, err := r.s.wait(r.ctx, *b)
		if err != nil && r.ctx.Err() == nil && (*b).ahead() {
			// It was asked for before this reader came: he has more time.
			r.put(b, r.s.retry(*b, r.class))
			continue
		}
		if err != nil {
			return blockError((*b).n, err)
		}
		if deliver != nil {
			err = deliver((*b).n, stored)
		}
		if err == nil {
			if deliver != nil {
				r.s.blame(*b)
			}
			r.served(*b, deliver)
			return nil
		}
		if (*b).req == nil || (*b).req.rng.Refetch {
			r.s.forget(*b)
			err = blockError((*b).n, err)
			r.s.condemn(*b, err)
			return err
		}
		r.put(b, r.s.reject(*b)) // which may be another reader's, and bad as well
	}
}

// put puts another copy into the place of the first block ahead.
func (r *run) put(b **block, next *block) {
	r.s.leave(*b, false)
	*b = next
}

// serveLocal delivers the first block ahead from the store. If the store does not
// have it any more, or only bad bytes, it puts a flight in the block's place.
func (r *run) serveLocal(b **block, deliver func(n int64, stored []byte) error) (served bool) {
	if deliver == nil {
		return true
	}
	here, good := r.giveStored(*b, deliver)
	switch {
	case !here && r.ctx.Err() == nil:
		r.missed()
	case !here: // nobody waits for it any more
	case !good:
		r.flies(*b)
		*b = r.s.reject(*b)
	}
	return good
}

// missed puts flights in the place of the first block ahead, which the store does
// not have after all, and of those behind it that it may not have either: stores throw
// large stretches away, and one request is less than many. What is there the flights take
// from the store.
func (r *run) missed() {
	var gone []located
	for i, b := range r.ahead {
		if !b.local || r.trial(i) == given || !r.flies(b) {
			break
		}
		gone = append(gone, located{n: b.n, ext: b.ext})
	}
	joined, _ := r.s.join(r.class, gone, nil, nil)
	copy(r.ahead, joined)
}

// served leaves the first block ahead, which has been delivered. Who fills only compares:
// that is no use of it.
func (r *run) served(b *block, deliver func(n int64, stored []byte) error) {
	read := deliver != nil && r.class != blockio.Fill
	switch {
	case b.req != nil:
		r.s.leave(b, read)
	case read:
		r.s.readLocal(b)
	}
	size := r.share(b.ext, b.local)
	r.bytes -= size
	r.unreserve(size)
	r.ahead = r.ahead[1:]
	if len(r.ahead) == 0 {
		// A copy that took the place of another may be shorter: the index has been read anew.
		r.unreserve(r.reserved)
		r.bytes = 0
	}
}

// blockError says that err happened to block n, unless it says so itself.
func blockError(n int64, err error) error {
	if _, ok := errors.AsType[*blockio.BlockError](err); ok {
		return err
	}
	return &blockio.BlockError{Block: n, Err: err}
}
