package cache

import (
	"cmp"
	"context"
	"encoding/binary"
	"errors"
	"math"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/ownfile"
)

// region is a stretch of an entry that may be thrown away.
type region struct {
	entry *candidate
	off   int64
	// What decides who goes first: what is kept goes last, then what an image in
	// use needs to find its blocks, then what was used last.
	kept, pinned bool
	minute       uint32
}

// candidate is an entry that may lose bytes.
type candidate struct {
	name  string
	f     *os.File // its directory
	files *files
	meta  meta
	inUse bool
	began bool // it has lost bytes
}

// maxEvict is about how many bytes are thrown away at a time: others wait for the lock
// meanwhile, and readers for room. It is more where to find them takes longer than to
// throw them away. A variable for the tests' sake.
var maxEvict int64 = 4 * maxStep

// evict throws away about want bytes, or a part of them: about maxEvict, or as many as
// go in the time that it has taken to list what there is. It begins with what was used
// longest ago. keptToo is to touch what is kept as well, once nothing else is left. It
// returns what has become free. What can't be thrown away is passed over: it is an error
// if nothing else could be.
func (d *Dir) evict(want int64, keptToo bool) (freed int64, err error) {
	unlock, err := d.lock(time.Second)
	if err != nil {
		return 0, err
	}
	defer unlock()
	began := time.Now()
	d.removeOld()
	freed, err = d.removeDamaged()
	if err != nil {
		return freed, err
	}
	list, err := d.candidates(keptToo)
	if err != nil {
		return freed, err
	}
	defer func() {
		for _, c := range list {
			c.close()
		}
	}()
	var regions []region
	for _, c := range list {
		regions = c.regions(regions)
	}
	// Of regions used in the same minute any may go: whoever reads a large file
	// again and again would else miss each time.
	rand.Shuffle(len(regions), func(i, j int) { regions[i], regions[j] = regions[j], regions[i] })
	slices.SortStableFunc(regions, func(a, b region) int {
		return cmp.Or(compareBool(a.kept, b.kept), compareBool(a.pinned, b.pinned), cmp.Compare(a.minute, b.minute))
	})
	n, failed := throwAway(regions, want-freed, min(time.Since(began), lookTime))
	freed += n
	for _, c := range list {
		if c.empty() {
			d.removeEmpty(c)
		}
	}
	if freed > 0 {
		return freed, nil
	}
	return 0, failed
}

// throwAway throws away the first of the regions: want bytes, or maxEvict at least and for
// at least as long as listing them took. With less each byte would cost the more, the more
// there are. It returns what has become free, and the first error.
func throwAway(regions []region, want int64, listing time.Duration) (freed int64, failed error) {
	began := time.Now()
	for _, r := range regions {
		if freed >= want || freed >= maxEvict && time.Since(began) >= listing {
			break
		}
		n, err := r.entry.punch(r.off)
		if err != nil && failed == nil {
			failed = err
		}
		freed += n
	}
	return freed, failed
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case b:
		return -1
	}
	return 1
}

// oldNew is the age from which an entry in the making is one that nobody makes.
const oldNew = time.Hour

// removeOld removes what a process has left behind that died while it was making
// or removing an entry. What is of another version is not touched.
func (d *Dir) removeOld() {
	names, err := d.names()
	if err != nil {
		return
	}
	for _, name := range names {
		if strings.HasPrefix(name, newPrefix) {
			var st unix.Stat_t
			if unix.Fstatat(int(d.f.Fd()), name, &st, unix.AT_SYMLINK_NOFOLLOW) == nil && time.Since(time.Unix(st.Mtim.Unix())) > oldNew {
				d.removeAll(name)
			}
		}
	}
}

// RemoveDamaged removes the entries whose meta file is lost, and returns what has
// become free. Nobody can open them: they would take room for ever.
func (d *Dir) RemoveDamaged() (freed int64, err error) {
	unlock, err := d.lock(lockPatience)
	if err != nil {
		return 0, err
	}
	defer unlock()
	return d.removeDamaged()
}

// removeDamaged is RemoveDamaged for who holds the lock.
func (d *Dir) removeDamaged() (freed int64, err error) {
	names, err := d.names()
	if err != nil {
		return 0, err
	}
	for _, name := range names {
		if !d.damaged(name) {
			continue
		}
		if n, err := d.usageOf(name); err == nil && d.remove(name) == nil {
			freed += n
		}
	}
	return freed, nil
}

// damaged says whether what is there under a name was an entry and is of no use to
// anybody. Who has opened it before goes on.
func (d *Dir) damaged(name string) bool {
	if !isEntryName(name) {
		return false
	}
	if f, _, err := d.look(name); err == nil {
		f.Close()
		return false
	} else if !errors.Is(err, errDamaged) {
		return false
	}
	f, err := ownfile.OpenAt(d.f, name, unix.O_RDONLY|unix.O_DIRECTORY)
	if err != nil {
		return false
	}
	defer f.Close()
	return !locked(f, inUseName)
}

// isEntryName says whether name is one that Identity.name makes.
func isEntryName(name string) bool {
	return len(name) == 32 && strings.Trim(name, "0123456789abcdef") == ""
}

// candidates are the entries that may lose bytes, opened.
func (d *Dir) candidates(keptToo bool) (list []*candidate, err error) {
	names, err := d.names()
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if strings.HasPrefix(name, newPrefix) {
			continue
		}
		f, m, err := d.look(name)
		if err != nil {
			continue // no entry, or none of ours
		}
		c := &candidate{name: name, f: f, meta: m}
		if m.Kept && !keptToo || c.pinned() || c.open() != nil {
			c.close()
			continue
		}
		list = append(list, c)
	}
	return list, nil
}

// open opens the entry's files.
func (c *candidate) open() (err error) {
	c.inUse = locked(c.f, inUseName)
	c.files, err = openFiles(osDir{c.f}, c.meta.Size, true)
	return err
}

// empty says that nothing is left of the entry's bytes.
func (c *candidate) empty() bool {
	n, err := c.files.data.Allocated()
	return err == nil && n == 0
}

// removeEmpty removes an entry that is empty, unless somebody has it open.
func (d *Dir) removeEmpty(c *candidate) {
	// Only now: who opens it waits for this lock.
	alone, err := ownfile.OpenAt(c.f, inUseName, unix.O_RDWR|unix.O_CREAT)
	if err != nil {
		return
	}
	defer alone.Close()
	if flock(int(alone.Fd()), unix.LOCK_EX|unix.LOCK_NB) != nil {
		return
	}
	if c.empty() { // still: it may have been open for a moment
		_ = d.remove(c.name) // what is left of it is removed later
	}
}

// pinned says that nothing of the entry may go.
func (c *candidate) pinned() bool { return locked(c.f, pinName) }

func (c *candidate) close() {
	if c.files != nil {
		c.files.closeFiles()
	}
	c.f.Close()
}

// regions appends those that hold something.
func (c *candidate) regions(list []region) []region {
	pins := c.inUse && c.compressed()
	for off := int64(0); off < c.meta.Size; {
		at, err := c.files.data.NextData(off)
		if err != nil {
			break // the end, or a file system that does not tell
		}
		at = at / regionSize * regionSize
		var minute [4]byte
		_, _ = c.files.used.ReadAt(minute[:], at/regionSize*4) // not noted: 0
		list = append(list, region{
			entry: c, off: at, kept: c.meta.Kept, pinned: pins && c.hasChunks(at),
			minute: binary.LittleEndian.Uint32(minute[:]),
		})
		off = at + regionSize
	}
	return list
}

// compressed says that the entry has blocks apart from chunks.
func (c *candidate) compressed() bool {
	names, _ := ownfile.Names(c.f)
	return slices.ContainsFunc(names, func(name string) bool { return strings.HasPrefix(name, blocksName) })
}

// regionChunks is how many chunks a region has.
const regionChunks = regionSize / chunkSize

// hasChunks says whether some of the region at off is kept as chunks.
func (c *candidate) hasChunks(off int64) bool {
	return hasSum(c.files.chunks.load(off/chunkSize, regionChunks))
}

// punch throws away the region at off, and returns what has become free. The
// entries of its blocks need not be cleared, and nobody here knows which they are:
// they no longer match what they stand for.
func (c *candidate) punch(off int64) (freed int64, err error) {
	if !c.began && (c.meta.Complete || c.meta.Kept) {
		err := updateMeta(c.f, func(m *meta) { m.Complete, m.Kept = false, false })
		if err != nil && clearMarks(c.f) != nil { // there is no room for another file, say
			return 0, err
		}
	}
	c.began = true
	held := c.held(off)
	before, err := c.files.data.Allocated()
	if err != nil {
		return 0, err
	}
	if c.hasChunks(off) {
		if err := c.clearChunks(off); err != nil {
			return 0, err
		}
	}
	if err := c.files.data.Punch(off, regionSize); err != nil {
		return 0, err
	}
	after, err := c.files.data.Allocated()
	switch {
	case err != nil:
		return 0, err
	case after >= before: // ZFS and CIFS tell later what has become free
		return held, nil
	}
	return before - after, nil
}

// held is how many bytes of the region at off are there, as far as the file system tells.
func (c *candidate) held(off int64) (n int64) {
	for end := off + regionSize; off < end; {
		from, err := c.files.data.NextData(off)
		if err != nil || from >= end {
			break
		}
		if off, err = c.files.data.NextHole(from); err != nil {
			break
		}
		n += min(off, end) - from
	}
	return n
}

// clearChunks clears the entries of the region at off. A page of the table that
// has nothing in it then becomes a hole: the tables of a large image take room,
// too.
func (c *candidate) clearChunks(off int64) error {
	const pageSums = chunkSize / sumSize
	first := off / chunkSize
	if err := c.files.chunks.store(first, make([]uint64, regionChunks)...); err != nil {
		return err
	}
	page := first / pageSums * pageSums
	if hasSum(c.files.chunks.load(page, pageSums)) {
		return nil
	}
	return c.files.chunks.Punch(page*sumSize, chunkSize)
}

// Trim throws away what was used longest ago until the directory is within its
// bounds, what is kept too if nothing else is left. It returns what has become
// free. It takes as long as ctx at most, and a moment.
func (d *Dir) Trim(ctx context.Context) (freed int64, err error) {
	return d.shrink(ctx, d.opt.Size, true)
}

// evictPause is how long others have between two times that something is thrown away:
// who waits for the lock looks more often.
const evictPause = 2 * lockPoll

// shrink throws away until the directory is within size bytes, a little at a time: it
// may be all that there is. What others store meanwhile, and what is free and does not
// show yet, is no reason to throw away more.
func (d *Dir) shrink(ctx context.Context, size int64, keptToo bool) (freed int64, err error) {
	for want := int64(math.MaxInt64); ; {
		left, err := d.left(size)
		if want = min(want, -left); err != nil || want <= 0 {
			return freed, err
		}
		n, err := d.evict(want, keptToo)
		freed, want = freed+n, want-n
		if err != nil || n == 0 {
			return freed, err
		}
		select {
		case <-time.After(evictPause):
		case <-ctx.Done():
			return freed, ctx.Err()
		}
	}
}

// Remove throws an entry away. Whoever has it open goes on reading what it held,
// and stores nothing more.
func (d *Dir) Remove(name string) error {
	unlock, err := d.lock(lockPatience)
	if err != nil {
		return err
	}
	defer unlock()
	f, _, err := d.look(name)
	if err != nil {
		return err
	}
	f.Close()
	return d.remove(name)
}
