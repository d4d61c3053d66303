package httpblock

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/cenkalti/backoff/v5"
)

// patience is how long to wait for data.
type patience struct {
	stall time.Duration // an attempt is given up after so long without a byte
	until time.Time     // no wait goes on beyond this; zero means no bound
}

// wait is how long to wait from now.
func (p patience) wait() time.Duration {
	if p.until.IsZero() {
		return p.stall
	}
	return min(p.stall, time.Until(p.until))
}

// over says that there is no patience left.
func (p patience) over() bool { return !p.until.IsZero() && !time.Now().Before(p.until) }

// among is the patience with the first of n servers that are to be tried one after the
// other.
func (p patience) among(n int) patience {
	if n > 1 && !p.until.IsZero() {
		p.stall = min(p.stall, time.Until(p.until)/time.Duration(n))
	}
	return p
}

// maxDoublings bounds how the patience with a server grows: to five minutes.
const maxDoublings = 5

// stallTime is the patience with a first attempt: short enough for another
// within the timeout. After one that took so long the next gets twice as much, for
// servers that are slow to respond; not after one that failed sooner: that says
// nothing of them, and so long an answer that drips would be borne.
func stallTime(timeout time.Duration) time.Duration {
	if timeout == 0 {
		return 10 * time.Second
	}
	return max(time.Second, min(10*time.Second, timeout/3))
}

// bound ends a context when there is no patience left, and after resolveTime.
func (p patience) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	until := time.Now().Add(resolveTime)
	if !p.until.IsZero() && p.until.Before(until) {
		until = p.until
	}
	return context.WithDeadlineCause(ctx, until, errStalled)
}

// giveUp is when to stop trying if nothing has arrived since start; zero means
// never.
func (s *Source) giveUp(start time.Time) time.Time {
	if s.opt.Timeout == 0 {
		return time.Time{}
	}
	return start.Add(s.opt.Timeout)
}

// retry calls try until it succeeds, fails for good, or Timeout has passed
// since start.
func (s *Source) retry(ctx context.Context, start time.Time, try func(patience) (int, error)) (int, error) {
	until, slow := s.giveUp(start), 0
	if !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, until, errStalled)
		defer cancel()
	}
	var last error
	n, err := backoff.Retry(ctx, func() (int, error) {
		begin, p := time.Now(), patience{stall: s.stall << min(slow, maxDoublings), until: until}
		n, err := try(p)
		if err == nil {
			return n, nil
		}
		if time.Since(begin) >= p.stall {
			slow++
		}
		if last == nil || !errors.Is(err, errStalled) {
			last = err // being cut short at the end says less than what was wrong before
		}
		plea := pleaOf(err)
		if most := time.Until(until) - s.stall; !until.IsZero() && most > 0 {
			plea = min(plea, most) // it is asked once more, in the end
		}
		switch {
		case permanent(err, s.first == nil):
			return n, backoff.Permanent(err)
		case plea > 0:
			return n, &backoff.RetryAfterError{Duration: plea}
		}
		return n, err
	}, backoff.WithBackOff(newBackOff(s.opt.Timeout)), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(_ error, d time.Duration) {
			s.opt.Logger.Debug("asking again", "url", s.servers[0].shown(), "in", d, "error", last)
		}))
	switch {
	case err == nil:
		return n, nil
	case ctx.Err() == nil: // permanent
		return n, last
	case errors.Is(context.Cause(ctx), errStalled):
		return n, fmt.Errorf("gave up after %v: %w", s.opt.Timeout, last)
	default: // not err: that may be the cause, which need not wrap ctx.Err()
		return n, ctx.Err()
	}
}

// worse is the error of who could get the file neither here (err) nor where that failed
// before: the one after which another request may help, and sooner, else the first.
func (s *Source) worse(before, err error) error {
	opening := s.first == nil
	switch {
	case before == nil, permanent(before, opening) && !permanent(err, opening):
		return err
	case !permanent(err, opening) && pleaOf(err) < pleaOf(before):
		return err
	}
	return before
}

// pleaOf is how long who failed asks to wait; 0 if he does not.
func pleaOf(err error) time.Duration {
	if status, ok := errors.AsType[*StatusError](err); ok {
		return status.RetryAfter
	}
	return 0
}

// newBackOff makes the pauses between attempts: short at first, for a lost
// connection, and never so long that the end of an outage goes unnoticed, or a
// good part of the timeout is over before it is noticed.
func newBackOff(timeout time.Duration) backoff.BackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = 100 * time.Millisecond
	b.Multiplier = 2
	b.MaxInterval = 2 * time.Second
	if timeout > 0 {
		b.MaxInterval = min(b.MaxInterval, max(b.InitialInterval, timeout/5))
	}
	return b
}
