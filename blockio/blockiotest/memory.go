package blockiotest

import (
	"bytes"
	"context"
	"sync"

	"github.com/cloopfs/cloopfs/blockio"
)

// Device is a disk in memory. It implements [blockio.Device] and [blockio.Mapper].
type Device struct {
	// OnRead, OnWrite, OnZero and OnFlush, if set, are called first, with what is
	// asked for within the device. They may block until ctx ends, or fail; then
	// nothing is done.
	OnRead, OnWrite, OnZero func(ctx context.Context, e blockio.Extent) error
	OnFlush                 func(ctx context.Context) error

	// mu guards the bytes of data.
	mu   sync.RWMutex
	data []byte
}

// NewDevice returns a disk that holds data, and takes it over.
func NewDevice(data []byte) *Device { return &Device{data: data} }

// Size is the number of bytes.
func (d *Device) Size() int64 { return int64(len(d.data)) }

// ReadAtContext reads the bytes at off.
func (d *Device) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	p, eof := blockio.Clip(p, off, d.Size())
	if len(p) == 0 {
		return 0, eof
	}
	if err := asked(ctx, d.OnRead, off, len(p)); err != nil {
		return 0, err
	}
	d.mu.RLock()
	defer d.mu.RUnlock()
	return copy(p, d.data[off:]), eof
}

// WriteAtContext replaces the bytes at off.
func (d *Device) WriteAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if err := blockio.Inside(d, off, int64(len(p))); err != nil {
		return 0, err
	}
	if err := asked(ctx, d.OnWrite, off, len(p)); err != nil {
		return 0, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return copy(d.data[off:], p), nil
}

// ZeroContext makes the bytes of e zeros.
func (d *Device) ZeroContext(ctx context.Context, e blockio.Extent) error {
	if err := blockio.Inside(d, e.Off, e.Len); err != nil {
		return err
	}
	if err := asked(ctx, d.OnZero, e.Off, int(e.Len)); err != nil {
		return err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	clear(d.data[e.Off:e.End()])
	return nil
}

// Flush does nothing but to call OnFlush.
func (d *Device) Flush(ctx context.Context) error {
	if d.OnFlush != nil {
		return d.OnFlush(ctx)
	}
	return nil
}

// mapUnit is how much of the device MapAt looks at.
const mapUnit = 4096

// MapAt tells of the rest of a 4 KiB page: whether there are zeros only.
func (d *Device) MapAt(_ context.Context, off int64) (n int64, zeros bool, err error) {
	d.mu.RLock()
	defer d.mu.RUnlock()
	rest := d.data[off:min(off/mapUnit*mapUnit+mapUnit, d.Size())]
	return int64(len(rest)), len(bytes.TrimLeft(rest, "\x00")) == 0, nil
}

// Bytes is a copy of what the device holds.
func (d *Device) Bytes() []byte {
	d.mu.RLock()
	defer d.mu.RUnlock()
	return bytes.Clone(d.data)
}

func asked(ctx context.Context, on func(context.Context, blockio.Extent) error, off int64, n int) error {
	if on == nil {
		return nil
	}
	return on(ctx, blockio.Extent{Off: off, Len: int64(n)})
}
