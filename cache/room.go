package cache

import (
	"context"
	"errors"
	"log/slog"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/ownfile"
)

const (
	// minStep and maxStep bound how many bytes are stored between two looks at
	// what the directory takes: a 128th of what it may take.
	minStep = 64 << 10
	maxStep = 16 << 20
	// fullTime is how long nothing is stored after there was no room, and
	// brokenTime after a write has failed. Where the lock was not free it is fullTime
	// at first, and twice as long each time that it still is not, up to brokenTime.
	fullTime   = time.Second
	brokenTime = 30 * time.Second
	// lookTime is for how long a look throws away what it takes: readers wait for it.
	lookTime = time.Second / 2
)

// errGone says that the directory or the entry was removed.
var errGone = errors.New("it was removed")

// room says what may be stored in a directory. All its processes look at what the
// files take; each allows itself small steps in between.
type room struct {
	dir       *Dir
	allowance atomic.Int64 // bytes that may be stored before the next look
	start     time.Time    // a time of the monotonic clock: the other may be stepped back
	closed    atomic.Int64 // nanoseconds since start until which nothing is stored
	warned    atomic.Bool

	mu     sync.Mutex    // held by who looks; it guards the field below
	locked time.Duration // for how long nothing was stored as the lock was not free; 0 if it was
}

// admit says whether n more bytes may be stored in e now. It throws away what it
// has to.
func (r *room) admit(e *Entry, n int64) bool {
	if r.isClosed() {
		return false
	}
	if r.allowance.Add(-n) >= 0 {
		return true
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.isClosed() {
		return false // somebody else has looked
	}
	if r.allowance.Load() >= 0 && r.allowance.Add(-n) >= 0 {
		return true
	}
	left, step, err := r.look(e, n)
	if !errors.Is(err, errLocked) {
		r.locked = 0
	}
	switch {
	case errors.Is(err, errLocked):
		// It passes, unless that process was stopped: then each look keeps readers waiting.
		r.locked = min(max(fullTime, 2*r.locked), brokenTime)
		r.close(r.locked, "what is fetched is not kept for now", err)
	case err != nil:
		r.close(brokenTime, "what is fetched is not kept", err)
	case left < n:
		r.full(nil)
	default:
		r.allowance.Store(max(0, min(left, step)-n))
		return true
	}
	return false
}

// isClosed says that nothing is stored now.
func (r *room) isClosed() bool { return int64(time.Since(r.start)) < r.closed.Load() }

// bound is how many bytes the directory may take: the least that any running
// process allows. Ours is told to the others the first time.
func (d *Dir) bound() int64 {
	if d.bounds == nil {
		f, err := ownfile.OpenAt(d.f, boundsName, unix.O_RDWR|unix.O_CREAT)
		if err != nil {
			return d.opt.Size
		}
		d.bounds = f
		// Who can't tell keeps to his own bound.
		_ = unix.FcntlFlock(f.Fd(), unix.F_OFD_SETLK, &unix.Flock_t{Type: unix.F_RDLCK, Start: d.opt.Size, Len: 1})
	}
	least := d.opt.Size
	for least > 0 {
		other := unix.Flock_t{Type: unix.F_WRLCK, Start: 0, Len: least}
		err := unix.FcntlFlock(d.bounds.Fd(), unix.F_OFD_GETLK, &other)
		if err != nil || other.Type == unix.F_UNLCK || other.Start >= least {
			break
		}
		least = other.Start
	}
	return least
}

// crowd is how many may be storing something larger than a step at the same time,
// each without knowing of the others.
const crowd = 4

// look says how many bytes there is room for, after throwing away what it takes
// to store n and to go on for a while, and how many of them may be stored until the
// next look.
func (r *room) look(e *Entry, n int64) (left, step int64, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(int(e.f.Fd()), &st); err != nil {
		return 0, 0, err
	}
	if st.Nlink == 0 {
		return 0, 0, errGone
	}
	size, start := r.dir.bound(), time.Now()
	done := false // there is only what others may have made free
	var most, freed int64
	for tries := 1; ; tries++ {
		var used int64
		if used, left, err = r.dir.measure(size); err != nil {
			return 0, 0, err
		}
		step = min(maxStep, max(minStep, (used+left)/128))
		need := step
		if n > step {
			need = crowd * n
		}
		if tries > 3 { // others may be faster to take what has become free
			need = n
		}
		if done || left >= need {
			return left, step, nil
		}
		want := need + 2*step - left
		if tries == 1 {
			most = 3 * want // what is free may show late
		}
		got, err := r.dir.evict(want, false)
		if err != nil && left < n {
			return left, step, err
		}
		freed += got
		done = err != nil || got == 0 || tries >= 3 && (freed >= most || time.Since(start) > lookTime)
	}
}

// close stores nothing for a while. It says so once.
func (r *room) close(d time.Duration, what string, err error) {
	r.allowance.Store(0)
	r.closed.Store(int64(time.Since(r.start) + d))
	level := slog.LevelDebug
	if r.warned.CompareAndSwap(false, true) {
		level = slog.LevelWarn
	}
	args := []any{"directory", r.dir.path}
	if err != nil {
		args = append(args, "error", err)
	}
	r.dir.opt.Logger.Log(context.Background(), level, what, args...)
}

// full stores nothing for a moment, for lack of room.
func (r *room) full(err error) {
	r.close(fullTime, "the cache is full: what is fetched is not kept", err)
}

// failed is told of a write that has failed.
func (r *room) failed(err error) {
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		r.full(err) // somebody else was faster; the next look makes room
		return
	}
	r.close(brokenTime, "what is fetched is not kept for now", err)
}

// Enforce brings the directory within its bounds: another process may allow more,
// or the disk may have become full without us. It takes as long as ctx at most, and a
// moment.
func (d *Dir) Enforce(ctx context.Context) error {
	d.room.mu.Lock()
	size := d.bound()
	d.room.mu.Unlock()
	_, err := d.shrink(ctx, size, false)
	return err
}

// Spare says how many more bytes could be stored without throwing anything away.
func (d *Dir) Spare() int64 {
	d.room.mu.Lock()
	defer d.room.mu.Unlock()
	left, err := d.left(d.bound())
	if err != nil {
		return 0
	}
	return left - 2*maxStep // which is thrown away ahead of time
}

// left is how many more bytes the directory may take within a size.
func (d *Dir) left(size int64) (int64, error) {
	_, left, err := d.measure(size)
	return left, err
}

// measure says how many bytes the directory takes, and how many more it may within
// a size.
func (d *Dir) measure(size int64) (used, left int64, err error) {
	if used, err = d.usage(); err != nil {
		return 0, 0, err
	}
	free, err := d.free()
	return used, min(size-used, free-d.opt.MinFree), err
}

// free is how many bytes of the file system a process of ours may still use.
func (d *Dir) free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Fstatfs(int(d.f.Fd()), &st); err != nil {
		return 0, err
	}
	return freeOf(st), nil
}

func freeOf(st unix.Statfs_t) int64 {
	unit := st.Frsize // what the numbers of blocks count; Bsize may be what to read at a time
	if unit == 0 {
		unit = st.Bsize
	}
	return int64(st.Bavail) * unit
}

// usage is how many bytes of the disk the directory takes, with all in it.
func (d *Dir) usage() (int64, error) {
	names, err := d.names()
	if err != nil {
		return 0, err
	}
	total := int64(0)
	for _, name := range names {
		n, err := d.usageOf(name)
		if err != nil && !errors.Is(err, unix.ENOENT) {
			return 0, err
		}
		total += n
	}
	return total, nil
}

// usageOf is how many bytes of the disk an entry takes, or whatever else is there
// under a name.
func (d *Dir) usageOf(name string) (int64, error) {
	total, err := blocksOf(int(d.f.Fd()), name)
	if err != nil {
		return 0, err
	}
	f, err := ownfile.OpenAt(d.f, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if errors.Is(err, unix.ENOTDIR) || errors.Is(err, unix.ELOOP) || errors.Is(err, unix.EACCES) {
		return total, nil // not ours: lost+found, say
	}
	if err != nil {
		return 0, err
	}
	defer f.Close()
	names, err := f.Readdirnames(-1)
	for _, file := range names {
		n, _ := blocksOf(int(f.Fd()), file) // it may be gone
		total += n
	}
	return total, err
}

func blocksOf(dir int, name string) (int64, error) {
	var st unix.Stat_t
	err := unix.Fstatat(dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
	return st.Blocks * 512, err
}

// Fits says how many more bytes could be stored in entries if everything were
// thrown away but those and what is kept, or pinned by some process.
func (d *Dir) Fits(entries ...*Entry) (int64, error) {
	d.room.mu.Lock()
	size := d.bound()
	d.room.mu.Unlock()
	unlock, err := d.lock(lockPatience) // others look at pins, too
	if err != nil {
		return 0, err
	}
	defer unlock()
	free, err := d.free()
	if err != nil {
		return 0, err
	}
	names, err := d.names()
	if err != nil {
		return 0, err
	}
	stay, total := int64(0), int64(0)
	for _, name := range names {
		n, err := d.usageOf(name)
		if err != nil {
			continue // gone
		}
		total += n
		if d.stays(name, entries) {
			stay += n
		}
	}
	return min(size-stay, free-d.opt.MinFree+total-stay), nil
}

// stays says whether what is there under a name will not be thrown away.
func (d *Dir) stays(name string, entries []*Entry) bool {
	for _, e := range entries {
		if e.name == name {
			return true
		}
	}
	if strings.HasPrefix(name, newPrefix) {
		return false
	}
	f, m, err := d.look(name)
	if err != nil {
		return !d.damaged(name)
	}
	defer f.Close()
	return m.Kept || locked(f, pinName)
}
