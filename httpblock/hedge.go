package httpblock

import (
	"context"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// hedgeShare is how many readers' requests there are for each that is made twice.
const hedgeShare = 50

// hedges counts requests that readers wait for, and those that were made once more,
// elsewhere.
type hedges struct{ asked, made int64 }

// mayHedge says whether one more request may be made twice, and counts it.
func (g *group) mayHedge() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if (g.hedges.made+1)*hedgeShare > g.hedges.asked {
		return false
	}
	g.hedges.made++
	return true
}

// answer is the outcome of a request to a server.
type answer struct {
	srv *server
	*attempt
	err error
}

// request asks v for r. If a reader waits for it, and no answer has begun when most would
// have, another server is asked for it as well: the first answer counts.
func (g *group) request(ctx context.Context, v *server, r blockio.Range, p patience, tried []*server) answer {
	late, known := v.speed.late()
	if g.alone() || r.Class != blockio.Demand || !known || !g.another(v) {
		return v.answer(ctx, r, g.patience(v, p, len(tried)))
	}
	g.mu.Lock()
	g.hedges.asked++
	g.mu.Unlock()
	answers := make(chan answer, 2)
	start := func(v *server) (cancel context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		go func() {
			a := v.answer(ctx, r, g.patience(v, p, len(tried)))
			if a.err != nil {
				cancel()
			} else {
				a.release = cancel
			}
			answers <- a
		}()
		return cancel
	}
	stop := map[*server]context.CancelFunc{v: start(v)}
	timer := time.NewTimer(late)
	defer timer.Stop()
	select {
	case a := <-answers:
		return a
	case <-timer.C:
	}
	other := g.choose(r, append(tried, v))
	if other == nil || !g.another(v) || !g.mayHedge() {
		return <-answers
	}
	stop[other] = start(other)
	a := <-answers
	if a.err != nil {
		second := <-answers
		if second.err != nil && a.srv == v { // what is reported is v's: it is tried
			a, second = second, a
		}
		g.failed(ctx, a.srv, p, a.err)
		return second
	}
	for srv, cancel := range stop {
		if srv != a.srv {
			cancel()
		}
	}
	go func() {
		if second := <-answers; second.err == nil {
			second.Close()
		}
	}()
	return a
}

// answer asks v for r.
func (v *server) answer(ctx context.Context, r blockio.Range, p patience) answer {
	a, err := v.attempt(ctx, r, p)
	return answer{v, a, err}
}
