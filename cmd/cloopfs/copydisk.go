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
func chunks(blockSize int) (chunk int64, readers int) {
	chunk = int64(max(copyChunk/blockSize, 1)) * int64(blockSize)
	readers = max(4, 2*runtime.GOMAXPROCS(0)) // half of them may wait for the network
	return chunk, min(readers, max(2, int(copyMemory/chunk)))
}

// copyDisk writes disk to w in order, while several readers fetch and decode
// what comes next. A reader reads whole blocks of blockSize bytes.
func copyDisk(ctx context.Context, w io.Writer, disk blockio.ReaderAt, blockSize int) error {
	chunk, readers := chunks(blockSize)
	chunk = min(chunk, disk.Size())

	// Each chunk's buffer travels: from free to a reader, through the chunk's
	// own channel to the writer, and back.
	free := make(chan []byte, readers)
	for range readers {
		free <- nil
	}
	ready := make(chan chan []byte, readers) // the chunks, in order
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer close(ready)
		for off := int64(0); off < disk.Size(); off += chunk {
			var buf []byte
			select {
			case buf = <-free:
			case <-ctx.Done():
				return ctx.Err()
			}
			if buf == nil {
				buf = make([]byte, chunk)
			}
			buf = buf[:min(chunk, disk.Size()-off)]
			done := make(chan []byte, 1)
			ready <- done
			g.Go(func() error {
				_, err := disk.ReadAtContext(ctx, buf, off)
				if err != nil && err != io.EOF {
					return err
				}
				done <- buf
				return nil
			})
		}
		return nil
	})
	g.Go(func() error {
		for done := range ready {
			select {
			case buf := <-done:
				if _, err := w.Write(buf); err != nil {
					return &outputError{err}
				}
				free <- buf[:cap(buf)]
			case <-ctx.Done():
				return ctx.Err()
			}
		}
		return nil
	})
	return g.Wait()
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
