package httpblock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// stream reads a range, through as many requests as that takes. It is not safe
// for concurrent use.
type stream struct {
	ctx     context.Context // of OpenRange: it bounds every request of the stream
	src     *Source
	left    blockio.Range // what has not been read yet
	avoid   *server       // who is tried last: he has sent it wrong; may be nil
	attempt *attempt      // nil: the next Read makes a request
	crawls  int           // answers that were given up after a part had come
}

func (st *stream) Read(buf []byte) (int, error) {
	if st.left.Len == 0 {
		return 0, io.EOF
	}
	if len(buf) == 0 {
		return 0, nil
	}
	buf = buf[:min(int64(len(buf)), st.left.Len)]
	start := time.Now()
	if st.attempt != nil {
		st.attempt.patience.until = st.src.giveUp(start)
		n, err := st.readOnce(buf, st.attempt.patience)
		if err == nil {
			return n, nil
		} // an error is a reason for another request
		if errors.Is(err, errStalled) {
			st.crawls++
		}
	}
	return st.src.retry(st.ctx, start, func(p patience) (int, error) {
		begins := st.attempt == nil
		if begins {
			a, err := st.src.attempt(st.ctx, st.left, p, st.avoid)
			if err != nil {
				return 0, err
			}
			st.attempt = a
		}
		n, err := st.readOnce(buf, p)
		if begins && st.attempt != nil {
			st.begun(p.until)
		}
		return n, err
	})
}

// begun says that a body has begun to come. However late that was, it is not to pause for
// longer than that of a first attempt, nor to crawl; but each that was given up for that asks
// for a quarter as much of the next: perhaps there is nothing better.
func (st *stream) begun(until time.Time) {
	a := st.attempt
	a.patience = st.src.group.patience(a.srv, patience{stall: st.src.stall, until: until}, 0)
	a.least = max(minProgress, a.srv.speed.least(a.patience.stall)>>min(2*st.crawls, 30))
	a.waited, a.progress = 0, 0
}

// readOnce reads from the response at hand. It fails if that brings nothing
// more, and then drops it.
func (st *stream) readOnce(buf []byte, p patience) (int, error) {
	srv := st.attempt.srv
	n, err := st.attempt.Read(buf)
	st.left.Off += int64(n)
	st.left.Len -= int64(n)
	if err != nil || st.attempt.left == 0 {
		st.drop()
	}
	if n > 0 {
		return n, nil
	}
	if err == nil || err == io.EOF {
		err = fmt.Errorf("the answer ended %d bytes early", st.left.Len)
	}
	st.src.group.failed(st.ctx, srv, p, err)
	return 0, err
}

// errNobody is what a reader gets when each server has shown that it has another file.
var errNobody = fmt.Errorf("%w (no server has the file that was opened)", ErrChanged)

// attempt asks for r: the server that is likely to bring it first or, if that fails, the
// next, and at the end the one to be avoided, if there is one.
func (s *Source) attempt(ctx context.Context, r blockio.Range, p patience, avoid *server) (*attempt, error) {
	var tried []*server
	if avoid != nil {
		tried = append(tried, avoid)
	}
	var failed error
	for {
		v := s.group.choose(r, tried)
		if v == nil && s.group.usable(avoid) {
			v, avoid = avoid, nil
		}
		switch {
		case v == nil && failed == nil:
			return nil, errNobody
		case v == nil, failed != nil && (ctx.Err() != nil || p.over()):
			return nil, failed
		}
		a := s.group.attempt(ctx, v, r, p, tried)
		if a.err == nil {
			s.group.note(a.span.extent(), a.srv)
			s.group.succeeded(a.srv)
			return a.attempt, nil
		}
		s.group.failed(ctx, a.srv, p, a.err)
		tried = append(tried, v)
		failed = s.worse(failed, a.err)
	}
}

func (st *stream) drop() {
	if st.attempt != nil {
		st.attempt.Close()
		st.attempt = nil
	}
}

// Close ends the stream. A response that has not been read to its end takes
// its connection with it.
func (st *stream) Close() error {
	st.drop()
	return nil
}
