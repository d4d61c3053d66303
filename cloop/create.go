package cloop

import (
	"context"
	"errors"
	"io"
	"runtime"
	"sync"

	"github.com/cloopfs/cloopfs/blockio"
)

// Summary is what was written.
type Summary struct {
	DiskSize  int64 // bytes of the disk that the image decodes to
	Padding   int64 // of them, zeros behind the end of the disk that was read
	ImageSize int64 // bytes
	Blocks    int64
	Copied    int64 // of them, taken from the base as they were stored
}

// ErrEmptyDisk says that there is nothing to make an image of.
var ErrEmptyDisk = errors.New("the disk is empty")

// Create writes the image of disk to out, on all cores: e, which must have passed
// Check, says how. done, unless it is nil, is told now and then how many bytes of
// the disk are in the image. Stretches that a [blockio.Mapper] knows to be zeros are not
// read. The last block is padded with zeros.
//
// Memory holds a few chunks of 1 MiB, or blocks if they are larger, for each
// core; with the layout V4Footer, 8 bytes for each block besides.
//
// An error of out is returned as it is. After any error what out holds is of no
// use.
func Create(ctx context.Context, out io.WriterAt, disk blockio.ReaderAt, e Encoding, done func(bytes int64)) (Summary, error) {
	if disk.Size() <= 0 {
		return Summary{}, ErrEmptyDisk
	}
	size := int64(e.BlockSize)
	blocks := (disk.Size()-1)/size + 1
	w, err := newWriter(out, e, blocks)
	if err != nil {
		return Summary{}, err
	}
	p := newPacker(e)
	perChunk := chunkBlocks(createChunk, e.BlockSize)
	work := pipeline{
		workers: runtime.GOMAXPROCS(0),
		chunk:   perChunk * size,
		next:    counted(blocks, perChunk),
		pack: func(ctx context.Context, c *chunk) error {
			if err := fill(ctx, c, disk, e.BlockSize); err != nil {
				return err
			}
			return p.pack(c)
		},
	}
	return w.run(ctx, work, disk.Size(), done)
}

// CreateStream is Create for a disk that is read once, to an end that is not known
// before. If the header is to come first, out must be an [io.ReaderAt], too: all of
// the image is moved in the end. The index is kept in memory in any case.
//
// When ctx ends, a read of disk that is under way is left alone.
func CreateStream(ctx context.Context, out io.WriterAt, disk io.Reader, e Encoding, done func(bytes int64)) (Summary, error) {
	w, err := newWriter(out, e, unknownBlocks)
	if err != nil {
		return Summary{}, err
	}
	p := newPacker(e)
	size, first := int64(0), int64(0)
	perChunk := chunkBlocks(createChunk, e.BlockSize)
	ended := false
	work := pipeline{
		workers: runtime.GOMAXPROCS(0),
		chunk:   perChunk * int64(e.BlockSize),
		next: func(ctx context.Context, c *chunk) (bool, error) {
			if ended {
				return false, nil
			}
			c.reserve(perChunk, e.BlockSize)
			n, err := readFull(ctx, disk, c.disk)
			ended = err == io.EOF || err == io.ErrUnexpectedEOF
			if err != nil && !ended || n == 0 {
				return false, nilIf(err, ended)
			}
			size += int64(n)
			c.first, c.count = first, int64((n-1)/e.BlockSize+1)
			first += c.count
			clear(c.disk[n:])
			return true, nil
		},
		pack: func(_ context.Context, c *chunk) error { return p.pack(c) },
	}
	sum, err := w.run(ctx, work, 0, done)
	if err == nil {
		sum.Padding = sum.DiskSize - size
	}
	return sum, err
}

func nilIf(err error, fine bool) error {
	if fine {
		return nil
	}
	return err
}

// readFull is io.ReadFull until ctx ends; then p still belongs to the read.
func readFull(ctx context.Context, r io.Reader, p []byte) (n int, err error) {
	done := make(chan struct{})
	var got int
	var failed error
	go func() {
		defer close(done)
		got, failed = io.ReadFull(r, p)
	}()
	select {
	case <-done:
		return got, failed
	case <-ctx.Done():
		return 0, ctx.Err()
	}
}

// run writes the chunks of work, of a disk of size bytes, and completes the image.
func (w *writer) run(ctx context.Context, work pipeline, size int64, done func(bytes int64)) (Summary, error) {
	work.write = func(c *chunk) error {
		if err := w.add(c); err != nil {
			return err
		}
		if done != nil {
			end := w.written * int64(w.e.BlockSize)
			if size > 0 {
				end = min(end, size)
			}
			done(end)
		}
		return nil
	}
	if err := work.run(ctx); err != nil {
		return Summary{}, err
	}
	if w.written == 0 {
		return Summary{}, ErrEmptyDisk
	}
	image, err := w.finish(ctx)
	if err != nil {
		return Summary{}, err
	}
	disk := w.written * int64(w.e.BlockSize)
	return Summary{DiskSize: disk, Padding: disk - size, ImageSize: image, Blocks: w.written}, nil
}

// reserve makes room for the decoded bytes of count blocks.
func (c *chunk) reserve(count int64, blockSize int) {
	n := int(count) * blockSize
	if cap(c.disk) < n {
		c.disk = make([]byte, n)
	}
	c.disk = c.disk[:n]
}

// fill reads the blocks of c from disk, and zeros behind its end.
func fill(ctx context.Context, c *chunk, disk blockio.ReaderAt, blockSize int) error {
	off := c.first * int64(blockSize)
	size := min(c.count*int64(blockSize), disk.Size()-off)
	n, zeros, err := blockio.MapAt(ctx, disk, off)
	if err != nil {
		return err
	}
	if c.zeros = zeros && n >= size; c.zeros {
		return nil
	}
	c.reserve(c.count, blockSize)
	clear(c.disk[size:])
	return readDisk(ctx, disk, c.disk[:size], off)
}

// readDisk fills p from disk at off, but for the zeros that are known.
func readDisk(ctx context.Context, disk blockio.ReaderAt, p []byte, off int64) error {
	for len(p) > 0 {
		n, zeros, err := blockio.MapAt(ctx, disk, off)
		if err != nil {
			return err
		}
		part := p[:min(n, int64(len(p)))]
		if zeros {
			clear(part)
		} else if n, err := disk.ReadAtContext(ctx, part, off); err != nil && err != io.EOF {
			return err
		} else if n < len(part) {
			return blockio.ErrShortSource
		}
		p, off = p[len(part):], off+int64(len(part))
	}
	return nil
}

// packer stores blocks. It is safe for concurrent use.
type packer struct {
	e        Encoding
	encoders sync.Pool // of *encoder
	// zero is how a block of zeros is stored: most blocks of a real disk are.
	zero func() (storedZero, error)
}

type storedZero struct {
	bytes []byte
	codec codec
}

func newPacker(e Encoding) *packer {
	p := &packer{e: e, encoders: sync.Pool{New: func() any { return newEncoder(e) }}}
	p.zero = sync.OnceValues(func() (z storedZero, err error) {
		z.bytes, z.codec, err = newEncoder(e).encode(nil, make([]byte, e.BlockSize))
		return z, err
	})
	return p
}

// pack stores all blocks of c.
func (p *packer) pack(c *chunk) error {
	for i := range c.count {
		if err := p.packBlock(c, i, c.zeros); err != nil {
			return err
		}
	}
	return nil
}

// packBlock stores block i of c, from its bytes unless it is zeros.
func (p *packer) packBlock(c *chunk, i int64, zeros bool) error {
	size := int64(p.e.BlockSize)
	if zeros || isZero(c.disk[i*size:(i+1)*size]) {
		zero, err := p.zero()
		if err == nil {
			c.add(zero.bytes, zero.codec)
		}
		return err
	}
	enc := p.encoders.Get().(*encoder)
	defer p.encoders.Put(enc)
	start := len(c.stored)
	stored, k, err := enc.encode(c.stored, c.disk[i*size:(i+1)*size])
	if err != nil {
		return err
	}
	c.stored = stored
	c.blocks = append(c.blocks, storedBlock{size: len(stored) - start, codec: k})
	return nil
}
