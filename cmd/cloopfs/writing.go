package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/overlay"
)

// writeOptions say where writes to a disk go. Without any the disk is read-only.
type writeOptions struct {
	Overlay   cli.Name // absolute after complete
	Ephemeral bool
	Temp      string // where writes go that are not to be kept; absolute after complete
}

func (o *writeOptions) writable() bool { return o.Overlay != "" || o.Ephemeral }

// writes is where the writes to a mount's disk go. It does nothing for a read-only
// disk.
type writes struct {
	disk     *overlay.Disk // nil for a read-only disk
	path     string        // empty if what is written is not to be kept
	made     bool          // just now
	madeDir  bool          // likewise
	unclean  bool          // it was not closed
	flushing atomic.Int32  // how many wait for the last flush
	closed   atomic.Bool
	log      *slog.Logger
}

// open opens the overlay over the line's disk.
func (o *writeOptions) open(ctx context.Context, l *line.Line, log *slog.Logger) (*writes, error) {
	w := &writes{path: string(o.Overlay), log: log}
	if o.Ephemeral {
		var err error
		if w.disk, err = overlay.Ephemeral(o.Temp, l.Disk()); err != nil {
			return nil, overlayFailure(fmt.Errorf("--ephemeral: %w", err))
		}
		return w, nil
	}
	if o.Overlay == "" {
		return w, nil
	}
	base, err := baseOf(ctx, l)
	if err != nil {
		return nil, err
	}
	dir, err := overlay.OpenOrMake(string(o.Overlay), base)
	if err != nil {
		return nil, overlayFailure(err)
	}
	w.made, w.madeDir = dir.Made()
	w.unclean = !dir.Clean()
	if w.disk, err = dir.Disk(l.Disk(), base, log); err != nil {
		dir.Close()
		return nil, overlayFailure(err)
	}
	return w, nil
}

// over is the disk with what was written to it.
func (w *writes) over(disk blockio.ReaderAt) blockio.ReaderAt {
	if w.disk == nil {
		return disk
	}
	return w.disk
}

// modTime is when the disk was written to last; zero if it never was.
func (w *writes) modTime() time.Time {
	if w.disk == nil {
		return time.Time{}
	}
	return w.disk.ModTime()
}

// notClosed is what is said of an overlay whose last user has not closed it.
const notClosed = "the overlay was not closed: what its last user had not flushed may be missing"

// flush makes durable what was written so far. A failure is said by who closes.
func (w *writes) flush() {
	if w.disk != nil {
		w.flushing.Add(1)
		defer w.flushing.Add(-1)
		_ = w.disk.Flush(context.Background())
	}
}

// giveUp lets go of an overlay that was not used after all; what was made for that
// goes, before anybody else can write to it.
func (w *writes) giveUp() {
	if w.made {
		_ = w.disk.Discard()
	} else {
		_ = w.Close()
	}
	if w.madeDir {
		_ = os.Remove(w.path) // unless something else is in it
	}
}

// Close flushes, and lets go of the overlay. Nobody may use the disk any more.
func (w *writes) Close() error {
	if w.disk == nil || w.closed.Swap(true) {
		return nil
	}
	w.flushing.Add(1)
	err := w.disk.Close()
	if err != nil {
		w.log.Error("what was written may not be on the disk", "error", err)
	}
	return overlayFailure(err)
}

// overlayReport is what was written to the disk, in this session and before.
type overlayReport struct {
	Path string `json:"path,omitempty"` // none if it is not to be kept
	// Changed is bytes of the disk, in whole clusters of 4 KiB.
	Changed int64 `json:"changed"`
	// Flushing says that the disk is to be unmounted, and the last flush under way.
	Flushing bool `json:"flushing"`
}

// report says what was written; nil for a read-only disk.
func (w *writes) report() *overlayReport {
	if w.disk == nil {
		return nil
	}
	return &overlayReport{Path: w.path, Changed: w.disk.Changed(), Flushing: w.flushing.Load() > 0}
}

// complete makes paths absolute.
func (o *writeOptions) complete() (err error) {
	if o.Ephemeral && o.Overlay != "" {
		return cli.Usage(errors.New("--ephemeral and --overlay exclude each other"))
	}
	if o.Overlay != "" {
		path, err := filepath.Abs(string(o.Overlay))
		o.Overlay = cli.Name(path)
		return err
	}
	o.Temp = "/var/tmp"
	if dir := os.Getenv("TMPDIR"); dir != "" {
		o.Temp, err = filepath.Abs(dir)
	}
	return err
}

// baseOf is what an overlay has to know of the line's disk.
func baseOf(ctx context.Context, l *line.Line) (overlay.Base, error) {
	id, err := l.Identity(ctx)
	if err != nil {
		return overlay.Base{}, line.Failure(fmt.Errorf("open %s: %w", l.At(), err))
	}
	return overlay.Base{Source: l.At().Text(), Size: l.Disk().Size(), Identity: id}, nil
}

// overlayFailure says that an overlay can't be used; nil stays nil.
func overlayFailure(err error) error {
	if err == nil {
		return nil
	}
	f := &cli.Error{Code: cli.ExitFailure, Err: err}
	var path string
	if p, ok := errors.AsType[*os.PathError](err); ok {
		path = cli.Quote(p.Path)
	}
	switch {
	case errors.Is(err, overlay.ErrInUse):
		f.Hint = "cloopfs status tells by which mount; one image can have any number of overlays"
	case errors.Is(err, overlay.ErrBaseMismatch):
		f.Hint = "mount the image that it was made for (a copy must have its date, too), or begin anew: cloopfs overlay discard " + path
	case errors.Is(err, overlay.ErrUnsafe):
		f.Hint = "an overlay belongs to its user alone: chown, chmod 700 " + path
	case errors.Is(err, overlay.ErrDamaged):
		f.Hint = "restore it from a copy, or throw it away: cloopfs overlay discard " + path
	case errors.Is(err, overlay.ErrNoHoles):
		f.Hint = "keep it on ext4, xfs, btrfs, f2fs or tmpfs"
	}
	return f
}
