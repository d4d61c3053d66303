package cache

import (
	"errors"
	"io/fs"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/ownfile"
)

// ErrNotCached says that nothing is kept of an image.
var ErrNotCached = errors.New("not in the cache")

// ErrAmbiguous says that it can't be told which of several images is meant.
var ErrAmbiguous = errors.New("several images in the cache have this URL but for its query")

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
	if errors.Is(err, errVersion) || errors.Is(err, errUnsafe) {
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
	e.held, err = ownfile.OpenAt(f, inUseName, unix.O_RDWR|unix.O_CREAT)
	if errors.Is(err, unix.EROFS) || errors.Is(err, unix.EACCES) || errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		write = false
		e.held, err = ownfile.OpenAt(f, inUseName, unix.O_RDONLY)
	}
	if err == nil {
		// Another error is of a file system without locks: nothing is removed there.
		if flock(int(e.held.Fd()), unix.LOCK_SH|unix.LOCK_NB) == unix.EWOULDBLOCK {
			return nil, true, nil // it is being removed: that does not take long
		}
	} else if write {
		return nil, false, err
	}
	if here, err := ownfile.IsAt(d.f, name, f); err != nil || !here {
		return nil, true, nil
	}
	e.files, err = openFiles(osDir{f}, m.Size, write)
	if err != nil {
		return nil, false, err
	}
	e.files.admit = func(n int64) bool { return d.room.admit(e, n) }
	e.files.failed = d.room.failed
	e.files.spoilt = e.notWhole
	return e, false, nil
}
