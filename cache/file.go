package cache

import (
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// file is an open file of an entry, read and written by position only.
type file interface {
	io.ReaderAt
	io.WriterAt
	io.Closer
	// punch makes a hole of whole pages: its bytes are zero from now on, and
	// take no room.
	punch(off, n int64) error
	// allocated is how many bytes of the disk the file takes.
	allocated() (int64, error)
	// nextData is the offset of the first byte at or behind off that may be
	// other than zero. The error is io.EOF if there is none.
	nextData(off int64) (int64, error)
	// nextHole is the offset of the first byte at or behind off that takes no room:
	// the file's end if there is no other. The error is io.EOF behind that.
	nextHole(off int64) (int64, error)
	// claim tries to lock bytes [off, off+n) against other processes, until
	// unclaim or the process's end.
	claim(off, n int64) bool
	unclaim(off, n int64)
	// claimed says whether another has locked some of these bytes.
	claimed(off, n int64) bool
}

// directory is where the files of an entry are.
type directory interface {
	// open opens a file, and makes it if it is not there and write is true.
	open(name string, write bool) (file, error)
}

// osDir is a directory of the file system.
type osDir struct{ f *os.File }

func (d osDir) open(name string, write bool) (file, error) {
	flags := unix.O_RDONLY
	if write {
		flags = unix.O_RDWR | unix.O_CREAT
	}
	f, err := openAt(d.f, name, flags)
	if err != nil {
		return nil, err
	}
	return osFile{f}, nil
}

// openAt opens name in dir, never through a link.
func openAt(dir *os.File, name string, flags int) (*os.File, error) {
	for {
		fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		switch err {
		case nil:
			return os.NewFile(uintptr(fd), name), nil
		case unix.EINTR:
		default:
			return nil, &os.PathError{Op: "open", Path: name, Err: err}
		}
	}
}

// osFile is a file of the file system.
type osFile struct{ *os.File }

func (f osFile) punch(off, n int64) error {
	return unix.Fallocate(int(f.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, off, n)
}

func (f osFile) allocated() (int64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(f.Fd()), &st); err != nil {
		return 0, err
	}
	return st.Blocks * 512, nil
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

// claim takes an open-file-description lock: several descriptions of one process
// exclude each other, and the kernel drops it when the process dies.
func (f osFile) claim(off, n int64) bool {
	err := f.lock(unix.F_WRLCK, off, n)
	return err != unix.EAGAIN && err != unix.EACCES // another is of a file system without locks
}

func (f osFile) unclaim(off, n int64) { _ = f.lock(unix.F_UNLCK, off, n) } // nothing else can be done

func (f osFile) claimed(off, n int64) bool {
	l := unix.Flock_t{Type: unix.F_WRLCK, Whence: io.SeekStart, Start: off, Len: n}
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_GETLK, &l) == nil && l.Type != unix.F_UNLCK
}

func (f osFile) lock(kind int16, off, n int64) error {
	return unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: kind, Whence: io.SeekStart, Start: off, Len: n})
}

// modTime is the mtime of a file in an entry's directory; zero if it can't be told.
func modTime(dir *os.File, name string) time.Time {
	var st unix.Stat_t
	if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return time.Time{}
	}
	return time.Unix(st.Mtim.Unix()).UTC()
}

// flock is a variable for the tests' sake.
var flock = unix.Flock

// locked says whether some process holds a lock on a file in an entry's directory.
func locked(dir *os.File, name string) bool {
	f, err := openAt(dir, name, unix.O_RDONLY)
	if err != nil {
		return false
	}
	defer f.Close()
	return flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}
