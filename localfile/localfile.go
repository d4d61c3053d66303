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
// file can't be interrupted: a context that ends is noticed between them.
type File struct {
	f       *os.File
	conn    syscall.RawConn // of f
	size    int64
	modTime time.Time
	regular bool
}

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
	return &File{f: f, conn: conn, size: size, modTime: info.ModTime(), regular: info.Mode().IsRegular()}, nil
}

// Size is the size of the file in bytes when it was opened.
func (f *File) Size() int64 { return f.size }

// ModTime is the file's mtime when it was opened.
func (f *File) ModTime() time.Time { return f.modTime }

// Close closes the file. Reads under way or to come fail.
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
	if err := f.unchanged(); err != nil {
		return nil, err
	}
	return &stream{ctx: ctx, bytes: io.NewSectionReader(f.f, r.Off, r.Len)}, nil
}

// ReadAtContext reads bytes of the file.
func (f *File) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
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
	ctx   context.Context // of OpenRange
	bytes *io.SectionReader
}

func (s *stream) Read(p []byte) (int, error) {
	if err := s.ctx.Err(); err != nil {
		return 0, err
	}
	return s.bytes.Read(p)
}

func (s *stream) Close() error { return nil }
