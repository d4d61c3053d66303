package main

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// fillPause is the time before what did not come is asked for again.
const fillPause = 10 * time.Second

// fill brings all of a mounted image into the cache, while no reader waits.
func fill(ctx context.Context, l *line, log *slog.Logger) {
	if l.store == nil {
		log.Warn("nothing to fill in the background: there is no on-disk cache", "source", l.at.String())
		return
	}
	for ctx.Err() == nil {
		done, err := tryFill(ctx, l, log)
		if done || ctx.Err() != nil {
			return
		}
		log.Warn("filling in the background", "source", l.at.String(), "error", err)
		select {
		case <-time.After(fillPause):
		case <-ctx.Done():
		}
	}
}

// tryFill is fill, until an error. done says that there is nothing left to be done.
func tryFill(ctx context.Context, l *line, log *slog.Logger) (done bool, err error) {
	var full *roomError
	if err := fit(ctx, []*line{l}); errors.As(err, &full) {
		log.Warn("not filling in the background", "source", l.at.String(), "error", err)
		return true, nil
	} else if err != nil {
		return false, err
	}
	b := &bringing{line: l, class: blockio.Fill, workers: 1, patience: fillPause}
	if err := b.run(ctx); err != nil {
		return false, err
	}
	missing, err := l.missing(ctx)
	if err != nil {
		return false, err
	}
	if missing > 0 || b.bad > 0 {
		log.Warn("filled in the background, but not all of it", "source", l.at.String(), "missing", missing, "bad blocks", b.bad)
		return true, nil
	}
	log.Info("all of the image is in the cache", "source", l.at.String())
	return true, l.file.cached.entry.Completed(l.wholeFile(), false)
}
