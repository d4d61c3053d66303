package cache

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/ownfile"
)

// newPrefix begins the name of an entry that is being made.
const newPrefix = "new-"

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
	f, err := ownfile.OpenAt(d.f, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return err
	}
	defer f.Close()
	for name, size := range map[string]int64{dataName: m.Size, chunksName: 0, usedName: 0, inUseName: 0, pinName: 0} {
		file, err := ownfile.OpenAt(f, name, unix.O_RDWR|unix.O_CREAT)
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
	f, err := ownfile.OpenAt(d.f, name, unix.O_RDONLY|unix.O_DIRECTORY)
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
