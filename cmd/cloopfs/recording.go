package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/cloopfs/cloopfs/profile"
)

// recordTime is how often a recording is written.
const recordTime = 5 * time.Second

// recording is the file to which the trace of a mount is written.
type recording struct {
	path    string
	rec     *profile.Recorder
	written int // runs that are in the file
	log     *slog.Logger
}

// tryRecord makes sure that what --record names can be written, and changes nothing.
func (o *profileOptions) tryRecord() error {
	if o.Record == "" {
		return nil
	}
	tried := errors.New("all but that it got its name")
	err := newFile(string(o.Record), true, func(*os.File) error { return tried })
	if errors.Is(err, tried) {
		return nil
	}
	return fmt.Errorf("--record: %w", err)
}

// run writes now and then, and when ctx ends. What is there stays until something was
// read. A failure is said once.
func (r *recording) run(ctx context.Context) {
	failed := false
	if _, err := os.Stat(r.path); errors.Is(err, os.ErrNotExist) {
		r.written = -1
	}
	for ended := false; !ended; {
		select {
		case <-ctx.Done():
			ended = true
		case <-time.After(recordTime):
		}
		if r.rec.Runs() == r.written {
			continue
		}
		if err := r.write(); err != nil && !failed {
			failed = true
			r.log.Warn("what is read is not recorded", "error", err)
		}
	}
}

func (r *recording) write() error {
	p := r.rec.Profile()
	err := newFile(r.path, true, func(f *os.File) error { return p.Write(f) })
	if err == nil {
		r.written = len(p.Runs)
	}
	return err
}
