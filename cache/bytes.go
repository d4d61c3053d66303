package cache

import (
	"context"
	"io"

	"github.com/cloopfs/cloopfs/blockio"
)

// Bytes is the bytes of an image with those that a Disk keeps: header and index,
// directories, all that is not read as stored blocks. It implements
// [blockio.Source].
type Bytes struct {
	blockio.Source // where the rest comes from, and all streams
	disk           *Disk
}

// Bytes returns src with what is kept of it.
func (d *Disk) Bytes(src blockio.Source) *Bytes { return &Bytes{src, d} }

// ReadAtContext reads bytes of the image. What is missing is asked for at once,
// in whole chunks, and kept.
func (b *Bytes) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	p, eof := blockio.Clip(p, off, b.Size())
	if len(p) == 0 {
		return 0, eof
	}
	e := blockio.Extent{Off: off, Len: int64(len(p))}
	c := b.disk.cover(e)
	buf := make([]byte, c.Len)
	if gap := b.disk.readChunks(buf, c.Off); gap.Len > 0 {
		missing := buf[gap.Off:gap.End()]
		n, err := b.Source.ReadAtContext(ctx, missing, c.Off+gap.Off)
		if err != nil && (err != io.EOF || n < len(missing)) {
			return 0, err
		}
		b.disk.writeChunks(missing, c.Off+gap.Off)
	} else {
		b.disk.count.hits.Add(1)
		b.disk.count.hitBytes.Add(e.Len)
		b.disk.touch(e)
	}
	return copy(p, buf[off-c.Off:]), eof
}

// Forget says that what is kept of e makes no sense.
func (b *Bytes) Forget(e blockio.Extent) { b.disk.forgetChunks(e) }
