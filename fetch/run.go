package fetch

import (
	"context"
	"errors"

	"github.com/cloopfs/cloopfs/blockio"
)

const (
	// lookAhead is how many requests of the largest size a run may be ahead
	// of what has been delivered.
	lookAhead = 8
	// maxAhead is how many blocks that may be: they can be very small.
	maxAhead = 4096
)

// ReadRun reads the stored blocks [first, first+count); see [blockio.Runs]. It
// delivers them in order, from the caller's goroutine. An error is a
// *blockio.BlockError where it belongs to one block.
func (s *Scheduler) ReadRun(ctx context.Context, class blockio.Class, first, count int64,
	deliver func(n int64, stored []byte) error,
) error {
	if first < 0 || count < 0 || first > s.ext.Blocks()-count {
		return errRange(first, count, s.ext.Blocks())
	}
	r := run{s: s, ctx: ctx, class: class, next: first, end: first + count}
	defer func() { s.leave(r.ahead...) }()
	for {
		if err := r.lookAhead(); err != nil {
			return err
		}
		if len(r.ahead) == 0 {
			return nil
		}
		if err := r.serve(deliver); err != nil {
			return err
		}
	}
}

// run is one call of ReadRun.
type run struct {
	s         *Scheduler
	ctx       context.Context // of the call
	class     blockio.Class
	next, end int64    // blocks that have not been joined
	ahead     []*block // joined, not delivered
	bytes     int64    // of ahead
}

// lookAhead joins the next blocks, as many as may be under way at a time.
func (r *run) lookAhead() error {
	limit := lookAhead * r.s.opt.MaxRequest
	if r.next == r.end || r.bytes > limit/2 || len(r.ahead) > maxAhead/2 {
		return nil
	}
	var found []located
	for ; r.next < r.end && (len(found) == 0 || r.bytes < limit && len(found) < maxAhead/2); r.next++ {
		ext, err := r.s.ext.Extent(r.ctx, r.next)
		if err != nil {
			return &blockio.BlockError{Block: r.next, Err: err}
		}
		found = append(found, located{n: r.next, ext: ext})
		r.bytes += ext.Len
	}
	r.ahead = append(r.ahead, r.s.join(r.class, found)...)
	return nil
}

// serve delivers the first block ahead, and fetches it once more if its bytes
// turn out to be bad.
func (r *run) serve(deliver func(n int64, stored []byte) error) error {
	b := &r.ahead[0]
	for again := false; ; again = true {
		stored, err := r.s.wait(r.ctx, *b)
		if err != nil {
			if errors.Is(r.ctx.Err(), context.DeadlineExceeded) {
				r.s.timedOut(err, r.ahead)
			}
			return blockError((*b).n, err)
		}
		if deliver != nil {
			err = deliver((*b).n, stored)
		}
		if err == nil {
			r.bytes -= (*b).ext.Len
			r.s.leave(*b)
			r.ahead = r.ahead[1:]
			return nil
		}
		if again || (*b).req.rng.Refetch {
			err = blockError((*b).n, err)
			r.s.condemn(*b, err)
			return err
		}
		next := r.s.reject(*b)
		r.s.leave(*b)
		*b = next
	}
}

// blockError says that err happened to block n, unless it says so itself.
func blockError(n int64, err error) error {
	var be *blockio.BlockError
	if errors.As(err, &be) {
		return err
	}
	return &blockio.BlockError{Block: n, Err: err}
}
