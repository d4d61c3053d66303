package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
)

// newFile makes the file at path. write fills it while it has no name, or where the
// file system can't do that, another name in the same directory; it gets its own
// when it is complete and on the disk, and is gone after any error before that. What is
// there is an error that wraps os.ErrExist; with replace a regular file there, or where a
// link there leads to, lends its mode and is replaced.
func newFile(path string, replace bool, write func(f *os.File) error) error {
	look := os.Lstat
	if replace {
		look = os.Stat // a link that leads nowhere is replaced
		if target, err := filepath.EvalSymlinks(path); err == nil {
			path = target
		}
	}
	mode := 0o666 &^ umask()
	if info, err := look(path); err == nil {
		switch {
		case !replace:
			return &os.PathError{Op: "create", Path: path, Err: os.ErrExist}
		case !info.Mode().IsRegular():
			return &os.PathError{Op: "replace", Path: path, Err: errors.New("not a regular file")}
		}
		mode = info.Mode().Perm()
	}
	p, err := newUnnamed(path)
	if err != nil {
		p, err = newNamed(path)
	}
	if err != nil {
		return err
	}
	return p.fill(mode, replace, write)
}

// newFileOf is newFile for what is made of an image. write tells done how much of size bytes
// it has read; its errors are failures to read them, but for those of out.
func newFileOf(cmd *cobra.Command, path string, replace bool, size int64, write func(out taggedOutput, done func(int64)) error) error {
	return newFile(path, replace, func(f *os.File) error {
		done, end := watchBytes(cmd.ErrOrStderr(), size)
		defer end()
		err := write(taggedOutput{f}, done)
		var out *outputError
		switch {
		case err == nil, errors.Is(err, context.Canceled) && cmd.Context().Err() != nil:
			return err
		case errors.As(err, &out):
			return out.err
		}
		err = line.Failure(fmt.Errorf("read the disk: %w", err))
		var known *cli.Error
		if line.BadBlock(err) && errors.As(err, &known) {
			known.Hint = "cloopfs verify lists the bad blocks"
		}
		return err
	})
}

// writeFailure says that what newFile makes could not be written. What else has failed, and
// an interrupt, stay what they are.
func writeFailure(what string, err error) error {
	if errors.As(err, new(*cli.Error)) || errors.Is(err, context.Canceled) {
		return err
	}
	f := &cli.Error{Code: cli.ExitFailure, Err: fmt.Errorf("write the %s: %w", what, err)}
	if errors.Is(err, os.ErrExist) {
		f.Hint = "--force replaces it"
	}
	return f
}

// pendingFile is a file that is to get a name when it is complete.
type pendingFile struct {
	f    *os.File
	path string // that it is to get
	name string // that it has; empty: none
}

// newUnnamed makes a file that has no name, and is gone with the process.
func newUnnamed(path string) (*pendingFile, error) {
	fd, err := unix.Open(filepath.Dir(path), unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, err
	}
	p := &pendingFile{f: os.NewFile(uintptr(fd), path), path: path}
	if _, err := os.Stat(p.proc()); err != nil { // without /proc it could get no name
		p.f.Close()
		return nil, err
	}
	return p, nil
}

// newNamed makes a file that has another name in path's directory.
func newNamed(path string) (*pendingFile, error) {
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix(path)+"*")
	if err != nil {
		return nil, err
	}
	return &pendingFile{f: f, path: path, name: f.Name()}, nil
}

func tempPrefix(path string) string { return "." + filepath.Base(path) + "." }

// proc is where the open file is in /proc.
func (p *pendingFile) proc() string { return fmt.Sprintf("/proc/self/fd/%d", p.f.Fd()) }

// fill has write fill the file, and gives it its name and mode.
func (p *pendingFile) fill(mode os.FileMode, replace bool, write func(f *os.File) error) (err error) {
	defer func() {
		p.f.Close()
		if err != nil && p.name != "" {
			os.Remove(p.name)
		}
	}()
	if err := write(p.f); err != nil {
		return err
	}
	if err := errors.Join(p.f.Chmod(mode), p.f.Sync()); err != nil {
		return err
	}
	if err := p.install(replace); err != nil {
		return err
	}
	p.name = ""
	return errors.Join(p.f.Close(), syncDir(filepath.Dir(p.path)))
}

// install gives the file its name.
func (p *pendingFile) install(replace bool) error {
	if p.name == "" {
		err := p.link(p.path)
		if err == nil || !replace || !errors.Is(err, os.ErrExist) {
			return err
		}
		// Only a file that has a name can take another's.
		for errors.Is(err, os.ErrExist) {
			name := filepath.Join(filepath.Dir(p.path), tempPrefix(p.path)+fmt.Sprint(rand.Uint32()))
			if err = p.link(name); err == nil {
				p.name = name
			}
		}
		if err != nil {
			return err
		}
	}
	if replace {
		return os.Rename(p.name, p.path)
	}
	return renameNew(p.name, p.path)
}

// link gives a file without a name one that nobody has.
func (p *pendingFile) link(name string) error {
	err := unix.Linkat(unix.AT_FDCWD, p.proc(), unix.AT_FDCWD, name, unix.AT_SYMLINK_FOLLOW)
	if err != nil {
		return &os.PathError{Op: "create", Path: name, Err: err}
	}
	return nil
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

// isAt says whether path leads to the local file at l.
func isAt(l line.Location, path string) bool {
	info, err := os.Stat(l.Path)
	return l.URL == "" && err == nil && leadsTo(path, info)
}

// leadsTo says whether path leads to the file of info.
func leadsTo(path string, info os.FileInfo) bool {
	there, err := os.Stat(path)
	return err == nil && os.SameFile(there, info)
}

// inside says whether newFile makes a file at path in the directory of info, or
// below it.
func inside(path string, info os.FileInfo) bool {
	target, err := filepath.EvalSymlinks(path)
	if err != nil { // not there yet
		dir, err := filepath.EvalSymlinks(filepath.Dir(path))
		if err != nil {
			return false
		}
		target = filepath.Join(dir, filepath.Base(path))
	}
	for at := filepath.Dir(target); ; at += "/.." {
		if leadsTo(at, info) {
			return true
		}
		if here, err := os.Stat(at); err != nil || leadsTo(at+"/..", here) {
			return false
		}
	}
}

// syncDir makes the names in a directory durable, if it may be read.
func syncDir(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return nil
	}
	defer dir.Close()
	return syncFile(dir)
}

// syncOutput is syncFile for what was written in place, if that is a file: a device takes
// what it then may fail to write.
func syncOutput(w io.Writer) error {
	if f, ok := w.(*os.File); ok {
		return syncFile(f)
	}
	return nil
}

// syncFile makes f durable, if it is what can be: a pipe can't, nor directories of
// some file systems.
func syncFile(f *os.File) error {
	if err := f.Sync(); err != nil && !errors.Is(err, unix.EINVAL) && !errors.Is(err, errors.ErrUnsupported) {
		return err
	}
	return nil
}
