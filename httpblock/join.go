package httpblock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// errOtherFile says that a mirror has another file.
var errOtherFile = errors.New("not the same file")

// compare returns errOtherFile if got is not what the piece is.
func compare(piece blockio.Piece, got []byte) error {
	if !bytes.Equal(got, piece.Bytes) {
		return fmt.Errorf("%w (bytes %d+%d differ)", errOtherFile, piece.Off, len(piece.Bytes))
	}
	return nil
}

// Join lets those servers in that have not responded when the file was opened: each as
// soon as it was found, in the background, to have a file of the same size with the same
// first bytes and these pieces. Who can't be reached is tried again, from time to time.
// Join is called once at most.
func (s *Source) Join(pieces []blockio.Piece) {
	g := s.group
	if g.alone() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pieces = append([]blockio.Piece{{Bytes: s.first.head}}, pieces...)
	for _, v := range g.servers {
		g.tenders.Go(func() { g.tend(v) })
	}
}

const (
	// minPause and maxPause bound the pauses after which a server that failed is probed
	// again. They double each time, and begin anew when it was well for maxPause.
	minPause = time.Second
	maxPause = 30 * time.Second
	// measureTime is how often one server is measured of those that get no
	// requests, while others do, and measureSize how many bytes that takes.
	measureTime = 10 * time.Second
	measureSize = 64 << 10
)

// tend looks after v until the end: it lets it in, measures it, and probes it after
// it was left.
func (g *group) tend(v *server) {
	pause := time.Duration(0) // it was never tried
	for {
		health, since, notBefore := g.healthOf(v)
		wait := max(pause, time.Until(notBefore))
		var woken <-chan struct{} // nil: what it might say is known
		switch {
		case health == banned:
			return
		case health == healthy:
			wait, woken = g.untilMeasured(v), v.woken
		}
		if !g.rest(wait, woken) {
			return
		}
		switch now, _, _ := g.healthOf(v); {
		case now == healthy:
			g.measure(v)
		case health == healthy: // it was left meanwhile
			if time.Since(since) > maxPause {
				pause = minPause
			}
		case now != banned:
			pause = min(max(2*pause, minPause), maxPause)
			g.probe(v)
		}
	}
}

// rest waits, or until there is a word from woken. It says whether there is something left
// to do.
func (g *group) rest(d time.Duration, woken <-chan struct{}) bool {
	select {
	case <-time.After(d):
	case <-woken:
	case <-g.ctx.Done():
		return false
	}
	return true
}

func (g *group) healthOf(v *server) (h health, since, notBefore time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return v.health, v.since, v.notBefore
}

// probe finds out whether v can be used, by now or again.
func (g *group) probe(v *server) {
	ctx, cancel := context.WithTimeout(g.ctx, resolveTime)
	defer cancel()
	p := patience{stall: stallTime(0)}
	if health, _, _ := g.healthOf(v); health == joining {
		g.letIn(v, g.compare(ctx, v, p))
		return
	}
	switch err := v.has(ctx, g.pieces[rand.IntN(len(g.pieces))], p); {
	case err == nil:
		g.heal(v)
	case errors.Is(err, errOtherFile):
		g.ban(v, err)
	}
}

// letIn has v used if err, the outcome of a comparison, is nil.
func (g *group) letIn(v *server, err error) {
	if errors.Is(err, errOtherFile) {
		g.ban(v, err)
		return
	}
	g.mu.Lock()
	tell := err == nil || !v.told && g.ctx.Err() == nil
	v.told = true
	if err == nil {
		v.health, v.since = healthy, time.Now()
	}
	g.mu.Unlock()
	switch {
	case !tell:
	case err == nil:
		g.log.Info("using a mirror", "url", v.shown())
	default:
		g.log.Info("a mirror can't be used yet", "url", v.shown(), "error", err)
	}
}

// compare finds out whether v, which was never used, has the file.
func (g *group) compare(ctx context.Context, v *server, p patience) error {
	if err := v.readHead(ctx, p); err != nil {
		return err
	}
	if v.pin.size != g.first.pin.size {
		return fmt.Errorf("%w (size %d, not %d)", errOtherFile, v.pin.size, g.first.pin.size)
	}
	for _, piece := range g.pieces {
		var err error
		if e := piece.Extent(); e.End() <= int64(len(v.head)) {
			err = compare(piece, v.head[e.Off:e.End()])
		} else {
			err = v.has(ctx, piece, p)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// has asks v for a piece, and compares it.
func (v *server) has(ctx context.Context, piece blockio.Piece, p patience) error {
	got, err := v.read(ctx, piece.Extent(), p)
	if err != nil {
		return err
	}
	return compare(piece, got)
}

// untilMeasured is when to look whether v, which is healthy, has to be measured.
func (g *group) untilMeasured(v *server) time.Duration {
	if d := time.Until(v.speed.measured().Add(measureTime)); d > 0 {
		return d
	}
	return measureTime // there are no requests, or another was measured
}

// measure reads a little from v, if it had no request for long while others had, and no
// other server has just been measured: all of that is for nobody.
func (g *group) measure(v *server) {
	g.mu.Lock()
	idle := time.Since(g.chosen) > measureTime || time.Since(v.speed.measured()) < measureTime
	if idle || v.limit != nil || time.Since(g.looked) < measureTime {
		g.mu.Unlock()
		return
	}
	g.looked = time.Now()
	g.mu.Unlock()
	ctx, cancel := context.WithTimeout(g.ctx, measureTime) // who takes that long has been measured
	defer cancel()
	n := min(measureSize, g.first.pin.size)
	e := blockio.Extent{Off: rand.Int64N(g.first.pin.size - n + 1), Len: n}
	p := patience{stall: stallTime(0)}
	if _, err := v.read(ctx, e, g.patience(v, p, 0)); err != nil {
		g.failed(ctx, v, p, err)
	}
}

// ban has v never used again, unless it is in use, and no other is well: then there is nobody
// who knows better.
func (g *group) ban(v *server, why error) {
	g.mu.Lock()
	changed := v.health != banned && (v.health == joining || g.anotherLocked(v))
	if changed {
		v.health, v.since, v.why = banned, time.Now(), why
		v.wake()
	}
	g.mu.Unlock()
	if changed {
		g.log.Warn("a server is not used any more", "url", v.shown(), "error", why)
	}
}
