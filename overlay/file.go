package overlay

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/ownfile"
)

// file is an open file of an overlay.
type file interface {
	ownfile.Sparse
	// sync returns when all that was written and punched is durable.
	sync() error
}

// osFile is a file of the file system.
type osFile struct{ ownfile.File }

// openAt opens a regular file in dir, never through a link.
func openAt(dir *os.File, name string, flags int) (osFile, error) {
	f, err := ownfile.OpenAt(dir, name, flags)
	if errors.Is(err, unix.ELOOP) {
		err = &os.PathError{Op: "open", Path: name, Err: errors.New("not a file (links are not followed)")}
	}
	if err != nil {
		return osFile{}, err
	}
	if err := checkFile(f); err != nil {
		f.Close()
		return osFile{}, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return osFile{ownfile.File{File: f}}, nil
}

// checkFile checks that f is a file, and that nobody but us can change it.
func checkFile(f *os.File) error {
	info, err := f.Stat()
	if err != nil {
		return err
	}
	if !info.Mode().IsRegular() {
		return errors.New("not a file")
	}
	if err := ownfile.Check(f, ErrUnsafe); err != nil {
		return err
	}
	if info.Sys().(*syscall.Stat_t).Nlink > 1 {
		return fmt.Errorf("%w: it has another name (cp -al?), under which it would change, too", ErrUnsafe)
	}
	return nil
}

func (f osFile) sync() error {
	if err := ownfile.IgnoringEINTR(func() error { return unix.Fdatasync(int(f.Fd())) }); err != nil {
		return &os.PathError{Op: "sync", Path: f.Name(), Err: err}
	}
	return nil
}

// allocate takes room on the disk for the first n bytes, so that writing them later
// does not fail for want of it. What was there stays.
func (f osFile) allocate(n int64) error {
	err := ownfile.IgnoringEINTR(func() error { return unix.Fallocate(int(f.Fd()), 0, 0, n) })
	if err != nil {
		return fmt.Errorf("take %d bytes for the %s: %w", n, f.Name(), err)
	}
	return nil
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
	err = f.Punch(clusterEnd(size)*clusterSize, clusterSize) // behind the end
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.ENOSYS) {
		return ErrNoHoles
	}
	return err
}
