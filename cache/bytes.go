package cache

import (
	"bytes"
	"context"
	"slices"
	"sync"

	"github.com/cloopfs/cloopfs/blockio"
)

// Bytes is the bytes of an image with those that an entry keeps: header and index,
// directories, all that is not read as stored blocks. It implements
// [blockio.Source].
type Bytes struct {
	blockio.Source // where the rest comes from, and all streams
	files          *files

	// mu guards the fields below.
	mu      sync.Mutex
	served  []blockio.Extent // what came from disk, the latest
	doubts  []doubt          // what is to be read from the source once more
	forgets int64            // how many doubts there were so far
}

// doubt is that what is kept of an extent makes no sense.
type doubt struct {
	blockio.Extent
	number int64 // later ones have higher ones
}

// maxServed bounds how much is remembered of what came from disk, and maxDoubts
// of what makes no sense.
const (
	maxServed = 64
	maxDoubts = 128
)

// Bytes returns src with what is kept of it.
func (f *files) Bytes(src blockio.Source) *Bytes { return &Bytes{Source: src, files: f} }

// ReadAtContext reads bytes of the image. What is missing is asked for at once,
// in whole chunks, and kept.
func (b *Bytes) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	return b.read(ctx, p, off, false)
}

// ReadAgain reads bytes of the image from the source: what is kept of them makes no sense,
// and is replaced.
func (b *Bytes) ReadAgain(ctx context.Context, p []byte, off int64) (int, error) {
	return b.read(ctx, p, off, true)
}

// read is ReadAtContext, or ReadAgain.
func (b *Bytes) read(ctx context.Context, p []byte, off int64, again bool) (int, error) {
	p, eof := blockio.Clip(p, off, b.Size())
	if len(p) == 0 {
		return 0, eof
	}
	e := blockio.Extent{Off: off, Len: int64(len(p))}
	c := b.files.cover(e)
	buf := make([]byte, c.Len)
	gap := b.files.readChunks(buf, c.Off)
	doubted, last := b.doubted(c)
	doubted = doubted || again
	var had []byte
	if doubted {
		had, gap = bytes.Clone(buf), blockio.Extent{Len: c.Len}
	}
	if gap.Len > 0 {
		missing := buf[gap.Off:gap.End()]
		var err error
		if doubted {
			_, err = blockio.ReadAgain(ctx, b.Source, missing, c.Off+gap.Off)
		} else {
			_, err = b.Source.ReadAtContext(ctx, missing, c.Off+gap.Off)
		}
		if err != nil {
			return 0, err
		}
		// What is wrong goes before the right bytes come: there may be no room for these.
		settled := !doubted || bytes.Equal(buf, had) || b.files.forgetChunks(c)
		b.files.writeChunks(missing, c.Off+gap.Off)
		if doubted {
			b.believe(c, last, settled)
		}
	} else {
		b.files.count.hits.Add(1)
		b.files.count.hitBytes.Add(e.Len)
		b.files.touch(e)
		b.remember(e)
	}
	return copy(p, buf[off-c.Off:]), eof
}

func (b *Bytes) remember(e blockio.Extent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.served) == maxServed {
		b.served = slices.Delete(b.served, 0, 1)
	}
	b.served = append(b.served, e)
}

// ForgetServed says that what came from disk makes no sense: what there was of it
// since the last time, and as far as that is remembered. It says whether there was
// anything.
func (b *Bytes) ForgetServed() bool {
	b.mu.Lock()
	served := b.served
	b.served = nil
	b.mu.Unlock()
	for _, e := range served {
		b.forget(e)
	}
	return len(served) > 0
}

// forget says that what is kept of e makes no sense: it is read from the source
// once more. Until then it stays: what was asked for may be what made no sense.
func (b *Bytes) forget(e blockio.Extent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.doubts) < maxDoubts {
		b.forgets++
		b.doubts = append(b.doubts, doubt{e, b.forgets})
	}
}

// Blame tells the source that bytes of e were wrong at first; see [blockio.Blamer].
func (b *Bytes) Blame(e blockio.Extent) {
	if src, ok := b.Source.(blockio.Blamer); ok {
		src.Blame(e)
	}
}

// doubted says whether some of e is to be read from the source once more, and which
// doubt was the last so far.
func (b *Bytes) doubted(e blockio.Extent) (doubted bool, last int64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return slices.ContainsFunc(b.doubts, func(d doubt) bool { return d.Off < e.End() && e.Off < d.End() }), b.forgets
}

// believe says that e has been read from the source since the doubt of that number, and
// whether what is kept of it can do no harm now; else it stays in doubt. Later doubts may
// be of what was read by then.
func (b *Bytes) believe(e blockio.Extent, last int64, settled bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var left []doubt
	for _, d := range b.doubts {
		if d.number > last {
			left = append(left, d)
			continue
		}
		if d.Off < e.Off {
			left = append(left, doubt{blockio.Extent{Off: d.Off, Len: min(d.End(), e.Off) - d.Off}, d.number})
		}
		if d.End() > e.End() {
			from := max(d.Off, e.End())
			left = append(left, doubt{blockio.Extent{Off: from, Len: d.End() - from}, d.number})
		}
	}
	if !settled && len(left) < maxDoubts {
		b.forgets++
		left = append(left, doubt{e, b.forgets})
	}
	b.doubts = left
}
