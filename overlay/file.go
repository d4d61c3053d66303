package overlay

import (
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

// file is an open file of an overlay, read and written by position only.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// punch makes a hole of whole clusters: its bytes are zeros from now on.
	punch(off, n int64) error
	// sync returns when all that was written and punched is durable.
	sync() error
	// nextData is the offset of the first byte at or behind off that may be
	// other than zero. The error is io.EOF if there is none.
	nextData(off int64) (int64, error)
	// nextHole is the offset of the first byte at or behind off that takes no
	// room: the file's end if there is no other. The error is io.EOF behind that.
	nextHole(off int64) (int64, error)
}

// osFile is a file of the file system.
type osFile struct{ *os.File }

// openAt opens a regular file in dir, never through a link.
func openAt(dir *os.File, name string, flags int) (osFile, error) {
	fail := func(err error) (osFile, error) {
		return osFile{}, &os.PathError{Op: "open", Path: name, Err: err}
	}
	for {
		// Not to wait for the other end, should it be a pipe.
		fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
		switch err {
		case nil:
			f := os.NewFile(uintptr(fd), name)
			if err := checkFile(f); err != nil {
				f.Close()
				return fail(err)
			}
			return osFile{f}, nil
		case unix.EINTR:
		case unix.ELOOP:
			return fail(errors.New("not a file (links are not followed)"))
		default:
			return fail(err)
		}
	}
}

// checkFile checks that f is a file, and that nobody but us can change it.
func checkFile(f *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return err
	}
	switch {
	case st.Mode&unix.S_IFMT != unix.S_IFREG:
		return errors.New("not a file")
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%w: it belongs to user %d", ErrUnsafe, st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%w: its mode is %04o", ErrUnsafe, st.Mode&0o7777)
	case st.Nlink > 1:
		return fmt.Errorf("%w: it has another name (cp -al?), under which it would change, too", ErrUnsafe)
	}
	return nil
}

func (f osFile) punch(off, n int64) error {
	err := unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
	if err != nil {
		return &os.PathError{Op: "punch", Path: f.Name(), Err: err}
	}
	return nil
}

func (f osFile) sync() error {
	for {
		switch err := unix.Fdatasync(int(f.Fd())); err {
		case nil:
			return nil
		case unix.EINTR:
		default:
			return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
		}
	}
}

func (f osFile) nextData(off int64) (int64, error) { return f.seek(off, unix.SEEK_DATA) }

func (f osFile) nextHole(off int64) (int64, error) { return f.seek(off, unix.SEEK_HOLE) }

func (f osFile) seek(off int64, whence int) (int64, error) {
	at, err := unix.Seek(int(f.Fd()), off, whence)
	if err == unix.ENXIO {
		return 0, io.EOF
	}
	return at, err
}

// allocate takes room on the disk for the first n bytes, so that writing them later
// does not fail for want of it. What was there stays.
func (f osFile) allocate(n int64) error {
	err := unix.Fallocate(int(f.Fd()), 0, 0, n)
	if err != nil {
		return fmt.Errorf("take %d bytes for the %s: %w", n, f.Name(), err)
	}
	return nil
}

// allocated is how many bytes of the disk the file takes.
func (f osFile) allocated() (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	return st.Blocks * 512, nil
}

func (f osFile) size() (int64, error) {
	info, err := f.Stat()
	if err != nil {
		return 0, err
	}
	return info.Size(), nil
}

// holes says whether the file's file system has them. Nothing is changed.
func (f osFile) holes() error {
	size, err := f.size()
	if err != nil {
		return err
	}
	err = f.punch(clusterEnd(size)*clusterSize, clusterSize) // behind the end
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return ErrNoHoles
	}
	return err
}
