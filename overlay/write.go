package overlay

import (
	"context"
	"fmt"

	"github.com/cloopfs/cloopfs/blockio"
)

// WriteAtContext writes to the overlay. Of a fresh cluster that is written in part the
// rest is read from below first, which may take as long as ctx lets it.
func (d *Disk) WriteAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if err := blockio.Inside(d, off, int64(len(p))); err != nil || len(p) == 0 {
		return 0, err
	}
	if err := d.change(ctx, blockio.Extent{Off: off, Len: int64(len(p))}, p); err != nil {
		return 0, err
	}
	return len(p), nil
}

// ZeroContext writes zeros: holes, where whole clusters are zeros.
func (d *Disk) ZeroContext(ctx context.Context, e blockio.Extent) error {
	if err := blockio.Inside(d, e.Off, e.Len); err != nil || e.Len == 0 {
		return err
	}
	return d.change(ctx, e, nil)
}

// change writes p at e, or zeros if p is nil. The bits are set when all is written:
// until then fresh clusters are read from below.
func (d *Disk) change(ctx context.Context, e blockio.Extent, p []byte) error {
	first, end := e.Off/clusterSize, clusterEnd(e.End())
	release, err := d.busy.lock(ctx, first, end)
	if err != nil {
		return err
	}
	defer release()
	err = d.fill(ctx, e, p)
	if err == nil {
		d.here.set(first, end)
	}
	// After an error, too: some of it may be where it can be read.
	if !d.written.Swap(true) && d.timer != nil {
		d.timer.Reset(flushTime)
	}
	if err != nil {
		return fmt.Errorf("write the overlay: %w", err)
	}
	return nil
}

// fill writes p at e, or zeros, and what has to be there beside it.
func (d *Disk) fill(ctx context.Context, e blockio.Extent, p []byte) error {
	for e.Len > 0 {
		n := d.step(e)
		part := blockio.Extent{Off: e.Off, Len: n}
		var err error
		switch c := e.Off / clusterSize; {
		case d.whole(part) && p == nil:
			// Also where the bit is not set: a crash may have left bytes there.
			err = d.data.Punch(e.Off, (clusterEnd(part.End())-c)*clusterSize)
		case d.whole(part) || d.here.has(c):
			err = d.write(p, part)
		default:
			err = d.complete(ctx, c, part, p)
		}
		if err != nil {
			return err
		}
		e.Off, e.Len = e.Off+n, e.Len-n
		if p != nil {
			p = p[n:]
		}
	}
	return nil
}

// step is how many bytes at the start of e can be written in the same way: a part of
// a cluster, or all that are whole.
func (d *Disk) step(e blockio.Extent) int64 {
	c := e.Off / clusterSize
	switch {
	case e.Off%clusterSize != 0:
		return min((c+1)*clusterSize, e.End()) - e.Off
	case e.End()%clusterSize == 0 || e.End() == d.size || e.Len < clusterSize:
		return e.Len
	}
	return e.Len - e.Len%clusterSize
}

// whole says that e is whole clusters.
func (d *Disk) whole(e blockio.Extent) bool {
	return e.Off%clusterSize == 0 && (e.End()%clusterSize == 0 || e.End() == d.size)
}

var zeros [clusterSize]byte

// write writes the first bytes of p at e, or zeros, which are less than a cluster.
func (d *Disk) write(p []byte, e blockio.Extent) error {
	if p == nil {
		p = zeros[:]
	}
	_, err := d.data.WriteAt(p[:e.Len], e.Off)
	return err
}

// complete writes the fresh cluster c: the first bytes of p, or zeros, at e, and the
// rest from below.
func (d *Disk) complete(ctx context.Context, c int64, e blockio.Extent, p []byte) error {
	start := c * clusterSize
	buf := make([]byte, min(clusterSize, d.size-start))
	if err := d.readBelow(ctx, buf, start); err != nil {
		return err
	}
	part := buf[e.Off-start:][:e.Len]
	if p == nil {
		clear(part)
	} else {
		copy(part, p)
	}
	_, err := d.data.WriteAt(buf, start)
	return err
}
