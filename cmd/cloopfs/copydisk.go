package main

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"runtime"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
)

const (
	// copyChunk is about how much of the disk is read at a time.
	copyChunk = 4 << 20
	// copyMemory is how much of it may be in memory, but for very large blocks.
	copyMemory = 128 << 20
)

// outputError is an error of the writer, not of the disk.
type outputError struct{ err error }

func (e *outputError) Error() string { return e.err.Error() }

// chunks is how much of a disk with blocks of blockSize bytes is read at a time,
// in whole blocks, and by how many readers.
func chunks(blockSize int) (size int64, readers int) {
	size = int64(max(copyChunk/blockSize, 1)) * int64(blockSize)
	readers = max(4, 2*runtime.GOMAXPROCS(0)) // half of them may wait for the network
	return size, min(readers, max(2, int(copyMemory/size)))
}

// chunk is what came of reading a chunk of a disk.
type chunk[T any] struct {
	buf   []byte
	value T
}

// readInOrder reads a disk in chunks, several at a time, and has take take what read made of
// each of them, in order, until that fails or ctx ends. A chunk is whole blocks of blockSize
// bytes, but for the end of the disk. buf belongs to read and then to take.
func readInOrder[T any](ctx context.Context, disk blockio.ReaderAt, blockSize int,
	read func(ctx context.Context, buf []byte, off int64) T, take func(buf []byte, value T) error,
) error {
	size, readers := chunks(blockSize)
	size = min(size, disk.Size())

	// Each chunk's buffer travels: from free to a reader, through the chunk's
	// own channel to take, and back.
	free := make(chan []byte, readers)
	for range readers {
		free <- nil
	}
	ready := make(chan chan chunk[T], readers) // in order
	g, reading := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(ready)
		for off := int64(0); off < disk.Size(); off += size {
			var buf []byte
			select {
			case buf = <-free:
			case <-reading.Done():
				return reading.Err()
			}
			if buf == nil {
				buf = make([]byte, size)
			}
			done := make(chan chunk[T], 1)
			ready <- done // there is room: it has a buffer
			g.Go(func() error {
				buf := buf[:min(size, disk.Size()-off)]
				done <- chunk[T]{buf, read(reading, buf, off)}
				return nil
			})
		}
		return nil
	})
	g.Go(func() error {
		for done := range ready {
			c := <-done
			if err := ctx.Err(); err != nil {
				return err // however much has been read already
			}
			if err := take(c.buf, c.value); err != nil {
				return err
			}
			free <- c.buf[:cap(c.buf)]
		}
		return nil
	})
	return g.Wait()
}

// copyDisk writes disk, of blocks of blockSize bytes, to w.
func copyDisk(ctx context.Context, w io.Writer, disk blockio.ReaderAt, blockSize int) error {
	read := func(ctx context.Context, buf []byte, off int64) error {
		_, err := disk.ReadAtContext(ctx, buf, off)
		return err
	}
	return readInOrder(ctx, disk, blockSize, read, func(buf []byte, err error) error {
		if err != nil {
			return err
		}
		if _, err := w.Write(buf); err != nil {
			return &outputError{err}
		}
		return nil
	})
}

// sparseWriter writes a file that has holes where zeros were written.
type sparseWriter struct {
	f   *os.File
	off int64
}

// holeSize is the granularity of holes: a page, as file systems have it.
const holeSize = 4096

var zeros [holeSize]byte

func (w *sparseWriter) Write(p []byte) (int, error) {
	written := 0
	for written < len(p) {
		// A stretch of data, then a stretch of zeros.
		data := written
		for data < len(p) && !isHole(p[data:]) {
			data += min(holeSize, len(p)-data)
		}
		if data > written {
			if _, err := w.f.WriteAt(p[written:data], w.off+int64(written)); err != nil {
				return written, err
			}
		}
		for data < len(p) && isHole(p[data:]) {
			data += min(holeSize, len(p)-data)
		}
		written = data
	}
	w.off += int64(written)
	return written, nil
}

// isHole says whether p starts with a page of zeros.
func isHole(p []byte) bool {
	n := min(len(p), holeSize)
	return bytes.Equal(p[:n], zeros[:n])
}

// finish gives the file its size: it may end in a hole.
func (w *sparseWriter) finish() error { return w.f.Truncate(w.off) }

// umask is the mask that the files this process makes are subject to.
func umask() os.FileMode {
	mask := unix.Umask(0)
	unix.Umask(mask)
	return os.FileMode(mask)
}

// taggedOutput makes errors of an output outputErrors.
type taggedOutput struct{ io.WriterAt }

func (o taggedOutput) WriteAt(p []byte, off int64) (int, error) {
	n, err := o.WriterAt.WriteAt(p, off)
	return n, tagOutput(err)
}

func (o taggedOutput) ReadAt(p []byte, off int64) (int, error) {
	r, ok := o.WriterAt.(io.ReaderAt)
	if !ok {
		return 0, tagOutput(errors.ErrUnsupported)
	}
	n, err := r.ReadAt(p, off)
	return n, tagOutput(err)
}

func tagOutput(err error) error {
	if err == nil {
		return nil
	}
	return &outputError{err}
}
