package httpblock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// attempt is one request to a server and its response, given up when patience ends.
type attempt struct {
	srv      *server
	ctx      context.Context // of the request; its cause says that it was given up
	cancel   context.CancelCauseFunc
	timer    *time.Timer
	patience patience
	body     io.ReadCloser
	header   http.Header
	span     span
	left     int64         // bytes of span that have not been read
	least    int           // bytes that have to arrive for the patience to begin anew
	waited   time.Duration // for these, of the patience
	progress int           // bytes that have arrived meanwhile
	sample   sampling
	pace     pace
	release  func() // at the end; may be nil
	owed     int    // bytes that have been read and not been waited for
}

// newAttempt returns an attempt whose patience begins to run. Close it.
func (v *server) newAttempt(ctx context.Context, p patience) *attempt {
	a := &attempt{srv: v, patience: p, least: minProgress, pace: pace{of: &v.speed}}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	a.timer = time.AfterFunc(p.wait(), func() {
		// Those that are kept may be dead, too: a router between forgets them all.
		v.transports.closeIdle()
		a.cancel(errStalled)
	})
	return a
}

// attempt asks for r where the file was found last. If it seems to have moved,
// the redirects are followed anew, and r asked for there.
func (v *server) attempt(ctx context.Context, r blockio.Range, p patience) (*attempt, error) {
	pl := v.where()
	a, err := v.attemptAt(ctx, pl, r, p)
	if !v.moved(ctx, pl, err) {
		return a, err
	}
	if pl, err = v.resolve(ctx, pl, p); err != nil {
		return nil, err
	}
	return v.attemptAt(ctx, pl, r, p)
}

// attemptAt asks for r at pl, and for nothing else.
func (v *server) attemptAt(ctx context.Context, pl *place, r blockio.Range, p patience) (*attempt, error) {
	if r.Refetch {
		v.samples.forget(r.Extent)
	}
	a := v.newAttempt(ctx, p)
	a.pace.expect(r.Len)
	begin := time.Now()
	resp, err := v.request(a.ctx, pl.url, rangeOf(r.Extent), r.Refetch)
	if err == nil {
		err = a.take(resp, r.Extent, pl.pin)
	}
	if err != nil {
		a.fail(ctx, err)
		return nil, err
	}
	v.speed.responded(time.Since(begin))
	a.sample.begin(&v.samples, a.span)
	a.pause()
	return a, nil
}

// take judges the response to a request for e, and makes it a's.
func (a *attempt) take(resp *http.Response, e blockio.Extent, pin *pinned) (err error) {
	a.body, a.header = resp.Body, resp.Header
	a.span, err = judge(resp, e.Off, e.Len, pin)
	a.left = a.span.n
	return err
}

// fail closes an attempt that brought no data because of err.
func (a *attempt) fail(ctx context.Context, err error) {
	if ctx.Err() == nil {
		a.srv.count.failure(err)
	}
	a.Close()
}

// minProgress is how many bytes have to arrive at least for the patience to begin anew: with
// one now and then a response would keep its readers waiting, where the next might come at once.
const minProgress = 256

// renew lets what is left of the patience run, until pause: what the reader does between
// two reads is no fault of the server.
func (a *attempt) renew() { a.timer.Reset(min(a.patience.stall-a.waited, a.patience.wait())) }

func (a *attempt) pause() { a.timer.Stop() }

// arrived notes that n bytes have arrived after a wait.
func (a *attempt) arrived(n int, wait time.Duration) {
	a.left -= int64(n)
	a.pace.moved(n, wait)
	a.waited += wait
	if a.progress += n; a.progress >= a.least {
		a.waited, a.progress = 0, 0
	}
}

// Read reads the response's body, at most to the end of its range.
func (a *attempt) Read(p []byte) (int, error) {
	if a.left == 0 {
		return 0, io.EOF
	}
	p = p[:min(int64(len(p)), a.left)]
	if limit := a.srv.limit; limit != nil {
		p = p[:min(len(p), limit.Burst())]
		if err := a.await(); err != nil {
			return 0, err
		}
	}
	a.renew()
	begin := time.Now()
	n, err := a.body.Read(p)
	a.pause()
	a.arrived(n, time.Since(begin))
	a.owed = n
	a.sample.add(p[:n])
	count := &a.srv.count
	count.received(n)
	switch {
	case err == io.EOF && a.left > 0:
		count.failure(io.ErrUnexpectedEOF)
	case err != nil && err != io.EOF:
		err = cause(a.ctx, err)
		if !errors.Is(err, context.Canceled) {
			count.failure(err)
		}
	}
	return n, err
}

// errLimited is why nothing is read where the user's own limit does not allow it in time.
var errLimited = errors.New("more than the rate limit allows")

// await waits for the limit to allow what was read last.
func (a *attempt) await() error {
	n := a.owed
	a.owed = 0
	if err := a.srv.limit.WaitN(a.ctx, n); err != nil {
		return fmt.Errorf("%w: %w", errLimited, err)
	}
	return nil
}

func (a *attempt) Close() {
	a.timer.Stop()
	if a.body != nil {
		a.body.Close()
	}
	a.pace.end()
	a.cancel(nil)
	if a.release != nil {
		a.release()
	}
}
