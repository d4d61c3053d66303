// Package localfile is an image in a file of this machine, or on a block
// device. It knows nothing of what the bytes mean.
package localfile

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
)

// ErrChanged says that the file is no longer as it was opened.
var ErrChanged = fmt.Errorf("%w: the file was written to", blockio.ErrChanged)

// File is an open file. It implements [blockio.Ranges], [blockio.ReaderAt],
// [blockio.Prompt] and [blockio.Mapper], and is safe for concurrent use. Reads of a local
// file can't be interrupted, and those of a file system that hangs may never end: whoever
// reads waits no longer than his context, and the read is left behind.
type File struct {
	f       *os.File
	conn    syscall.RawConn // of f
	size    int64
	modTime time.Time
	regular bool
	busy    chan struct{} // a place for each call under way that may be left behind
}

const (
	// maxBusy is how many calls may be under way at a time: each has a thread, and up to
	// maxPiece bytes.
	maxBusy = 64
	// maxPiece is how many bytes are read at a time.
	maxPiece = 128 << 10
)

// Open opens the file or block device at path.
func Open(path string) (*File, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	info, err := f.Stat()
	if err == nil && info.IsDir() {
		err = &os.PathError{Op: "open", Path: path, Err: errors.New("is a directory")}
	}
	var size int64
	if err == nil {
		size, err = f.Seek(0, io.SeekEnd) // a device's Stat says 0
	}
	var conn syscall.RawConn
	if err == nil {
		conn, err = f.SyscallConn()
	}
	if err != nil {
		f.Close()
		return nil, err
	}
	_ = f.Fd() // makes it a file whose Close does not wait for reads that are left behind
	return &File{
		f: f, conn: conn, size: size, modTime: info.ModTime(), regular: info.Mode().IsRegular(),
		busy: make(chan struct{}, maxBusy),
	}, nil
}

// Size is the size of the file in bytes when it was opened.
func (f *File) Size() int64 { return f.size }

// ModTime is the file's mtime when it was opened.
func (f *File) ModTime() time.Time { return f.modTime }

// Close closes the file. Reads to come fail; the file stays open for those that are under way.
func (f *File) Close() error { return f.f.Close() }

// unchanged compares the file with what was opened. A device changes its mtime
// at will and is not compared.
func (f *File) unchanged() error {
	info, err := f.f.Stat()
	if err != nil {
		return err
	}
	if f.regular && (info.Size() != f.size || !info.ModTime().Equal(f.modTime)) {
		return ErrChanged
	}
	return nil
}

// OpenRange returns the bytes of r.
func (f *File) OpenRange(ctx context.Context, r blockio.Range) (io.ReadCloser, error) {
	if !r.Inside(f.size) {
		return nil, fmt.Errorf("bytes %d+%d of a file of %d", r.Off, r.Len, f.size)
	}
	if _, err := aside(ctx, f, func() (struct{}, error) { return struct{}{}, f.unchanged() }); err != nil {
		return nil, err
	}
	return &stream{ctx: ctx, file: f, left: r.Extent}, nil
}

// ReadAtContext reads bytes of the file.
func (f *File) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if within, eof := blockio.Clip(p, off, f.size); len(within) > 0 && ctx.Err() == nil && f.ReadNow(within, off) {
		return len(within), eof
	}
	return blockio.ReadRange(ctx, f, p, off)
}

// ReadNow reads bytes of the file that are in the page cache, where its file system can
// tell.
func (f *File) ReadNow(p []byte, off int64) bool {
	if off < 0 { // which to preadv2 is a place in the file
		return false
	}
	r := prompts.Get().(*prompt)
	defer prompts.Put(r)
	r.file, r.to[0], r.off, r.ok = f, p, off, false
	err := f.conn.Control(r.read)
	r.file, r.to[0] = nil, nil
	return err == nil && r.ok
}

// prompt is one call of ReadNow. They are recycled, so that it makes no garbage.
type prompt struct {
	file *File
	to   [1][]byte
	off  int64
	ok   bool
	read func(fd uintptr)
}

var prompts = sync.Pool{New: func() any {
	r := new(prompt)
	r.read = func(fd uintptr) {
		n, err := unix.Preadv2(int(fd), r.to[:], r.off, unix.RWF_NOWAIT)
		r.ok = err == nil && n == len(r.to[0]) && r.file.sameAs(int(fd))
	}
	return r
}}

// sameAs compares the file, open as fd, with what was opened. It need not wait: RWF_NOWAIT is
// for file systems of local disks (ext4, XFS, Btrfs, F2FS), which have to ask nobody.
func (f *File) sameAs(fd int) bool {
	if !f.regular {
		return true
	}
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	return err == nil && st.Size == f.size && f.modTime.Equal(time.Unix(st.Mtim.Unix()))
}

// MapAt tells the holes of the file, where its file system knows them.
func (f *File) MapAt(_ context.Context, off int64) (n int64, zeros bool, err error) {
	if err := f.unchanged(); err != nil {
		return 0, false, err
	}
	data, err := f.f.Seek(off, unix.SEEK_DATA)
	switch {
	case errors.Is(err, unix.ENXIO): // there is none any more
		return f.size - off, true, nil
	case err != nil: // a device
		return f.size - off, false, nil
	case data > off:
		return min(data, f.size) - off, true, nil
	}
	hole, err := f.f.Seek(off, unix.SEEK_HOLE)
	if err != nil || hole <= off {
		return f.size - off, false, nil
	}
	return min(hole, f.size) - off, false, nil
}

// stream reads a range until its context ends.
type stream struct {
	ctx  context.Context // of OpenRange
	file *File
	left blockio.Extent
}

func (s *stream) Read(p []byte) (int, error) {
	if s.left.Len == 0 {
		return 0, io.EOF
	}
	n, at := min(int64(len(p)), s.left.Len, maxPiece), s.left.Off
	got, err := aside(s.ctx, s.file, func() (piece, error) {
		// Not into p, which is somebody else's when the read is left behind.
		buf := pieces.Get().(*[maxPiece]byte)
		n, err := s.file.f.ReadAt(buf[:n], at)
		return piece{buf, n}, err
	})
	if got.buf != nil {
		copy(p, got.buf[:got.n])
		pieces.Put(got.buf)
	}
	s.left.Off += int64(got.n)
	s.left.Len -= int64(got.n)
	return got.n, err
}

func (s *stream) Close() error { return nil }

// piece is n bytes that were read.
type piece struct {
	buf *[maxPiece]byte
	n   int
}

var pieces = sync.Pool{New: func() any { return new([maxPiece]byte) }}

// outcome is what a call has returned.
type outcome[T any] struct {
	value T
	err   error
}

// aside calls do, which uses the file, and returns what it does, or ctx's error if that ends
// first: then do is left behind.
func aside[T any](ctx context.Context, f *File, do func() (T, error)) (value T, err error) {
	if err := ctx.Err(); err != nil {
		return value, err
	}
	select {
	case f.busy <- struct{}{}:
	case <-ctx.Done():
		return value, ctx.Err()
	}
	done := make(chan outcome[T], 1)
	go func() {
		defer func() { <-f.busy }()
		value, err := do()
		done <- outcome[T]{value, err}
	}()
	select {
	case o := <-done:
		return o.value, o.err
	case <-ctx.Done():
		return value, ctx.Err()
	}
}
