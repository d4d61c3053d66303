package daemonlog

import (
	"context"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"
)

const (
	// maxLogged is how many records of the log may wait to be written.
	maxLogged = 256
	// logTime is how long the end of the process may wait for them.
	logTime = time.Second
)

// Queue writes the log from a goroutine of its own, so that nobody who logs waits:
// the journal, a file or a pipe may be stuck, and that because it waits for this very
// mount. What there is no room for is dropped, and the log says so where it would have been.
type Queue struct {
	handler slog.Handler // of what the queue itself has to say
	records chan logged
	written chan struct{} // closed when the last record has been
	// ended says that no more records are taken.
	ended atomic.Bool

	// mu guards the field below, and what is put into records.
	mu   sync.Mutex
	lost gap // since the last record that was queued
}

// logged is a record on its way to its handler. A handler of nil is the queue's end.
type logged struct {
	to     slog.Handler
	record slog.Record
	lost   gap // before it
}

// gap is lines of the log that were dropped.
type gap struct {
	lines int
	level slog.Level // of the gravest
}

// newQueue returns a logger through a queue to h.
func newQueue(h slog.Handler) (*slog.Logger, *Queue) {
	q := &Queue{handler: h, records: make(chan logged, maxLogged), written: make(chan struct{})}
	go q.run()
	return slog.New(&queueHandler{h, q}), q
}

// run writes what comes. A failure has nobody who could be told.
func (q *Queue) run() {
	defer close(q.written)
	for {
		l := <-q.records
		q.tell(l.lost)
		if l.to != nil {
			_ = l.to.Handle(context.Background(), l.record)
		}
		q.tell(q.lostLast())
		if l.to == nil {
			return
		}
	}
}

// tell writes that lines are missing, if any are: as grave as the gravest of them, so that
// it is not in a log that has none of those.
func (q *Queue) tell(lost gap) {
	if lost.lines == 0 {
		return
	}
	r := slog.NewRecord(time.Now(), lost.level, "the log was too slow: lines are missing", 0)
	r.Add("lines", lost.lines)
	_ = q.handler.Handle(context.Background(), r)
}

// lostLast takes the gap that no record follows so far. There is none to take as long as records
// are queued, which are older.
func (q *Queue) lostLast() (lost gap) {
	q.mu.Lock()
	defer q.mu.Unlock()
	if len(q.records) == 0 {
		lost, q.lost = q.lost, gap{}
	}
	return lost
}

// put queues l, or drops it.
func (q *Queue) put(l logged) {
	q.mu.Lock()
	defer q.mu.Unlock()
	l.lost = q.lost
	select {
	case q.records <- l:
		q.lost = gap{}
	default:
		if level := l.record.Level; q.lost.lines == 0 || level > q.lost.level {
			q.lost.level = level
		}
		q.lost.lines++
	}
}

// Close writes what is queued, for as long as that may take. What is logged from then on is
// dropped.
func (q *Queue) Close() {
	if q.ended.Swap(true) {
		return
	}
	timeout := time.After(logTime)
	select {
	case q.records <- logged{}:
	case <-timeout:
		return
	}
	select {
	case <-q.written:
	case <-timeout:
	}
}

// queueHandler queues records for another handler.
type queueHandler struct {
	slog.Handler
	queue *Queue
}

func (h *queueHandler) Handle(_ context.Context, r slog.Record) error {
	if !h.queue.ended.Load() {
		h.queue.put(logged{to: h.Handler, record: r.Clone()})
	}
	return nil
}

func (h *queueHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &queueHandler{h.Handler.WithAttrs(attrs), h.queue}
}

func (h *queueHandler) WithGroup(name string) slog.Handler {
	return &queueHandler{h.Handler.WithGroup(name), h.queue}
}
