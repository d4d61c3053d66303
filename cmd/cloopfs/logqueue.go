package main

import (
	"context"
	"log/slog"
	"sync/atomic"
	"time"
)

const (
	// maxLogged is how many records of the log may wait to be written.
	maxLogged = 256
	// logTime is how long the end of the process may wait for them.
	logTime = time.Second
)

// logQueue writes the log from a goroutine of its own, so that nobody who logs waits:
// the journal, a file or a pipe may be stuck, and that because it waits for this very
// mount. What there is no room for is dropped, and counted.
type logQueue struct {
	records chan logged
	written chan struct{} // closed when the last record has been
	dropped atomic.Int64
	// ended says that no more records are taken.
	ended atomic.Bool
}

// logged is a record on its way to its handler. A handler of nil is the queue's end.
type logged struct {
	to     slog.Handler
	record slog.Record
}

// newLogQueue returns a logger through a queue to h.
func newLogQueue(h slog.Handler) (*slog.Logger, *logQueue) {
	q := &logQueue{records: make(chan logged, maxLogged), written: make(chan struct{})}
	go q.run()
	return slog.New(&queueHandler{h, q}), q
}

// run writes what comes. A failure has nobody who could be told.
func (q *logQueue) run() {
	defer close(q.written)
	for l := range q.records {
		if l.to == nil {
			return
		}
		_ = l.to.Handle(context.Background(), l.record)
		if n := q.dropped.Swap(0); n > 0 {
			r := slog.NewRecord(time.Now(), slog.LevelWarn, "the log was too slow: lines are missing", 0)
			r.Add("lines", n)
			_ = l.to.Handle(context.Background(), r)
		}
	}
}

// put queues l, or drops it.
func (q *logQueue) put(l logged) {
	select {
	case q.records <- l:
	default:
		q.dropped.Add(1)
	}
}

// Close writes what is queued, for as long as that may take. What is logged from then on is
// dropped.
func (q *logQueue) Close() {
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
	queue *logQueue
}

func (h *queueHandler) Handle(_ context.Context, r slog.Record) error {
	if !h.queue.ended.Load() {
		h.queue.put(logged{h.Handler, r.Clone()})
	}
	return nil
}

func (h *queueHandler) WithAttrs(attrs []slog.Attr) slog.Handler {
	return &queueHandler{h.Handler.WithAttrs(attrs), h.queue}
}

func (h *queueHandler) WithGroup(name string) slog.Handler {
	return &queueHandler{h.Handler.WithGroup(name), h.queue}
}
