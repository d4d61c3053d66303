package overlay

import (
	"context"
	"fmt"
	"time"
)

// flushTime is how long what was written may lie in the kernel's memory alone, if
// nobody asks for a flush.
const flushTime = 5 * time.Second

// Flush makes what was written durable. When data could not be written to its disk,
// nobody knows what of it is there: every flush fails from then on, and no bit that
// was set since the last one that succeeded reaches the map.
func (d *Disk) Flush(ctx context.Context) error {
	select {
	case d.flushing <- struct{}{}:
		defer func() { <-d.flushing }()
	case <-ctx.Done():
		return ctx.Err()
	}
	return d.flush()
}

// flush is Flush for who holds flushing.
func (d *Disk) flush() (err error) {
	if d.failed != nil || d.bits == nil || !d.written.Swap(false) {
		return d.failed
	}
	// Only bits that are set before data is made durable: the kernel may write
	// the map whenever it likes.
	pages := d.here.take()
	if err := d.data.sync(); err != nil {
		d.failed = fmt.Errorf("flush the overlay: %w", err)
		return d.failed
	}
	defer func() {
		if err != nil {
			d.here.putBack(pages)
			d.written.Store(true)
			if d.timer != nil {
				d.timer.Reset(flushTime)
			}
			err = fmt.Errorf("flush the overlay's map: %w", err)
		}
	}()
	for k, p := range pages {
		if _, err := d.bits.WriteAt(p[:], k*pageSize); err != nil {
			return err
		}
	}
	if len(pages) == 0 {
		return nil
	}
	return d.bits.sync()
}

// flushNow is what the timer does.
func (d *Disk) flushNow() {
	if err := d.Flush(context.Background()); err != nil && err != errClosed {
		d.log.Error("what was written may not be on the disk", "error", err)
	}
}
