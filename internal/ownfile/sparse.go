package ownfile

import (
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// Sparse is an open file with holes, read and written by position only.
type Sparse interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// Punch makes a hole of whole pages: their bytes are zeros from now on, and take no
	// room. The file's size stays.
	Punch(off, n int64) error
	// NextData is the offset of the first byte at or behind off that may be other than
	// zero. The error is io.EOF if there is none.
	NextData(off int64) (int64, error)
	// NextHole is the offset of the first byte at or behind off that takes no room: the
	// file's end if there is no other. The error is io.EOF behind that.
	NextHole(off int64) (int64, error)
}

// File is a file of the file system. It implements [Sparse], as far as the file system
// has holes: the error of Punch wraps EOPNOTSUPP where there are none, and the others
// take all of the file for data.
type File struct{ *os.File }

// Punch is [Sparse]'s.
func (f File) Punch(off, n int64) error {
	err := IgnoringEINTR(func() error {
		return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	})
	if err != nil {
		return &os.PathError{Op: "punch", Path: f.Name(), Err: err}
	}
	return nil
}

// NextData is [Sparse]'s.
func (f File) NextData(off int64) (int64, error) { return f.seek(off, unix.SEEK_DATA) }

// NextHole is [Sparse]'s.
func (f File) NextHole(off int64) (int64, error) { return f.seek(off, unix.SEEK_HOLE) }

func (f File) seek(off int64, whence int) (int64, error) {
	at, err := unix.Seek(int(f.Fd()), off, whence)
	if err == unix.ENXIO {
		return 0, io.EOF
	}
	return at, err
}

// Allocated is how many bytes of the disk the file takes.
func (f File) Allocated() (int64, error) {
	st, err := stat(f.File)
	if err != nil {
		return 0, err
	}
	return st.Blocks * 512, nil
}
