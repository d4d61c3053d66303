package main

import (
	"context"
	"errors"
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

// newRecording makes sure that the file can be written. What is there stays until
// something was read.
func newRecording(path string, rec *profile.Recorder, log *slog.Logger) (*recording, error) {
	r := &recording{path: path, rec: rec, log: log}
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if errors.Is(err, os.ErrNotExist) {
		return r, r.write()
	}
	if err != nil {
		return nil, err
	}
	return r, f.Close()
}

// run writes now and then, and when ctx ends. A failure is said once.
func (r *recording) run(ctx context.Context) {
	failed := false
	for ctx.Err() == nil {
		select {
		case <-ctx.Done():
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
