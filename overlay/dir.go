package overlay

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/ownfile"
)

var (
	// errNotOverlay says that a directory is not an overlay.
	errNotOverlay = errors.New("not an overlay")
	// ErrInUse says that another process has the overlay open.
	ErrInUse = errors.New("the overlay is in use")
	// ErrBaseMismatch says that the overlay was made for another disk.
	ErrBaseMismatch = errors.New("the overlay was made for another image")
	// errVersion says that the overlay is of a version that is not known here.
	errVersion = errors.New("the overlay is of another version")
	// ErrDamaged says that the overlay's files make no sense.
	ErrDamaged = errors.New("the overlay is damaged")
	// ErrUnsafe says that somebody else could change the overlay.
	ErrUnsafe = errors.New("not safe to use")
	// errTooLarge says that a disk is too large for an overlay.
	errTooLarge = errors.New("too large for an overlay")
	// ErrNoHoles says that the overlay's file system has no holes in files.
	ErrNoHoles = errors.New("its file system has no holes in files (FAT?)")
)

// Names of an overlay's files.
const (
	metaName  = "meta"
	dataName  = "data"
	mapName   = "map"
	stateName = "state" // its flock is held by who has the overlay open
	// What meta is called until all of the overlay is there, and from when on it
	// is thrown away.
	newName  = "new"
	goneName = "discarded"
)

// The two contents of the file "state".
const (
	stateClean = "clean\n"
	stateOpen  = "open \n" // also after a crash: what was not flushed may be missing
)

// Dir is an overlay that is locked against other processes.
type Dir struct {
	path  string
	f     *os.File
	state osFile
	base  Base
	clean bool
	// What OpenOrMake has made.
	made, madeDir bool
}

// Open opens and locks the overlay in the directory at path. It is an error if there
// is none. The Dir is for View and Discard: it need not be on a disk that can be written to.
func Open(path string) (*Dir, error) {
	return open(path, unix.O_RDONLY, func(*Dir) error { return errNotOverlay })
}

// OpenOrMake is Open, but makes the overlay, for base, if the directory is empty or
// not there. An overlay whose making was broken off counts as none.
func OpenOrMake(path string, base Base) (*Dir, error) {
	if base.Size > maxDisk {
		return nil, &os.PathError{Op: "make", Path: path, Err: fmt.Errorf("%w: a disk of %d bytes", errTooLarge, base.Size)}
	}
	switch err := os.Mkdir(path, 0o700); {
	case err == nil:
		d, err := open(path, unix.O_RDWR|unix.O_CREAT, func(d *Dir) error { return d.make(base) })
		if err != nil {
			removeDir(path) // it was ours
			return nil, err
		}
		d.madeDir = true
		syncParent(path)
		return d, nil
	case !errors.Is(err, fs.ErrExist):
		return nil, err
	}
	return open(path, unix.O_RDWR|unix.O_CREAT, func(d *Dir) error { return d.make(base) })
}

// removeDir removes a directory that was just emptied. FUSE file systems notice a
// moment late that the files in it have been closed, and refuse until then.
func removeDir(path string) {
	for range 20 {
		if err := unix.Rmdir(path); err == nil || err == unix.ENOENT {
			return
		}
		time.Sleep(5 * time.Millisecond)
	}
}

// open opens and locks the overlay at path, whose lock's file is opened with flags. If
// there is no overlay, missing is called.
func open(path string, flags int, missing func(*Dir) error) (*Dir, error) {
	f, err := os.OpenFile(path, unix.O_RDONLY|unix.O_DIRECTORY, 0)
	if err != nil {
		return nil, err
	}
	d := &Dir{path: path, f: f}
	if err := d.lock(flags); err != nil {
		d.f.Close()
		return nil, d.error("open", err)
	}
	if d.base, err = readMeta(d.f, metaName); errors.Is(err, fs.ErrNotExist) {
		err = missing(d)
	}
	if err == nil {
		err = d.readState()
	}
	if err != nil {
		d.Close()
		return nil, d.error("open", err)
	}
	return d, nil
}

// error adds the overlay's path to err.
func (d *Dir) error(op string, err error) error {
	return &os.PathError{Op: op, Path: d.path, Err: err}
}

// lock takes the overlay's lock.
func (d *Dir) lock(flags int) error {
	if err := ownfile.Check(d.f, ErrUnsafe); err != nil {
		return err
	}
	if err := d.checkNames(); err != nil {
		return err
	}
	if _, err := readMeta(d.f, metaName); !errors.Is(err, fs.ErrNotExist) {
		flags |= unix.O_CREAT // the lock's file alone may have been lost
	}
	for until := time.Now().Add(lockPatience); ; {
		state, err := openAt(d.f, stateName, flags)
		if errors.Is(err, fs.ErrNotExist) {
			return errNotOverlay
		}
		if err != nil {
			return err
		}
		if err := flock(state, until); err != nil {
			state.Close()
			return err
		}
		// Who held it may have thrown the overlay away.
		here, err := ownfile.IsAt(d.f, stateName, state.File.File)
		if here {
			d.state = state
			return nil
		}
		state.Close()
		if err != nil {
			return err
		}
	}
}

// lockPatience is how long to wait for another process that has the overlay: its
// mount may be gone, and its last flush under way. A variable for the tests' sake.
var lockPatience = 5 * time.Second

func flock(f osFile, until time.Time) error {
	for {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		switch {
		case err == nil:
			return nil
		case err != unix.EWOULDBLOCK && err != unix.EINTR:
			return fmt.Errorf("lock the overlay: %w", err)
		case time.Now().After(until):
			return ErrInUse
		}
		time.Sleep(10 * time.Millisecond)
	}
}

// checkNames refuses a directory that is in use for something else.
func (d *Dir) checkNames() error {
	names, err := d.names()
	if err != nil || slices.Contains(names, metaName) {
		return err
	}
	ours := []string{
		dataName, mapName, stateName, newName, goneName,
		"lost+found", // an empty file system
	}
	if slices.Contains(names, dataName) && !slices.Contains(names, newName) && !slices.Contains(names, goneName) {
		return fmt.Errorf("%w: there is a file %s, but no %s", errNotOverlay, dataName, metaName)
	}
	for _, name := range names {
		if !slices.Contains(ours, name) {
			return fmt.Errorf("%w: there are other files in it (%s)", errNotOverlay, name)
		}
	}
	return nil
}

func (d *Dir) names() ([]string, error) {
	names, err := ownfile.Names(d.f)
	slices.Sort(names)
	return names, err
}

// make makes the overlay's files. Whatever breaks it off, meta comes last.
func (d *Dir) make(base Base) error {
	if err := d.makeFiles(base); err != nil {
		_ = d.clear(newName) // nothing of it is of use
		return err
	}
	// From here on it is an overlay, whatever happens.
	if err := unix.Renameat(int(d.f.Fd()), newName, int(d.f.Fd()), metaName); err != nil {
		return err
	}
	d.base, d.made = base, true
	return d.f.Sync()
}

// makeFiles makes all but meta.
func (d *Dir) makeFiles(base Base) error {
	if err := writeMeta(d.f, newName, base); err != nil {
		return err
	}
	if err := d.remove(goneName); err != nil {
		return err
	}
	bits, err := d.create(mapName)
	if err != nil {
		return err
	}
	defer bits.Close()
	if err := bits.holes(); err != nil {
		return err
	}
	data, err := d.create(dataName)
	if err != nil {
		return err
	}
	defer data.Close()
	// A disk that is too large for the file system is so before it costs anything.
	if err := errors.Join(data.Truncate(base.Size), data.Sync()); err != nil {
		return err
	}
	if err := errors.Join(bits.allocate(mapSize(base.Size)), bits.Sync()); err != nil {
		return err
	}
	return errors.Join(d.setState(stateClean), d.f.Sync())
}

// maxDisk is the largest disk that can have an overlay: its map takes 2 GiB.
const maxDisk = 64 << 40

// create makes the file name anew.
func (d *Dir) create(name string) (osFile, error) {
	return openAt(d.f, name, unix.O_RDWR|unix.O_CREAT|unix.O_TRUNC)
}

// syncParent makes the name of the directory at path durable, if its own directory
// can be opened.
func syncParent(path string) {
	if parent, err := os.Open(filepath.Dir(path)); err == nil {
		_ = parent.Sync()
		parent.Close()
	}
}

// mapSize is how long the map of a disk of size bytes is: whole pages.
func mapSize(size int64) int64 {
	return (clusterEnd(size) + pageClusters - 1) / pageClusters * pageSize
}

func (d *Dir) setState(s string) error {
	if _, err := d.state.WriteAt([]byte(s), 0); err != nil {
		return err
	}
	return d.state.sync()
}

// readState reads whether the overlay was closed.
func (d *Dir) readState() error {
	buf := make([]byte, len(stateClean))
	n, err := d.state.ReadAt(buf, 0)
	d.clean = string(buf[:n]) == stateClean
	if err == io.EOF {
		err = nil
	}
	return err
}

// Base is what the overlay was made for.
func (d *Dir) Base() Base { return d.base }

// Clean says that the last process that wrote to the overlay has closed it. If it has
// not, what it had flushed is there nevertheless.
func (d *Dir) Clean() bool { return d.clean }

// Made says whether the overlay, and the directory for it, were made when it was opened.
func (d *Dir) Made() (overlay, directory bool) { return d.made, d.madeDir }

// Close lets go of an overlay of which no Disk is open.
func (d *Dir) Close() error { return errors.Join(d.state.Close(), d.f.Close()) }

// Discard throws the overlay away, and what was written with it. The directory stays.
// The Dir must not be used any more. Whatever breaks it off, either all is there or
// the directory counts as empty.
func (d *Dir) Discard() error {
	defer d.Close()
	if err := unix.Renameat(int(d.f.Fd()), metaName, int(d.f.Fd()), goneName); err != nil {
		return d.error("discard", err)
	}
	if err := d.f.Sync(); err != nil {
		return d.error("discard", err)
	}
	if err := d.clear(goneName); err != nil {
		return d.error("discard", err)
	}
	if err := d.f.Sync(); err != nil {
		return d.error("discard", err)
	}
	return nil
}

// clear removes the overlay's files. While data or map are there, so is the file mark,
// which says that they count as none. The lock's file goes last: from then on another
// process may be making an overlay, and the files are its own.
func (d *Dir) clear(mark string) error {
	for _, name := range []string{dataName, mapName, mark, stateName} {
		if err := d.remove(name); err != nil {
			return err
		}
	}
	return nil
}

func (d *Dir) remove(name string) error {
	err := unix.Unlinkat(int(d.f.Fd()), name, 0)
	if err != nil && err != unix.ENOENT {
		return &os.PathError{Op: "remove", Path: name, Err: err}
	}
	return nil
}

// mismatch says what is wrong with base for this overlay, nil if it is the overlay's.
func (d *Dir) mismatch(base Base) error {
	var reasons []string
	if base.Size != d.base.Size {
		reasons = append(reasons, fmt.Sprintf("its disk has %d bytes, this one %d", d.base.Size, base.Size))
	} else if base.Identity != d.base.Identity {
		reasons = append(reasons, "its content or its date is another")
	}
	if len(reasons) == 0 {
		return nil
	}
	return fmt.Errorf("%w: %s (%s)", ErrBaseMismatch, strings.Join(reasons, ", "), d.base.Source)
}
