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
type hedges struct{ requests, made int64 }

// mayHedge says whether one more request may be made twice, and counts it.
func (g *group) mayHedge() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if (g.hedges.made+1)*hedgeShare > g.hedges.requests {
		return false
	}
	g.hedges.made++
	return true
}

// outcome is what became of an attempt at a server.
type outcome struct {
	srv *server
	*attempt
	err error
}

// attempt asks v for r. If a reader waits for it, and no response has begun when most would
// have, another server is asked for it as well: the first response counts.
func (g *group) attempt(ctx context.Context, v *server, r blockio.Range, p patience, tried []*server) outcome {
	late, known := v.speed.late()
	if g.alone() || r.Class != blockio.Demand || !known || !g.another(v) {
		return v.try(ctx, r, g.patience(v, p, len(tried)))
	}
	g.mu.Lock()
	g.hedges.requests++
	g.mu.Unlock()
	outcomes := make(chan outcome, 2)
	start := func(v *server) (cancel context.CancelFunc) {
		ctx, cancel := context.WithCancel(ctx)
		go func() {
			a := v.try(ctx, r, g.patience(v, p, len(tried)))
			if a.err != nil {
				cancel()
			} else {
				a.release = cancel
			}
			outcomes <- a
		}()
		return cancel
	}
	stop := map[*server]context.CancelFunc{v: start(v)}
	timer := time.NewTimer(late)
	defer timer.Stop()
	select {
	case a := <-outcomes:
		return a
	case <-timer.C:
	}
	other := g.choose(r, append(tried, v))
	if other == nil || !g.another(v) || !g.mayHedge() {
		return <-outcomes
	}
	stop[other] = start(other)
	a := <-outcomes
	if a.err != nil {
		second := <-outcomes
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
		if second := <-outcomes; second.err == nil {
			second.Close()
		}
	}()
	return a
}

// try asks v for r.
func (v *server) try(ctx context.Context, r blockio.Range, p patience) outcome {
	a, err := v.attempt(ctx, r, p)
	return outcome{v, a, err}
}
