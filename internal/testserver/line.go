package testserver

import (
	"sync"
	"time"
)

const (
	// maxPiece is how many bytes a response sends before others get their turn.
	maxPiece = 16 << 10
	// piecesPerSecond makes pieces small enough on a slow line that bytes
	// trickle, and a change of Rate is soon felt.
	piecesPerSecond = 20
	// firstWindow is TCP's initial window: RFC 6928 and usual segments.
	firstWindow = 10 * 1460
	// idleTime after which a connection's window starts again, about the time
	// after which TCP would retransmit (RFC 5681 section 4.1).
	idleTime = time.Second
	// maxLag is how far a response may lag behind the simulated time and still
	// catch up. Sleeps end late, often by a millisecond; without this a fast
	// line would be slower than its rate.
	maxLag = 10 * time.Millisecond
)

// line is the way out that all connections share.
type line struct {
	// mu guards the fields below.
	mu      sync.Mutex
	free    time.Time // when the last byte that was given to the line has left
	waiting []*entry  // for room in the queue, in this order
	room    *time.Timer
}

// reserve gives the line n bytes that are ready at the time given, and returns
// when the last of them leaves at rate bytes per second.
func (l *line) reserve(ready time.Time, n int, rate int64) time.Time {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.free = later(l.free, ready).Add(transfer(int64(n), rate))
	return l.free
}

// transfer is how long n bytes take at rate bytes per second.
func transfer(n, rate int64) time.Duration {
	return time.Duration(float64(n) / float64(rate) * float64(time.Second))
}

// window is the congestion window of a connection.
type window struct {
	// mu guards the fields below.
	mu    sync.Mutex
	size  int       // bytes that may leave within one RTT; 0 at first
	left  int       // bytes of size not yet used
	start time.Time // when this window began
	used  time.Time // when something was last sent
}

// take uses up to n bytes of the window, the next one if it is exhausted, and
// returns how many bytes may leave and when.
func (w *window) take(now time.Time, n int, rtt time.Duration) (int, time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.size == 0 || now.Sub(w.used) > idleTime:
		w.size, w.left, w.start = firstWindow, firstWindow, now
	case w.left == 0:
		w.size *= 2
		w.left, w.start = w.size, later(now, w.start.Add(rtt))
	}
	n = min(n, w.left)
	w.left -= n
	return n, later(now, w.start)
}

// sent notes that the connection is not idle.
func (w *window) sent(now time.Time) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.used = now
}

// pace waits until some of the next n bytes of the body may leave, and returns
// how many.
func (x *exchange) pace(cfg *Config, n int) (int, error) {
	n, err := x.toLine(cfg, n)
	if err != nil {
		return 0, err
	}
	if cfg.Rate > 0 {
		x.due = x.srv.line.reserve(x.due, n, cfg.Rate)
	}
	return n, x.waitUntil(x.due)
}

// toLine waits until some of the next n bytes of the body may go to the line, and
// returns how many. x.due is when they may.
func (x *exchange) toLine(cfg *Config, n int) (int, error) {
	x.due = later(x.due, time.Now().Add(-maxLag))
	if cfg.Rate > 0 {
		n = int(min(int64(n), maxPiece, max(1, cfg.Rate/piecesPerSecond)))
	}
	if cfg.queues() {
		n = int(min(int64(n), cfg.Buffer))
	}
	if !cfg.SlowStart || cfg.RTT <= 0 {
		return n, nil
	}
	n, x.due = x.window.take(x.due, n, cfg.RTT)
	// The line is reserved only when the window is open: until then it is free for
	// others.
	return n, x.waitUntil(x.due)
}

// waitUntil returns nil at t, or an error if the request is over before. What
// leaves the queue meanwhile is sent.
func (x *exchange) waitUntil(t time.Time) error {
	d := time.Until(t)
	if d <= 0 {
		return nil
	}
	timer := time.NewTimer(d)
	defer timer.Stop()
	_, err := x.await(timer.C)
	return err
}

func later(a, b time.Time) time.Time {
	if a.After(b) {
		return a
	}
	return b
}
