package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/line"
)

// fillPause is the time before what did not come is asked for again.
const fillPause = 10 * time.Second

// fill brings all of a mounted image into the cache, while no reader waits.
func fill(ctx context.Context, l *line.Line, log *slog.Logger) {
	log = log.With("source", l.At().String())
	if l.Store() == nil {
		log.Warn("nothing to fill in the background: there is no on-disk cache")
		return
	}
	b := &bringing{line: l, class: blockio.Fill, workers: 1}
	for {
		err := b.fill(ctx, log)
		if err != nil && l.Entry().Removed() {
			err = l.NotStored() // whatever else: nothing is, from now on
		}
		switch {
		case err == nil, ctx.Err() != nil:
			return
		case errors.Is(err, blockio.ErrChanged), errors.Is(err, line.ErrNotStored):
			log.Warn("no longer filling in the background", "error", err)
			return
		}
		log.Warn("filling in the background", "error", err)
		select {
		case <-time.After(fillPause):
		case <-ctx.Done():
			return
		}
	}
}

// fill goes on where it was, until an error. There is none if nothing is left to be
// done.
func (b *bringing) fill(ctx context.Context, log *slog.Logger) error {
	l := b.line
	if b.next.Load() == 0 {
		missing, err := bytesMissing(ctx, l)
		if err != nil {
			return err
		}
		if missing == 0 && (l.Entry().Complete() || !isWholeFile(l)) {
			return nil // else it seems so, and nobody has looked
		}
		var full *roomError
		if err := fit(ctx, []*line.Line{l}); errors.As(err, &full) {
			log.Warn("not filling in the background", "error", err)
			return nil
		} else if err != nil {
			return err
		}
	}
	if err := b.run(ctx); err != nil {
		return err
	}
	return b.ended(ctx, log)
}

// ended notes that all of the image is here, if that is so. Until it is written down
// nobody throws anything away.
func (b *bringing) ended(ctx context.Context, log *slog.Logger) error {
	entry := b.line.Entry()
	if err := entry.Pin(); err != nil {
		return err
	}
	defer entry.Unpin()
	missing, err := bytesMissing(ctx, b.line)
	if err != nil {
		return err
	}
	if missing > 0 || b.bad > 0 {
		log.Warn("filled in the background, but not all of it", "missing", missing, "bad blocks", b.bad)
		return nil
	}
	log.Info("all of the image is in the cache")
	return entry.Completed(isWholeFile(b.line), false)
}
