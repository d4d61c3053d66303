package httpblock

import (
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// health says what a server is used for.
type health int

const (
	// joining: it has not been seen to have the same file.
	joining health = iota
	// healthy: it is used.
	healthy
	// left: it has failed, and is used only where no other is healthy.
	left
	// banned: it has another file, or has sent wrong bytes. It is never used again.
	banned
)

// group is the servers of one file, and who of them is used. It is safe for concurrent
// use.
type group struct {
	servers []*server
	first   *server // whose file the others have to have
	log     *slog.Logger
	ctx     context.Context // until close
	cancel  context.CancelFunc
	tenders sync.WaitGroup

	// mu guards the fields below, and health and what follows it of each server.
	mu     sync.Mutex
	pieces []blockio.Piece // of the file, which every server has to have
	best   *server         // who was chosen last for what a reader waits for
	chosen time.Time       // when any was chosen last
	looked time.Time       // when a server was measured last
	hedges hedges
	sent   sent
}

// newGroup returns the group of servers, of which first has responded.
func newGroup(servers []*server, first *server, log *slog.Logger) *group {
	g := &group{servers: servers, first: first, log: log, best: first}
	g.ctx, g.cancel = context.WithCancel(context.Background())
	first.health = healthy
	return g
}

// alone says that there is but one server: who it is does not matter then.
func (g *group) alone() bool { return len(g.servers) == 1 }

// close ends what goes on in the background. g may be nil.
func (g *group) close() {
	if g != nil {
		g.cancel()
		g.tenders.Wait()
	}
}

// preferred is who readers' requests go to.
func (g *group) preferred() *server {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.best
}

// joined returns those that have been seen to have the file.
func (g *group) joined() []*server {
	g.mu.Lock()
	defer g.mu.Unlock()
	return slices.DeleteFunc(slices.Clone(g.servers), func(v *server) bool { return v.health == joining || v.health == banned })
}

// overload is what it costs, in seconds, to send a server more requests at a time than it wants.
const overload = 1000

// stickiness is how much better than the one before a server has to be, for readers'
// requests to go there instead.
const stickiness = 0.75

// choose returns who gets the request for r: not one of tried; nil if there is nobody else.
func (g *group) choose(r blockio.Range, tried []*server) *server {
	if g.alone() {
		if len(tried) > 0 {
			return nil
		}
		return g.first
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.chosen = time.Now()
	for _, h := range []health{healthy, left} {
		if v := g.cheapestLocked(h, r, tried); v != nil {
			if r.Class == blockio.Demand && len(tried) == 0 {
				g.best = v
			}
			return v
		}
	}
	return nil
}

// cheapestLocked returns who of those in a state is likely to bring r first.
func (g *group) cheapestLocked(h health, r blockio.Range, tried []*server) (best *server) {
	fastest := 0.
	for _, v := range g.servers {
		fastest = max(fastest, v.speed.rate())
	}
	var least float64
	for _, v := range g.servers {
		if v.health != h || slices.Contains(tried, v) {
			continue
		}
		cost := v.speed.cost(r.Len, fastest)
		if v.speed.busy() >= v.count.allowed.Load() {
			cost += overload
		}
		if v == g.best && r.Class == blockio.Demand {
			cost *= stickiness
		}
		if best == nil || cost < least {
			best, least = v, cost
		}
	}
	return best
}

// another says whether a server other than v is healthy.
func (g *group) another(v *server) bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.anotherLocked(v)
}

func (g *group) anotherLocked(v *server) bool {
	return slices.ContainsFunc(g.servers, func(w *server) bool { return w != v && w.health == healthy })
}

const (
	// minSilence is the patience with one of several servers at first, if it is more than
	// silence times its latency; maxSilence bounds that.
	minSilence = time.Second
	silence    = 4
	maxSilence = 10 * time.Second
)

// patience is how long to wait for v, of the patience that is left, where so many servers
// have been tried.
func (g *group) patience(v *server, p patience, tried int) patience {
	if g.alone() {
		return p
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	p.stall = max(p.stall, min(maxSilence, silence*v.speed.latency()))
	usable := 0
	for _, w := range g.servers {
		if w.health == healthy || w.health == left {
			usable++
		}
	}
	return p.among(usable - tried)
}

// failed says that a request to v, made under ctx and with this patience, has come to
// nothing. If that was its own doing it is left, for a while.
func (g *group) failed(ctx context.Context, v *server, p patience, err error) {
	if g.alone() || ctx.Err() != nil || p.over() || errors.Is(err, errLimited) {
		return
	}
	g.mu.Lock()
	now := time.Now()
	if plea := pleaOf(err); plea > 0 {
		v.notBefore = now.Add(plea)
	}
	changed := v.health == healthy
	if changed {
		v.health, v.since = left, now
		v.wake()
	}
	g.mu.Unlock()
	if changed {
		g.log.Info("leaving a server for now", "url", v.shown(), "error", err)
	}
}

// succeeded says that v has brought something. Where others are healthy that heals it only
// when it is probed: a response may be to a request of before.
func (g *group) succeeded(v *server) {
	if g.alone() {
		return
	}
	g.mu.Lock()
	heals := v.health == left && !g.anotherLocked(v)
	g.mu.Unlock()
	if heals {
		g.heal(v)
	}
}

// heal has v used again if it was left.
func (g *group) heal(v *server) {
	g.mu.Lock()
	changed := v.health == left
	if changed {
		v.health, v.since = healthy, time.Now()
	}
	g.mu.Unlock()
	if changed {
		g.log.Info("using a server again", "url", v.shown())
	}
}

// usable says whether v may be used at all. v may be nil.
func (g *group) usable(v *server) bool {
	if v == nil {
		return false
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return v.health == healthy || v.health == left
}

// state says what v is used for, and what was wrong with it last, and when.
func (g *group) state(v *server, s blockio.Server) (state blockio.ServerState, why string, at time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case v.health == joining:
		return blockio.ServerJoining, s.LastError, s.LastErrorAt
	case v.health == left:
		return blockio.ServerLeft, s.LastError, s.LastErrorAt
	case v.health == banned:
		return blockio.ServerBanned, v.why.Error(), v.since
	case !s.OK:
		return blockio.ServerFailing, s.LastError, s.LastErrorAt
	}
	return blockio.ServerOK, s.LastError, s.LastErrorAt
}
