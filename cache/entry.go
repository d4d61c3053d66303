package cache

import (
	"os"
	"path/filepath"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/ownfile"
)

// An Entry is what a cache directory keeps of an image, held open.
type Entry struct {
	*files
	dir  *Dir
	name string
	f    *os.File // the entry's directory
	held *os.File // its lock says that the entry is in use
	pin  *os.File // its lock says that nothing of it may go; nil if that is not so
	meta meta     // as it was when it was opened
	key  string   // under which Open was asked for it
}

// Close lets go of the entry.
func (e *Entry) Close() {
	if e.files != nil {
		e.files.closeFiles()
	}
	if e.held != nil {
		e.held.Close()
	}
	if e.pin != nil {
		e.pin.Close()
	}
	e.f.Close()
}

// Path is where the bytes are: the image itself, if all of it is there.
func (e *Entry) Path() string { return filepath.Join(e.dir.path, e.name, dataName) }

// Removed says that the entry was thrown away while it is open: what is here can be
// read until Close, and nothing more comes.
func (e *Entry) Removed() bool {
	var st unix.Stat_t
	return unix.Fstat(int(e.f.Fd()), &st) == nil && st.Nlink == 0
}

// ModTime is when the file was changed, as the server said it first. It is zero
// if it did not.
func (e *Entry) ModTime() time.Time { return e.meta.ModTime }

// Validator is what the first server gave to tell the file's versions apart, with or
// without a date.
func (e *Entry) Validator() string { return e.meta.Seen[0].Validator }

// Complete says that all of the file was here, and right, when the entry was opened.
func (e *Entry) Complete() bool { return e.meta.Complete }

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

// Saw notes that the image was found at id, too.
func (e *Entry) Saw(id Identity) error {
	id = id.bounded()
	if slices.Contains(e.meta.Seen, sighting{id.Key, id.Validator}) {
		return nil
	}
	return e.update(func(m *meta) { m.Seen = add(m.Seen, sighting{id.Key, id.Validator}, maxSeen) })
}

// Completed says that an image is here and right: the whole file, or one inside it.
// keep says that it has to stay. That one inside is here takes nothing back. It has to
// be pinned: nothing looks whether all of it is still here.
func (e *Entry) Completed(whole, keep bool) error {
	if !whole && !keep {
		return nil
	}
	// What meta says is durable, and so has to be what it says it of: also if it says so
	// already, of less.
	if err := e.sync(); err != nil {
		return err
	}
	if m, err := readMeta(e.f); err == nil && (m.Complete || !whole) && (m.Kept || !keep) {
		return nil // nothing to be written, where there may be no room
	}
	return e.update(func(m *meta) {
		m.Complete = m.Complete || whole
		m.Kept = m.Kept || keep
	})
}

// Pin keeps every process from throwing away what is here, and what comes, until
// Unpin or Close.
func (e *Entry) Pin() error {
	// Who looks at pins locks them for a moment, and holds this lock. Who has looked
	// before is done then.
	unlock, err := e.dir.lock(lockPatience)
	if err != nil {
		return err
	}
	defer unlock()
	f, err := ownfile.OpenAt(e.f, pinName, unix.O_RDWR|unix.O_CREAT)
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

// Unpin takes back Pin.
func (e *Entry) Unpin() {
	e.pin.Close()
	e.pin = nil
}

// Incomplete notes that something of the image is missing, or was not right.
func (e *Entry) Incomplete() error {
	return e.update(func(m *meta) { m.Complete = false })
}

// notWhole takes back that all of the image is here, if that was said: before
// something is dropped, and when something was found damaged, or gone.
func (e *Entry) notWhole() {
	if m, err := readMeta(e.f); err == nil && m.Complete {
		// Who can't, leaves it to who can. It is one more reason for a checksum.
		_ = e.Incomplete()
	}
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
