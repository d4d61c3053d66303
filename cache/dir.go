package cache

import (
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/ownfile"
)

// errUnsafe says that a directory is not fit to be believed.
var errUnsafe = errors.New("other users could change what is in it")

// Options bounds a cache directory.
type Options struct {
	// Size is how many bytes of the disk the whole directory may take.
	Size int64
	// MinFree is how many bytes of its file system it leaves free.
	MinFree int64
	// Existing is for who only looks: nothing is made, and a directory that has
	// other things in it is none.
	Existing bool
	// Logger gets a line for what goes wrong. nil means none.
	Logger *slog.Logger
}

// ErrNoCache says that a directory is not a cache.
var ErrNoCache = errors.New("not a cache: it has other files in it")

// Dir is a cache directory: an Entry for each image. It is safe for concurrent use,
// also by several processes.
type Dir struct {
	f    *os.File
	path string
	opt  Options
	room room

	bounds *os.File // our lock in it says what bound we keep; guarded by room.mu
}

// lockName is the file in a cache directory whose lock is held by who throws away
// or changes a meta file.
const lockName = "lock"

// boundsName is the file whose locks say which bounds the running processes keep.
const boundsName = "bounds"

// OpenDir opens the cache directory at path, and makes it if need be. It is an error
// if others could write there. With opt.Existing the error wraps fs.ErrNotExist if
// there is nothing, and ErrNoCache if it is something else.
func OpenDir(path string, opt Options) (*Dir, error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if !opt.Existing {
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			return nil, err
		}
		if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
			return nil, err
		}
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		if err == unix.ENOTDIR || err == unix.ELOOP {
			err = errors.New("not a directory (links are not followed)")
		}
		return nil, err
	}
	d := &Dir{f: os.NewFile(uintptr(fd), path), path: path, opt: opt}
	d.room.dir, d.room.start = d, time.Now()
	err = ownfile.Check(d.f, errUnsafe)
	if err == nil && opt.Existing {
		err = d.checkCache()
	}
	if err != nil {
		d.f.Close()
		return nil, err
	}
	return d, nil
}

// checkCache checks that the directory has been used as a cache, or for nothing.
func (d *Dir) checkCache() error {
	names, err := d.names()
	if err != nil {
		return err
	}
	names = slices.DeleteFunc(names, func(name string) bool { return name == "lost+found" })
	ours := func(name string) bool {
		return name == lockName || name == boundsName || strings.HasPrefix(name, seenPrefix) || strings.HasPrefix(name, newPrefix) || isEntryName(name)
	}
	if len(names) > 0 && !slices.ContainsFunc(names, ours) {
		return ErrNoCache
	}
	return nil
}

// Close closes the directory, not the entries that were opened in it.
func (d *Dir) Close() error {
	if d.bounds != nil {
		d.bounds.Close()
	}
	return d.f.Close()
}

// Path is where the directory is.
func (d *Dir) Path() string { return d.path }

// look opens the directory of an entry and reads its meta.
func (d *Dir) look(name string) (*os.File, meta, error) {
	f, err := ownfile.OpenAt(d.f, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, meta{}, err
	}
	err = ownfile.Check(f, errUnsafe)
	var m meta
	if err == nil {
		m, err = readMeta(f)
	}
	if err != nil {
		f.Close()
		return nil, m, err
	}
	return f, m, nil
}

// names lists what is in the directory.
func (d *Dir) names() ([]string, error) { return ownfile.Names(d.f) }

// each calls f for each entry that can be read.
func (d *Dir) each(f func(name string, dir *os.File, m meta)) error {
	names, err := d.names()
	if err != nil {
		return err
	}
	slices.Sort(names)
	for _, name := range names {
		if strings.HasPrefix(name, newPrefix) {
			continue
		}
		if dir, m, err := d.look(name); err == nil {
			f(name, dir, m)
			dir.Close()
		}
	}
	return nil
}

// lockPatience is how long to wait for another process that holds the lock: it
// may have been stopped.
const lockPatience = 5 * time.Second

// lockPoll is how often who waits for the lock looks whether it is free.
const lockPoll = 5 * time.Millisecond

// errLocked says that another process did not let go of the lock.
var errLocked = errors.New("the cache is locked by another process")

// lock takes the directory's lock.
func (d *Dir) lock(patience time.Duration) (unlock func(), err error) {
	f, err := ownfile.OpenAt(d.f, lockName, unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return nil, err
	}
	for until := time.Now().Add(patience); ; time.Sleep(lockPoll) {
		err := flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { f.Close() }, nil
		}
		if err != unix.EWOULDBLOCK && err != unix.EINTR {
			f.Close()
			return nil, err
		}
		if time.Now().After(until) {
			f.Close()
			return nil, errLocked
		}
	}
}
