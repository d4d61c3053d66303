// Package ownfile is about the files that a process keeps for itself in a directory:
// that nobody else can put something in their place, and the holes in them.
package ownfile

import (
	"fmt"
	"os"
	"syscall"

	"golang.org/x/sys/unix"
)

// OpenAt opens name in dir with open(2)'s flags. It follows no symbolic link: the error
// wraps ELOOP, or ENOTDIR with O_DIRECTORY. It does not wait for the other end of a pipe.
// A file that it makes is for our user alone.
func OpenAt(dir *os.File, name string, flags int) (*os.File, error) {
	var fd int
	err := IgnoringEINTR(func() (err error) {
		fd, err = unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, 0o600)
		return err
	})
	if err != nil {
		return nil, &os.PathError{Op: "open", Path: name, Err: err}
	}
	return os.NewFile(uintptr(fd), name), nil
}

// Names lists what is in a directory, in no order. Several may list one at a time.
func Names(dir *os.File) ([]string, error) {
	f, err := OpenAt(dir, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

// Check checks that f is our user's, and that by its mode nobody else can write to it:
// change a file, or what is in a directory. If that is not so the error wraps unsafe.
func Check(f *os.File, unsafe error) error {
	st, err := stat(f)
	switch {
	case err != nil:
		return err
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%w: it belongs to user %d", unsafe, st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%w: its mode is %04o", unsafe, st.Mode&0o7777)
	}
	return nil
}

// IsAt says whether f is what dir has under a name: since f was opened it may have been
// removed, or replaced.
func IsAt(dir *os.File, name string, f *os.File) (bool, error) {
	was, err := stat(f)
	if err != nil {
		return false, err
	}
	var is unix.Stat_t
	err = IgnoringEINTR(func() error { return unix.Fstatat(int(dir.Fd()), name, &is, unix.AT_SYMLINK_NOFOLLOW) })
	switch err {
	case nil:
		return is.Ino == was.Ino && is.Dev == was.Dev, nil
	case unix.ENOENT:
		return false, nil
	}
	return false, err
}

func stat(f *os.File) (*syscall.Stat_t, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	return info.Sys().(*syscall.Stat_t), nil
}
