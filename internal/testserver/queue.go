package testserver

import (
	"bytes"
	"slices"
	"time"
)

// entry is a piece of a body that waits for room in the line's queue.
type entry struct {
	ready  time.Time // when it came to the line
	n      int       // bytes, at most buffer
	first  bool      // of its response
	rate   int64     // bytes per second
	buffer int64     // bytes
	leaves chan time.Time
}

// enter lets e wait for room, first pieces before others. Once it is in the queue
// e.leaves gets the time when the last of its bytes leaves.
func (l *line) enter(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	i := len(l.waiting)
	if e.first {
		for i > 0 && !l.waiting[i-1].first {
			i--
		}
	}
	l.waiting = slices.Insert(l.waiting, i, e)
	l.admit()
}

// withdraw ends the waiting of e, if it still waits.
func (l *line) withdraw(e *entry) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if i := slices.Index(l.waiting, e); i >= 0 {
		l.waiting = slices.Delete(l.waiting, i, i+1)
		l.admit()
	}
}

// admit puts into the queue what there is room for, and comes back when there is
// room for the next.
func (l *line) admit() {
	now := time.Now()
	for len(l.waiting) > 0 {
		e := l.waiting[0]
		leaves := later(l.free, e.ready).Add(transfer(int64(e.n), e.rate))
		// What is in the queue, e among it, takes that long to leave.
		if wait := leaves.Sub(now) - transfer(e.buffer, e.rate); wait > 0 {
			l.admitIn(wait)
			return
		}
		l.free = leaves
		l.waiting = slices.Delete(l.waiting, 0, 1)
		e.leaves <- leaves
	}
}

// admitIn calls admit later.
func (l *line) admitIn(wait time.Duration) {
	if l.room != nil {
		l.room.Reset(wait)
		return
	}
	l.room = time.AfterFunc(wait, func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.admit()
	})
}

// piece is a part of a body that is in the line's queue.
type piece struct {
	data   []byte
	leaves time.Time
}

// enqueue puts some of the next bytes of the body, p, into the line's queue when
// there is room, and returns how many.
func (x *exchange) enqueue(cfg *Config, p []byte) (int, error) {
	n, err := x.toLine(cfg, len(p))
	if err != nil {
		return 0, err
	}
	e := &entry{
		ready: x.due, n: n, first: !x.begun,
		rate: cfg.Rate, buffer: cfg.Buffer, leaves: make(chan time.Time, 1),
	}
	x.srv.line.enter(e)
	leaves, err := x.await(e.leaves)
	if err != nil {
		x.srv.line.withdraw(e)
		return 0, err
	}
	x.begun = true
	x.window.sent(time.Now())
	x.queued = append(x.queued, piece{bytes.Clone(x.damage(p[:n])), leaves})
	return n, nil
}

// await returns what c gets, or an error if the request is over before. What
// leaves the queue meanwhile is sent.
func (x *exchange) await(c <-chan time.Time) (time.Time, error) {
	for {
		if err := x.sendDue(); err != nil {
			return time.Time{}, err
		}
		var due <-chan time.Time
		if len(x.queued) > 0 {
			due = time.After(time.Until(x.queued[0].leaves))
		}
		select {
		case t := <-c:
			return t, nil
		case <-due:
		case <-x.req.Context().Done():
			return time.Time{}, x.req.Context().Err()
		case <-x.srv.done:
			return time.Time{}, errCut
		}
	}
}

// sendDue sends what has left the queue.
func (x *exchange) sendDue() error {
	sent := false
	for len(x.queued) > 0 && time.Until(x.queued[0].leaves) <= 0 {
		if _, err := x.send(x.queued[0].data); err != nil {
			return err
		}
		x.queued = x.queued[1:]
		sent = true
	}
	if sent {
		x.flush()
	}
	return nil
}

// drain sends what is in the queue, as it leaves.
func (x *exchange) drain() error {
	for len(x.queued) > 0 {
		if err := x.waitUntil(x.queued[0].leaves); err != nil {
			return err
		}
		if err := x.sendDue(); err != nil {
			return err
		}
	}
	return nil
}
