package overlay

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/cloopfs/cloopfs/blockio"
)

// Disk is a disk with what was written to it. It implements [blockio.Device] and
// [blockio.Mapper], and is safe for concurrent use.
type Disk struct {
	below blockio.ReaderAt
	size  int64
	data  file
	bits  file // the map; nil if the overlay is not to be kept
	log   *slog.Logger

	here clusters
	busy busy
	// written says that something was written since the last flush began.
	written atomic.Bool
	// flushing is held by who flushes.
	flushing chan struct{}
	failed   error // why no flush can succeed any more; guarded by flushing

	modTime time.Time
	dir     *Dir // nil if the overlay is not to be kept
	// end lets go of the files, after the last flush.
	end   func(flushed bool) error
	timer *time.Timer // of the next flush that nobody asked for; nil if there is none
}

// newDisk returns the disk of an overlay's files. bits is nil for one that is not
// to be kept.
func newDisk(below blockio.ReaderAt, data, bits file) *Disk {
	return &Disk{
		below: below, size: below.Size(), data: data, bits: bits,
		log:  slog.New(slog.DiscardHandler),
		here: newClusters(), flushing: make(chan struct{}, 1),
		end: func(bool) error { return data.Close() },
	}
}

// errClosed is the failure of a disk that has been closed.
var errClosed = errors.New("the overlay is closed")

// Size is the size of the disk in bytes.
func (d *Disk) Size() int64 { return d.size }

// Changed is how many bytes of the disk are in the overlay, in whole clusters.
func (d *Disk) Changed() int64 { return min(d.here.len()*clusterSize, d.size) }

// ModTime is when the disk had been written to last when it was opened; zero if it
// never was.
func (d *Disk) ModTime() time.Time { return d.modTime }

// Differs says whether any of the bytes of e is in the overlay.
func (d *Disk) Differs(e blockio.Extent) bool {
	for piece := range d.pieces(e) {
		if piece.here {
			return true
		}
	}
	return false
}

// piece is a part of the disk that is in the overlay as a whole, or not at all.
type piece struct {
	blockio.Extent
	here bool
}

// pieces yields the pieces of e, which is within the disk.
func (d *Disk) pieces(e blockio.Extent) func(yield func(piece) bool) {
	return func(yield func(piece) bool) {
		for off := e.Off; off < e.End(); {
			first := off / clusterSize
			n, here := d.here.run(first, clusterEnd(e.End()))
			next := min((first+n)*clusterSize, e.End())
			if !yield(piece{blockio.Extent{Off: off, Len: next - off}, here}) {
				return
			}
			off = next
		}
	}
}

// clusterEnd is the first cluster that begins at or behind off.
func clusterEnd(off int64) int64 { return (off + clusterSize - 1) / clusterSize }

// maxBelow is how many reads of what lies below are under way for one read.
const maxBelow = 8

// ReadAtContext reads what was written, and from below what was not.
func (d *Disk) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	p, eof := blockio.Clip(p, off, d.size)
	if err := d.read(ctx, p, off); err != nil {
		return 0, err
	}
	return len(p), eof
}

// read fills p, which lies within the disk. What comes from below may come from far:
// several pieces of it are read at a time.
func (d *Disk) read(ctx context.Context, p []byte, off int64) error {
	whole := blockio.Extent{Off: off, Len: int64(len(p))}
	var g *errgroup.Group
	stop := func() {}
	for piece := range d.pieces(whole) {
		part := p[piece.Off-off:][:piece.Len]
		switch {
		case piece.here:
			if _, err := d.data.ReadAt(part, piece.Off); err != nil {
				stop()
				return waitAfter(g, fmt.Errorf("read the overlay: %w", err))
			}
		case piece.Extent == whole:
			return d.readBelow(ctx, part, piece.Off)
		default:
			if g == nil {
				// Not before: a context that is derived from costs something.
				below, cancel := context.WithCancel(ctx)
				defer cancel()
				stop = cancel
				g, ctx = errgroup.WithContext(below)
				g.SetLimit(maxBelow)
			}
			g.Go(func() error { return d.readBelow(ctx, part, piece.Off) })
		}
	}
	return waitAfter(g, nil)
}

// waitAfter waits for g, if there is one, and returns err or the first error of g.
func waitAfter(g *errgroup.Group, err error) error {
	if g == nil {
		return err
	}
	if e := g.Wait(); err == nil {
		err = e
	}
	return err
}

func (d *Disk) readBelow(ctx context.Context, p []byte, off int64) error {
	_, err := d.below.ReadAtContext(ctx, p, off)
	return err
}

// MapAt says whether the n bytes at off are known to be zeros.
func (d *Disk) MapAt(ctx context.Context, off int64) (n int64, zeros bool, err error) {
	first := off / clusterSize
	count, here := d.here.run(first, clusterEnd(d.size))
	end := min((first+count)*clusterSize, d.size)
	if !here {
		n, zeros, err = blockio.MapAt(ctx, d.below, off)
		return min(n, end-off), zeros, err
	}
	next, err := d.data.NextData(off)
	if err == io.EOF {
		next, err = end, nil
	}
	if err == nil && next == off {
		next, err = d.data.NextHole(off)
	} else {
		zeros = true
	}
	if err != nil {
		return 0, false, fmt.Errorf("look for holes in the overlay: %w", err)
	}
	if next == off { // it has just become a hole
		next = (first + 1) * clusterSize
	}
	return min(next, end) - off, zeros, nil
}

// Close flushes, and lets go of the overlay. Reads and writes must have ended.
func (d *Disk) Close() error {
	return d.close(func() error {
		err := d.flush()
		return errors.Join(err, d.end(err == nil))
	})
}

// Discard is Close, but throws the overlay of a [Dir] away, as [Dir.Discard] does: nobody else
// has it between the two.
func (d *Disk) Discard() error {
	return d.close(func() error { return errors.Join(d.closeFiles(), d.dir.Discard()) })
}

// close has end let go of the overlay, unless that has been done.
func (d *Disk) close(end func() error) error {
	d.flushing <- struct{}{}
	defer func() { <-d.flushing }()
	if d.failed == errClosed {
		return nil
	}
	if d.timer != nil {
		d.timer.Stop()
	}
	err := end()
	d.failed = errClosed
	return err
}
