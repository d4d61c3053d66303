package blockio

import (
	"context"
	"errors"
	"fmt"
)

// Device is a disk that can be written to. What was written is seen by every read
// that begins when the write has returned. It is safe for concurrent use; reads
// and writes of the same bytes at the same time see some mixture of old and new.
type Device interface {
	ReaderAt
	// WriteAtContext keeps io.WriterAt's contract: it writes all of p, or returns
	// an error, after which the bytes of p's place are the old or the new ones.
	// A write that does not lie within Size fails with ErrBeyondDevice and writes
	// nothing.
	WriteAtContext(ctx context.Context, p []byte, off int64) (n int, err error)
	// ZeroContext makes the bytes of e zeros, as WriteAtContext would, and gives
	// back the room that they took.
	ZeroContext(ctx context.Context, e Extent) error
	// Flush returns when everything is durable that had been written or zeroed
	// when it was called: it will be there after a loss of power. After an error
	// nothing is certain about what was written since the last Flush that
	// succeeded.
	Flush(ctx context.Context) error
}

// ErrBeyondDevice says that a write does not lie within the device.
var ErrBeyondDevice = errors.New("beyond the end of the disk")

// Mapper is what a ReaderAt is, too, if it can tell some of the zeros on it
// for much less than reading them.
type Mapper interface {
	// MapAt says whether the n bytes at off, n > 0, are known to be zeros. off is
	// within Size. The bytes behind them may be of the same kind.
	MapAt(ctx context.Context, off int64) (n int64, zeros bool, err error)
}

// PartDevice returns the size bytes of d at off as a Device of their own. They must
// lie within d.
func PartDevice(d Device, off, size int64) Device {
	return &partDevice{part: part{d, off, size}, d: d}
}

type partDevice struct {
	part
	d Device
}

func (v *partDevice) WriteAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if err := Inside(v, off, int64(len(p))); err != nil {
		return 0, err
	}
	return v.d.WriteAtContext(ctx, p, v.off+off)
}

func (v *partDevice) ZeroContext(ctx context.Context, e Extent) error {
	if err := Inside(v, e.Off, e.Len); err != nil {
		return err
	}
	return v.d.ZeroContext(ctx, Extent{Off: v.off + e.Off, Len: e.Len})
}

func (v *partDevice) Flush(ctx context.Context) error { return v.d.Flush(ctx) }

// Inside returns ErrBeyondDevice, wrapped, if the n bytes at off do not all lie
// within r.
func Inside(r ReaderAt, off, n int64) error {
	if size := r.Size(); !(Extent{Off: off, Len: n}).Inside(size) {
		return fmt.Errorf("%w: bytes %d+%d of %d", ErrBeyondDevice, off, n, size)
	}
	return nil
}

// MapAt asks r, if it is a Mapper; else nothing is known of its zeros.
func MapAt(ctx context.Context, r ReaderAt, off int64) (n int64, zeros bool, err error) {
	if m, ok := r.(Mapper); ok {
		return m.MapAt(ctx, off)
	}
	return r.Size() - off, false, nil
}

func (v *part) MapAt(ctx context.Context, off int64) (n int64, zeros bool, err error) {
	n, zeros, err = MapAt(ctx, v.r, v.off+off)
	return min(n, v.size-off), zeros, err
}
