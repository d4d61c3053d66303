package main

import (
	"errors"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// newFile makes the file at path. write fills it under another name in the same
// directory; it gets its own when it is complete and on the disk, and is removed
// after any error. What is there is an error that wraps os.ErrExist; with replace a
// regular file there, or where a link there leads to, lends its mode and is replaced.
func newFile(path string, replace bool, write func(f *os.File) error) (err error) {
	if target, err := filepath.EvalSymlinks(path); err == nil && replace {
		path = target
	}
	mode := 0o666 &^ umask()
	if info, err := os.Lstat(path); err == nil {
		switch {
		case !replace:
			return &os.PathError{Op: "create", Path: path, Err: os.ErrExist}
		case !info.Mode().IsRegular():
			return &os.PathError{Op: "replace", Path: path, Err: errors.New("not a regular file")}
		}
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	if err := write(f); err != nil {
		return err
	}
	if err := errors.Join(f.Chmod(mode), f.Sync(), f.Close()); err != nil {
		return err
	}
	if replace {
		return os.Rename(f.Name(), path)
	}
	return renameNew(f.Name(), path)
}

// renameNew renames a file, but not to a name that somebody has taken meanwhile.
func renameNew(from, to string) error {
	err := unix.Renameat2(unix.AT_FDCWD, from, unix.AT_FDCWD, to, unix.RENAME_NOREPLACE)
	if errors.Is(err, unix.EINVAL) || errors.Is(err, unix.ENOSYS) { // not every file system can
		return os.Rename(from, to)
	}
	if err != nil {
		return &os.LinkError{Op: "rename", Old: from, New: to, Err: err}
	}
	return nil
}
