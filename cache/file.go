package cache

import (
	"errors"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/ownfile"
)

// file is an open file of an entry.
type file interface {
	ownfile.Sparse
	// Allocated is how many bytes of the disk the file takes.
	Allocated() (int64, error)
	// Sync returns when all that was written would be there after a power cut.
	Sync() error
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
	f, err := ownfile.OpenAt(d.f, name, flags)
	if err != nil {
		return nil, err
	}
	return osFile{ownfile.File{File: f}}, nil
}

// osFile is a file of the file system.
type osFile struct{ ownfile.File }

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

// replaceFile makes text the content of the file name in dir: whatever happens, it has the
// old content or the new one. The latter is called temporary until all of it is written.
func replaceFile(dir *os.File, name, temporary string, text []byte) error {
	f, err := ownfile.OpenAt(dir, temporary, unix.O_WRONLY|unix.O_CREAT|unix.O_TRUNC)
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	err = errors.Join(err, f.Sync(), f.Close()) // a crash may else leave an empty file under the name
	if err == nil {
		err = unix.Renameat(int(dir.Fd()), temporary, int(dir.Fd()), name)
	}
	if err != nil {
		_ = unix.Unlinkat(int(dir.Fd()), temporary, 0) // what there is of it takes room
	}
	return err
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
	f, err := ownfile.OpenAt(dir, name, unix.O_RDONLY)
	if err != nil {
		return false
	}
	defer f.Close()
	return flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil
}
