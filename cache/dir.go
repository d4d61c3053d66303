package cache

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// ErrNotCached says that nothing is kept of an image.
var ErrNotCached = errors.New("not in the cache")

// ErrAmbiguous says that it can't be told which of several images is meant.
var ErrAmbiguous = errors.New("several images in the cache have this URL but for its query")

// ErrUnsafe says that a directory is not fit to be believed.
var ErrUnsafe = errors.New("other users could change what is in it")

// Options bounds a cache directory.
type Options struct {
	// Size is how many bytes of the disk the whole directory may take.
	Size int64
	// MinFree is how many bytes of its file system it leaves free.
	MinFree int64
	// Logger gets a line for what goes wrong. nil means none.
	Logger *slog.Logger
}

// Dir is a cache directory: a Disk for each image. It is safe for concurrent use,
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

// newPrefix begins the name of an entry that is being made.
const newPrefix = "new-"

// OpenDir opens the cache directory at path, and makes it if need be. The error
// wraps ErrUnsafe if others could write there.
func OpenDir(path string, opt Options) (*Dir, error) {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return nil, err
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, err
	}
	if err := os.Mkdir(path, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return nil, err
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
	if err := checkOwn(d.f); err != nil {
		d.f.Close()
		return nil, err
	}
	return d, nil
}

// checkOwn checks that nobody but us can change what is in a directory.
func checkOwn(dir *os.File) error {
	var st unix.Stat_t
	if err := unix.Fstat(int(dir.Fd()), &st); err != nil {
		return err
	}
	switch {
	case int(st.Uid) != os.Geteuid():
		return fmt.Errorf("%w: it belongs to user %d", ErrUnsafe, st.Uid)
	case st.Mode&0o022 != 0:
		return fmt.Errorf("%w: its mode is %04o", ErrUnsafe, st.Mode&0o7777)
	}
	return nil
}

// Close closes the directory, not the Disks that were opened in it.
func (d *Dir) Close() error {
	if d.bounds != nil {
		d.bounds.Close()
	}
	return d.f.Close()
}

// Path is where the directory is.
func (d *Dir) Path() string { return d.path }

// An Entry is the Disk of an image in a cache directory, held open.
type Entry struct {
	*Disk
	dir  *Dir
	name string
	f    *os.File // the entry's directory
	held *os.File // its lock says that the entry is in use
	pin  *os.File // its lock says that nothing of it may go; nil if that is not so
	meta meta     // as it was when it was opened
	key  string   // under which Open was asked for it
}

// Open returns the entry of an image that a server has just shown to be id, and
// makes one if there is none. modTime is when the file was changed, as far as the
// server said. source is what was opened, as users may see it. Who has found that
// the entry does hold that image says so with Confirm.
func (d *Dir) Open(id Identity, source string, modTime time.Time) (*Entry, error) {
	id = id.bounded()
	for tries := 1; ; tries++ {
		e, err := d.openOrMake(id, modTime)
		if errors.Is(err, fs.ErrNotExist) && tries < 10 {
			continue // it was thrown away as it was found
		}
		if err != nil {
			return nil, err
		}
		e.key = id.Key
		if !slices.Contains(e.meta.Sources, source) || !e.meta.wasAt(id.Address) {
			// Who may not write it down does without.
			_ = e.update(func(m *meta) {
				m.Sources = add(m.Sources, source, maxSources)
				m.meet(id.Address)
			})
		}
		return e, nil
	}
}

func (d *Dir) openOrMake(id Identity, modTime time.Time) (*Entry, error) {
	name, err := d.search(func(m *meta) bool { return m.is(id) }, id.name())
	if errors.Is(err, ErrNotCached) {
		name, err = id.name(), d.create(id, modTime)
	}
	if err != nil {
		return nil, err
	}
	return d.open(name)
}

// Find returns the entry of the image at key that a server has confirmed last, for
// who can't ask a server: of those that were seen at address, if there are any and
// it is not empty. One that was not is taken if it is the only one at key: the
// query of a signed URL is always another. The error wraps ErrNotCached or
// ErrAmbiguous.
func (d *Dir) Find(key, address string) (*Entry, error) {
	var there, all latest
	err := d.each(func(name string, f *os.File, m meta) {
		if !m.at(key) {
			return
		}
		at := modTime(f, inUseName)
		all.add(name, at)
		if m.wasAt(address) {
			there.add(name, at)
		}
	})
	switch {
	case err != nil:
		return nil, err
	case there.count > 0:
		return d.open(there.name)
	case all.count == 1:
		return d.open(all.name)
	case all.count > 1:
		return nil, ErrAmbiguous
	}
	return nil, ErrNotCached
}

// latest is which of some entries was confirmed last.
type latest struct {
	name  string
	at    time.Time
	count int
}

func (l *latest) add(name string, at time.Time) {
	if l.count == 0 || at.After(l.at) {
		l.name, l.at = name, at
	}
	l.count++
}

// OpenNamed returns the entry of that name, as List has it.
func (d *Dir) OpenNamed(name string) (*Entry, error) { return d.open(name) }

// search returns the name of an entry whose meta is wanted: likely, or any other.
func (d *Dir) search(wanted func(*meta) bool, likely string) (string, error) {
	f, m, err := d.look(likely)
	if err == nil {
		f.Close()
		if wanted(&m) {
			return likely, nil
		}
	}
	if errors.Is(err, ErrVersion) || errors.Is(err, ErrUnsafe) {
		return "", err
	}
	found := ""
	err = d.each(func(name string, _ *os.File, m meta) {
		if found == "" && wanted(&m) {
			found = name
		}
	})
	if err == nil && found == "" {
		err = ErrNotCached
	}
	return found, err
}

// look opens the directory of an entry and reads its meta.
func (d *Dir) look(name string) (*os.File, meta, error) {
	f, err := openAt(d.f, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, meta{}, err
	}
	err = checkOwn(f)
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
func (d *Dir) names() ([]string, error) {
	f, err := openAt(d.f, ".", unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	return f.Readdirnames(-1)
}

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

// create makes an entry. It is no error if another process has made it.
func (d *Dir) create(id Identity, modTime time.Time) error {
	temporary := newName()
	at := int(d.f.Fd())
	if err := unix.Mkdirat(at, temporary, 0o700); err != nil {
		return err
	}
	m := meta{Size: id.Size, ModTime: modTime, Seen: []sighting{{id.Key, id.Validator}}}
	m.meet(id.Address)
	err := d.fill(temporary, m)
	if err == nil {
		err = unix.Renameat(at, temporary, at, id.name())
	}
	if err == nil {
		return nil
	}
	d.removeAll(temporary)
	if err == unix.ENOTEMPTY || err == unix.EEXIST {
		there, err := d.makeWay(id)
		if there || err != nil {
			return err
		}
		return d.create(id, modTime)
	}
	return err
}

// makeWay says whether the entry that is there under id's name is id's. If not, and
// it is of no use to anybody, it removes it.
func (d *Dir) makeWay(id Identity) (there bool, err error) {
	unlock, err := d.lock(lockPatience) // else what another process has made since goes
	if err != nil {
		return false, err
	}
	defer unlock()
	f, m, err := d.look(id.name())
	switch {
	case err == nil:
		f.Close()
		if m.is(id) {
			return true, nil
		}
	case !errors.Is(err, errDamaged):
		return false, err
	}
	return false, d.remove(id.name())
}

// newName is a name for an entry that is being made or removed.
func newName() string { return fmt.Sprintf("%s%d-%x", newPrefix, os.Getpid(), rand.Uint64()) }

// remove removes an entry, under another name: what is half removed must not be
// taken for an entry, and if this process dies meanwhile removeOld does the rest.
func (d *Dir) remove(name string) error {
	gone := newName()
	if err := unix.Renameat(int(d.f.Fd()), name, int(d.f.Fd()), gone); err != nil {
		return err
	}
	if !d.removeAll(gone) {
		return errors.New("can't be removed")
	}
	return nil
}

// fill makes the files of an entry.
func (d *Dir) fill(name string, m meta) error {
	f, err := openAt(d.f, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer f.Close()
	for name, size := range map[string]int64{dataName: m.Size, chunksName: 0, usedName: 0, inUseName: 0, pinName: 0} {
		file, err := openAt(f, name, unix.O_RDWR|unix.O_CREAT)
		if err != nil {
			return err
		}
		err = file.Truncate(size)
		file.Close()
		if err != nil {
			return err
		}
	}
	return writeMeta(f, m)
}

// removeAll removes an entry's directory with the files in it.
func (d *Dir) removeAll(name string) bool {
	f, err := openAt(d.f, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	for _, file := range names {
		err = errors.Join(err, unix.Unlinkat(int(f.Fd()), file, 0))
	}
	return err == nil && unix.Unlinkat(int(d.f.Fd()), name, unix.AT_REMOVEDIR) == nil
}

// open opens an entry and says that it is in use.
func (d *Dir) open(name string) (*Entry, error) {
	for until := time.Now().Add(lockPatience); ; time.Sleep(time.Millisecond) {
		e, gone, err := d.tryOpen(name)
		if !gone {
			return e, err
		}
		if time.Now().After(until) {
			return nil, errLocked
		}
	}
}

// tryOpen is open. gone says that the entry was thrown away meanwhile: the next
// attempt finds that out, or another in its place.
func (d *Dir) tryOpen(name string) (_ *Entry, gone bool, err error) {
	f, m, err := d.look(name)
	if err != nil {
		return nil, false, err
	}
	e := &Entry{dir: d, name: name, f: f, meta: m}
	defer func() {
		if gone || err != nil {
			e.Close()
		}
	}()
	write := true
	e.held, err = openAt(f, inUseName, unix.O_RDWR|unix.O_CREAT)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		write = false
		e.held, err = openAt(f, inUseName, unix.O_RDONLY)
	}
	if err == nil {
		// Another error is of a file system without locks: nothing is removed there.
		if flock(int(e.held.Fd()), unix.LOCK_SH|unix.LOCK_NB) == unix.EWOULDBLOCK {
			return nil, true, nil // it is being removed: that does not take long
		}
	} else if write {
		return nil, false, err
	}
	var was, is unix.Stat_t
	if unix.Fstat(int(f.Fd()), &was) != nil || unix.Fstatat(int(d.f.Fd()), name, &is, unix.AT_SYMLINK_NOFOLLOW) != nil || was.Ino != is.Ino {
		return nil, true, nil
	}
	e.Disk, err = newDisk(osDir{f}, m.Size, write)
	if err != nil {
		return nil, false, err
	}
	e.Disk.admit = func(n int64) bool { return d.room.admit(e, n) }
	e.Disk.failed = d.room.failed
	return e, false, nil
}

// Close lets go of the entry.
func (e *Entry) Close() {
	if e.Disk != nil {
		e.Disk.closeFiles()
	}
	if e.held != nil {
		e.held.Close()
	}
	if e.pin != nil {
		e.pin.Close()
	}
	e.f.Close()
}

// ModTime is when the file was changed, as the server said it first. It is zero
// if it did not.
func (e *Entry) ModTime() time.Time { return e.meta.ModTime }

// Confirm notes that a server has just said that the file is this one: as the
// mtime of a file that has no other use for it. Without it --offline may find an
// older version. It is later than that of all other versions, whatever the clock
// says: clocks tick slowly, and are stepped back.
func (e *Entry) Confirm() {
	if unlock, err := e.dir.lock(lockPatience); err == nil {
		defer unlock()
	}
	at := time.Now()
	_ = e.dir.each(func(_ string, f *os.File, m meta) {
		if last := modTime(f, inUseName); m.at(e.key) && !at.After(last) {
			at = last.Add(1)
		}
	})
	t, err := unix.TimeToTimespec(at)
	if err != nil {
		return
	}
	_ = unix.UtimesNanoAt(int(e.f.Fd()), inUseName, []unix.Timespec{t, t}, unix.AT_SYMLINK_NOFOLLOW)
}

// modTime is the mtime of a file in an entry's directory; zero if it can't be told.
func modTime(dir *os.File, name string) time.Time {
	var st unix.Stat_t
	if unix.Fstatat(int(dir.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) != nil {
		return time.Time{}
	}
	return time.Unix(st.Mtim.Unix()).UTC()
}

// Path is where the bytes are: the image itself, if all of it is there.
func (e *Entry) Path() string { return filepath.Join(e.dir.path, e.name, dataName) }

// Saw notes that the image was found at id, too.
func (e *Entry) Saw(id Identity) error {
	id = id.bounded()
	return e.update(func(m *meta) { m.Seen = add(m.Seen, sighting{id.Key, id.Validator}, maxSeen) })
}

// Completed says that an image is here and right: the whole file, or one inside it.
// keep says that it has to stay. That one inside is here takes nothing back.
func (e *Entry) Completed(whole, keep bool) error {
	return e.update(func(m *meta) {
		m.Complete = m.Complete || whole
		m.Kept = m.Kept || keep
	})
}

// Pin keeps every process from throwing away what is here, and what comes, until
// Close.
func (e *Entry) Pin() error {
	// Who looks at pins locks them for a moment, and holds this lock. Who has looked
	// before is done then.
	unlock, err := e.dir.lock(lockPatience)
	if err != nil {
		return err
	}
	defer unlock()
	f, err := openAt(e.f, pinName, unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return err
	}
	if err := flock(int(f.Fd()), unix.LOCK_SH|unix.LOCK_NB); err != nil {
		f.Close()
		return err
	}
	e.pin = f
	return nil
}

// Incomplete notes that something of the image is missing, or was not right.
func (e *Entry) Incomplete() error {
	return e.update(func(m *meta) { m.Complete = false })
}

// Unkeep lets the entry be thrown away.
func (d *Dir) Unkeep(name string) error {
	e, err := d.open(name)
	if err != nil {
		return err
	}
	defer e.Close()
	return e.update(func(m *meta) { m.Kept = false })
}

// update changes the entry's meta.
func (e *Entry) update(change func(*meta)) error {
	unlock, err := e.dir.lock(lockPatience)
	if err != nil {
		return err
	}
	defer unlock()
	return updateMeta(e.f, change)
}

// updateMeta changes the meta in an entry's directory. The caller holds the lock.
func updateMeta(f *os.File, change func(*meta)) error {
	m, err := readMeta(f)
	if err != nil {
		return err
	}
	change(&m)
	return writeMeta(f, m)
}

// flock is a variable for the tests' sake.
var flock = unix.Flock

// lockPatience is how long to wait for another process that holds the lock: it
// may have been stopped.
const lockPatience = 5 * time.Second

// errLocked says that another process did not let go of the lock.
var errLocked = errors.New("the cache is locked by another process")

// lock takes the directory's lock.
func (d *Dir) lock(patience time.Duration) (unlock func(), err error) {
	f, err := openAt(d.f, lockName, unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return nil, err
	}
	for until := time.Now().Add(patience); ; time.Sleep(5 * time.Millisecond) {
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
