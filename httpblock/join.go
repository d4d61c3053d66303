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

// Piece is a piece of the file, as it is known to be.
type Piece struct {
	Off   int64
	Bytes []byte // a few kilobytes
}

// extent is where the piece lies.
func (p Piece) extent() blockio.Extent { return blockio.Extent{Off: p.Off, Len: int64(len(p.Bytes))} }

// ErrOtherFile says that a mirror has another file.
var ErrOtherFile = errors.New("not the same file")

// Join lets those servers in that have not answered when the file was opened: each as
// soon as it was found, in the background, to have a file of the same size with the same
// first bytes and these pieces. Who can't be reached is asked again, from time to time.
// Join is called once at most.
func (s *Source) Join(pieces []Piece) {
	g := s.group
	if g.alone() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.pieces = append(pieces, Piece{Bytes: s.first.head})
	for _, v := range g.servers {
		g.tenders.Go(func() { g.tend(v) })
	}
}

const (
	// minPause and maxPause bound the pauses after which a server that failed is asked
	// again. They double each time, and begin anew when it was well for maxPause.
	minPause = time.Second
	maxPause = 30 * time.Second
	// measureTime is how often a server is measured that is not asked for anything, while
	// others are, and measureSize how many bytes that takes.
	measureTime = 10 * time.Second
	measureSize = 64 << 10
)

// tend looks after v until the end: it lets it in, measures it, and asks it again after
// it was left.
func (g *group) tend(v *server) {
	pause := minPause
	first := true
	for {
		health, since := g.healthOf(v)
		wait := pause
		switch {
		case health == banned:
			return
		case health == healthy:
			wait = measureTime
		case first:
			wait = 0 // it was never asked
		}
		if !g.rest(v, wait) {
			return
		}
		first = false
		switch now, _ := g.healthOf(v); {
		case now == healthy:
			g.measure(v)
		case health == healthy: // it was left meanwhile
			if time.Since(since) > maxPause {
				pause = minPause
			}
		case now != banned:
			pause = min(2*pause, maxPause)
			g.ask(v)
		}
	}
}

// rest waits, or until v's health has changed for the worse. It says whether there is
// something left to do.
func (g *group) rest(v *server, d time.Duration) bool {
	select {
	case <-time.After(d):
	case <-v.woken:
	case <-g.ctx.Done():
		return false
	}
	return true
}

func (g *group) healthOf(v *server) (h health, since time.Time) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return v.health, v.since
}

// ask finds out whether v can be used, by now or again.
func (g *group) ask(v *server) {
	ctx, cancel := context.WithTimeout(g.ctx, resolveTime)
	defer cancel()
	p := patience{stall: stallTime(0)}
	health, _ := g.healthOf(v)
	var err error
	if health == joining {
		err = g.compare(ctx, v, p)
	} else {
		err = v.has(ctx, g.pieces[rand.IntN(len(g.pieces))], p)
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	switch {
	case errors.Is(err, ErrOtherFile):
		g.banLocked(v, err)
	case err == nil && v.health == joining:
		v.health, v.since = healthy, time.Now()
		g.log.Info("using a mirror", "url", v.shown())
	case err == nil:
		g.healLocked(v)
	case g.ctx.Err() == nil && v.health == joining:
		g.log.Info("a mirror can't be used now", "url", v.shown(), "error", err)
	}
}

// compare finds out whether v, which was never asked, has the file.
func (g *group) compare(ctx context.Context, v *server, p patience) error {
	if err := v.readHead(ctx, p); err != nil {
		return err
	}
	switch n := min(len(v.head), len(g.first.head)); {
	case v.pin.size != g.first.pin.size:
		return fmt.Errorf("%w (size %d, not %d)", ErrOtherFile, v.pin.size, g.first.pin.size)
	case !bytes.Equal(v.head[:n], g.first.head[:n]):
		return fmt.Errorf("%w (its first bytes differ)", ErrOtherFile)
	}
	for _, piece := range g.pieces {
		if err := v.has(ctx, piece, p); err != nil {
			return err
		}
	}
	return nil
}

// has finds out whether v has a piece.
func (v *server) has(ctx context.Context, piece Piece, p patience) error {
	got, err := v.read(ctx, piece.extent(), p)
	if err == nil && !bytes.Equal(got, piece.Bytes) {
		err = fmt.Errorf("%w (bytes %d+%d differ)", ErrOtherFile, piece.Off, len(piece.Bytes))
	}
	return err
}

// measure reads a little from v, if it was not asked for long while others were.
func (g *group) measure(v *server) {
	g.mu.Lock()
	idle := time.Since(g.asked) > measureTime || time.Since(v.speed.measured()) < measureTime
	g.mu.Unlock()
	if idle {
		return
	}
	n := min(measureSize, g.first.pin.size)
	e := blockio.Extent{Off: rand.Int64N(g.first.pin.size - n + 1), Len: n}
	if _, err := v.read(g.ctx, e, g.patience(v, patience{stall: stallTime(0)})); err != nil && g.ctx.Err() == nil {
		g.failed(v, err)
	}
}

// banLocked has v never asked again.
func (g *group) banLocked(v *server, why error) {
	if v.health == banned {
		return
	}
	v.health, v.since, v.why = banned, time.Now(), why
	v.wake()
	g.log.Warn("a server is not used any more", "url", v.shown(), "error", why)
}
