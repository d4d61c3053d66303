package cache

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/fdtest"
	"github.com/cloopfs/cloopfs/internal/ownfile"
)

const mib = 1 << 20

// spy is a file that may fail, or tell what is done to it.
type spy struct {
	file
	write   func() error // called before each write; its error is the write's
	punched func()       // called before each punch
	sync    func() error // called before each sync; its error is the sync's
}

func (f *spy) WriteAt(p []byte, off int64) (int, error) {
	if f.write != nil {
		if err := f.write(); err != nil {
			return 0, err
		}
	}
	return f.file.WriteAt(p, off)
}

func (f *spy) Punch(off, n int64) error {
	if f.punched != nil {
		f.punched()
	}
	return f.file.Punch(off, n)
}

func (f *spy) Sync() error {
	if f.sync != nil {
		if err := f.sync(); err != nil {
			return err
		}
	}
	return f.file.Sync()
}

// evict throws away about want bytes.
func evict(t *testing.T, d *Dir, want int64, keptToo bool) int64 {
	t.Helper()
	freed, err := d.evict(want, keptToo)
	if err != nil {
		t.Fatal(err)
	}
	return freed
}

func wholeBlocks(t *testing.T, e *Entry, whole bool) *Blocks {
	t.Helper()
	b, err := e.Blocks([]blockio.Extent{{Len: e.Size()}}, whole)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// Whatever is stored, and by however many processes, the directory takes no more
// than it may.
func TestBoundIsKept(t *testing.T) {
	for _, c := range []struct {
		name      string
		bound     int64
		processes int
		whole     bool
		block     int64 // the longest
		random    bool  // in no order
	}{
		{"raw", 16 * mib, 1, true, 64 << 10, false},
		{"raw, four processes", 16 * mib, 4, true, 64 << 10, false},
		{"compressed", 16 * mib, 1, false, 100_000, false},
		{"compressed, four processes", 16 * mib, 4, false, 100_000, true},
		{"large blocks", 16 * mib, 1, false, 2 * mib, false},
		{"small blocks", 8 * mib, 1, false, 1000, false},
		{"small blocks here and there", 8 * mib, 2, false, 300, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "cache")
			id := image("a", 4*c.bound)
			content := random(c.block)
			var most, stored atomic.Int64
			var warnings log
			var wg sync.WaitGroup
			for seed := range uint64(c.processes) {
				d := openDir(t, path, Options{Size: c.bound, Logger: warnings.logger()})
				e := openEntry(t, d, id)
				b := wholeBlocks(t, e, c.whole)
				rnd := rand.New(rand.NewPCG(seed, 3))
				puts := int64(50_000)
				if c.random {
					puts = 10_000
				}
				wg.Go(func() {
					// Each process stores all of it, or as many blocks anywhere.
					n := int64(0)
					var next int64
					for off := int64(0); off < id.Size/int64(c.processes) && n < puts; off = next {
						at := blockio.Extent{Off: off, Len: c.block}
						if !c.whole {
							at.Len -= rnd.Int64N(c.block / 2)
						}
						next = at.End()
						number := n
						if c.random {
							number = rnd.Int64N(id.Size / c.block)
							at.Off = number * c.block
						}
						at.Len = min(at.Len, id.Size-at.Off)
						b.Put(number, at, content[:at.Len])
						if n++; c.block < chunkSize && n%16 != 0 {
							continue // that takes long
						}
						used, err := d.usage()
						if err != nil {
							t.Error(err)
							return
						}
						for m := most.Load(); used > m && !most.CompareAndSwap(m, used); m = most.Load() {
						}
					}
					stored.Add(e.Stats().Stored)
				})
			}
			wg.Wait()
			t.Logf("at most %.3f of the bound, %.1f times the bound stored", float64(most.Load())/float64(c.bound), float64(stored.Load())/float64(c.bound))
			if most.Load() > c.bound*105/100 {
				t.Errorf("%d bytes taken, the bound is %d", most.Load(), c.bound)
			}
			if most.Load() < c.bound/2 {
				t.Errorf("no more than %d bytes taken, the bound is %d", most.Load(), c.bound)
			}
			if n := warnings.count(); n > 0 {
				t.Errorf("%d warnings: there was always something to throw away: %s", n, warnings.lines)
			}
		})
	}
}

// A block that is longer than what is stored between two looks at the directory
// finds room too.
func TestLongBlockFindsRoom(t *testing.T) {
	var warnings log
	d := newDir(t, Options{Size: 8 * mib, Logger: warnings.logger()})
	e := openEntry(t, d, image("a", 80*mib))
	b := wholeBlocks(t, e, false)
	p := random(3 * mib)
	for n := range int64(26) {
		at := blockio.Extent{Off: n * int64(len(p)), Len: int64(len(p))}
		b.Put(n, at, p)
		if !b.Have(n, at) || warnings.count() > 0 {
			t.Fatalf("block %d is not stored: %s", n, warnings.lines)
		}
	}
}

// Where the disk has to be left free nothing is stored, and that is said once.
func TestMinFree(t *testing.T) {
	var warnings log
	d := newDir(t, Options{Size: 1 << 40, MinFree: 1 << 60, Logger: warnings.logger()})
	e := openEntry(t, d, image("a", mib))
	p := random(mib)
	for range 3 {
		fill(e, p)
		d.room.closed.Store(0) // a second later
	}
	if n := holds(t, e.files, p); n != 0 || e.Stats().Stored != 0 {
		t.Errorf("%d bytes stored", n)
	}
	if n := warnings.count(); n != 1 {
		t.Errorf("%d warnings, want 1: %s", n, warnings.lines)
	}
	if room, err := d.Fits(e); room > 0 || err != nil {
		t.Errorf("room for %d bytes, %v; want none", room, err)
	}
}

// What has to stay is not pushed out by others, which find no room if it takes
// everything.
func TestKeptStays(t *testing.T) {
	var warnings log
	d := newDir(t, Options{Size: 8 * mib, Logger: warnings.logger()})
	p := random(4 * mib)
	kept := openEntry(t, d, image("kept", int64(len(p))))
	fill(kept, p)
	if err := kept.Completed(true, true); err != nil {
		t.Fatal(err)
	}
	kept.Close()
	other := random(40 * mib)
	e := openEntry(t, d, image("a", int64(len(other))))
	fill(e, other)
	if n := holds(t, e.files, other); n == 0 || n > 4*mib || warnings.count() > 0 {
		t.Errorf("%d bytes of the other, warnings %s; want half of the bound and none", n, warnings.lines)
	}
	if room, err := d.Fits(e); err != nil || room < 4*mib-100_000-e.Allocated() || room > 4*mib {
		t.Errorf("room for %d bytes, %v; want half of the bound", room, err)
	}
	kept = openEntry(t, d, image("kept", int64(len(p))))
	if n := holds(t, kept.files, p); n != int64(len(p)) || kept.Allocated() < int64(len(p)) || !kept.meta.Kept || !kept.meta.Complete {
		t.Errorf("%d bytes of what was kept are there, want all", n)
	}
	kept.Close()
	// The rest of the bound is kept, too.
	if err := e.Completed(false, true); err != nil {
		t.Fatal(err)
	}
	fill(e, other)
	before := e.Stats().Stored
	d.room.closed.Store(0)
	fill(e, other)
	if n := warnings.count(); n != 1 || e.Stats().Stored != before {
		t.Errorf("%d warnings that nothing more can be stored, want 1: %s", n, warnings.lines)
	}
	// Nor does it go where another allows less.
	if err := openDir(t, d.Path(), Options{Size: mib}).Enforce(t.Context()); err != nil {
		t.Fatal(err)
	}
	kept = openEntry(t, d, image("kept", int64(len(p))))
	if n := holds(t, kept.files, p); n != int64(len(p)) {
		t.Errorf("%d bytes of what was kept are there within a smaller bound, want all", n)
	}
}

// What a process has pinned stays, even if it is all that there is to throw away,
// until the process ends.
func TestPinned(t *testing.T) {
	d := newDir(t, roomy)
	p := random(2 * mib)
	e, other := openEntry(t, d, image("a", int64(len(p)))), openEntry(t, d, image("b", int64(len(p))))
	fill(e, p)
	fill(other, p)
	if err := e.Pin(); err != nil {
		t.Fatal(err)
	}
	evict(t, d, 10*mib, true)
	if n, m := holds(t, e.files, p), holds(t, other.files, p); n != int64(len(p)) || m != 0 {
		t.Errorf("%d bytes of what is pinned are there, and %d of the rest; want all and none", n, m)
	}
	e.Close()
	evict(t, d, 10*mib, true)
	if exists(e.Path()) {
		t.Error("what was pinned is there")
	}
}

// Pins and the bounds of others limit what fits.
func TestFitsBesideOthers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	d := openDir(t, path, Options{Size: 16 * mib})
	fits := func(most int64, entries ...*Entry) {
		t.Helper()
		if room, err := d.Fits(entries...); err != nil || room > most || room < most-mib/2 {
			t.Errorf("room for %d bytes, %v; want about %d", room, err, most)
		}
	}
	e := openEntry(t, d, image("a", 2*mib))
	fill(e, random(2*mib))
	other := openEntry(t, d, image("b", 1000))
	fits(16 * mib)
	fits(16*mib, other)
	fits(14*mib, other, e)
	if err := e.Pin(); err != nil {
		t.Fatal(err)
	}
	fits(14 * mib)
	small := openDir(t, path, Options{Size: 8 * mib})
	if err := small.Enforce(t.Context()); err != nil {
		t.Fatal(err)
	}
	fits(6 * mib)
}

// Where the disk is what limits, all that may go counts as free, but for MinFree.
func TestFitsOnTheDisk(t *testing.T) {
	const minFree = 16 * mib
	d := newDir(t, Options{Size: 1 << 60, MinFree: minFree})
	stays, goes := openEntry(t, d, image("a", 2*mib)), openEntry(t, d, image("b", 4*mib))
	fill(stays, random(2*mib))
	fill(goes, random(4*mib))
	for tries := 1; ; tries++ { // others use the disk meanwhile
		before, err := d.free()
		if err != nil {
			t.Fatal(err)
		}
		got, err := d.Fits(stays)
		if err != nil {
			t.Fatal(err)
		}
		after, err := d.free()
		if err != nil {
			t.Fatal(err)
		}
		const more = 4*mib - minFree
		if low, high := min(before, after), max(before, after); low+more <= got && got <= high+more+mib/2 && high-low < mib {
			return
		}
		if before == after || tries == 1000 {
			t.Fatalf("with %d bytes free, then %d: room for %d, want about %d", before, after, got, before+more)
		}
		time.Sleep(time.Millisecond)
	}
}

// Who looks whether an entry is pinned does not keep others from pinning it.
func TestPinnedWhileOthersLook(t *testing.T) {
	d := newDir(t, roomy)
	e := openEntry(t, d, image("a", 1000))
	unlock, err := d.lock(time.Second)
	if err != nil {
		t.Fatal(err)
	}
	look, err := ownfile.OpenAt(e.f, pinName, unix.O_RDONLY)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Flock(int(look.Fd()), unix.LOCK_EX); err != nil {
		t.Fatal(err)
	}
	time.AfterFunc(50*time.Millisecond, func() {
		look.Close()
		unlock()
	})
	if err := e.Pin(); err != nil {
		t.Errorf("Pin: %v", err)
	}
	if !locked(e.f, pinName) {
		t.Error("it is not pinned")
	}
}

// What is free is counted in fragments where there are any.
func TestFreeOf(t *testing.T) {
	for _, c := range []struct{ bsize, frsize, want int64 }{{4096, 4096, 409_600}, {4096, 0, 409_600}, {mib, 512, 51_200}} {
		st := unix.Statfs_t{Bavail: 100, Bsize: c.bsize, Frsize: c.frsize}
		if got := freeOf(st); got != c.want {
			t.Errorf("blocks of %d, fragments of %d: %d bytes free, want %d", c.bsize, c.frsize, got, c.want)
		}
	}
}

// Of several processes' bounds the smallest counts, while its process runs.
func TestSmallestBoundCounts(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	p := random(12 * mib)
	large := openDir(t, path, Options{Size: 8 * mib})
	e := openEntry(t, large, image("a", int64(len(p))))
	full := func(want int64) {
		t.Helper()
		fill(e, p)
		if used, err := large.usage(); used > want || used < want-2*mib || err != nil {
			t.Errorf("%d bytes taken, %v; want about %d", used, err, want)
		}
	}
	full(8 * mib)
	small := openDir(t, path, Options{Size: 4 * mib})
	if err := small.Enforce(t.Context()); err != nil {
		t.Fatal(err)
	}
	if used, err := small.usage(); used > 4*mib || err != nil {
		t.Errorf("%d bytes taken, %v; want %d", used, err, 4*mib)
	}
	full(4 * mib)
	small.Close()
	full(8 * mib)
}

// An image in use keeps what is needed to find its blocks, while there is anything
// else to throw away. Of an image that nobody uses everything may go.
func TestIndexStaysWhileInUse(t *testing.T) {
	d := newDir(t, roomy)
	p := random(8 * mib)
	e := openEntry(t, d, image("a", int64(len(p))))
	b := wholeBlocks(t, e, false)
	index := p[:5*chunkSize]
	e.writeChunks(index, 0)
	var blocks []blockio.Extent
	for off := int64(mib); off < int64(len(p)); off += 100_000 {
		at := blockio.Extent{Off: off, Len: min(100_000, int64(len(p))-off)}
		b.Put(int64(len(blocks)), at, p[at.Off:at.End()])
		blocks = append(blocks, at)
	}
	left := func() (n int) {
		for i, at := range blocks {
			if b.Get(int64(i), at, make([]byte, at.Len)) {
				n++
			}
		}
		return n
	}
	// The index was used long ago, the blocks just now.
	e.now = func() time.Time { return someTime }
	e.touch(blockio.Extent{Len: 1})
	other := openEntry(t, d, image("b", 4*mib))
	fill(other, random(4*mib))
	evict(t, d, 7*mib, false)
	if n := left(); n == len(blocks) {
		t.Error("all blocks are there")
	}
	evict(t, d, 4*mib, false)
	if n := left(); n != 0 || other.Allocated() != 0 {
		t.Errorf("%d blocks and %d bytes of another image are there, want none", n, other.Allocated())
	}
	if n := holds(t, e.files, p); n != int64(len(index)) {
		t.Errorf("%d bytes of the index are there, want %d", n, len(index))
	}
	// With nothing else left it goes, and the entry stays.
	evict(t, d, mib, false)
	if n := holds(t, e.files, p); n != 0 {
		t.Errorf("%d bytes of the index are there, want none", n)
	}
	// Not in use, it goes before what was used later.
	e.writeChunks(index, 0)
	e.touch(blockio.Extent{Len: 1})
	fill(other, random(4*mib))
	e.Close()
	evict(t, d, 1, false)
	if n := other.Allocated(); n < 4*mib {
		t.Errorf("%d bytes of the image in use are there, want all", n)
	}
	if exists(e.Path()) {
		t.Error("an entry that nobody uses and that holds nothing is there")
	}
}

// What was used longest ago goes first.
func TestOldestGoesFirst(t *testing.T) {
	d := newDir(t, roomy)
	p := random(8 * mib)
	a, b := openEntry(t, d, image("a", int64(len(p)))), openEntry(t, d, image("b", int64(len(p))))
	fill(a, p)
	fill(b, p)
	order := rand.New(rand.NewPCG(6, 6)).Perm(16) // of regions: 0 to 7 are a's
	use := func(region, minute int) {
		e := []*Entry{a, b}[region/8]
		e.now = func() time.Time { return someTime.Add(time.Duration(minute) * time.Minute) }
		at := blockio.Extent{Off: int64(region%8)*mib + 5*chunkSize, Len: chunkSize}
		if !wholeBlocks(t, e, true).Get(0, at, make([]byte, at.Len)) {
			t.Fatalf("region %d is not there", region)
		}
	}
	for minute, region := range order {
		use(region, minute)
	}
	for i, region := range order {
		evict(t, d, 1, false)
		gone := 0
		for r := range 16 {
			e := []*Entry{a, b}[r/8]
			if !e.haveCovered(blockio.Extent{Off: int64(r%8) * mib, Len: mib}) {
				gone++
			} else if r == region {
				t.Fatalf("region %d was used longest ago, and is there", r)
			}
		}
		if gone != i+1 {
			t.Fatalf("%d regions are gone, want %d", gone, i+1)
		}
	}
}

// Before the first byte goes nobody is told any more that everything is there.
func TestCompleteIsClearedFirst(t *testing.T) {
	d := newDir(t, roomy)
	p := random(2 * mib)
	e := openEntry(t, d, image("a", int64(len(p))))
	fill(e, p)
	if err := e.Completed(true, true); err != nil {
		t.Fatal(err)
	}
	c := openCandidate(t, d, e.name)
	punched := 0
	look := func() {
		punched++
		m, err := readMeta(c.f)
		if err != nil || m.Complete || m.Kept {
			t.Errorf("complete: %v, kept: %v, %v; want neither", m.Complete, m.Kept, err)
		}
	}
	c.files.data = &spy{file: c.files.data, punched: look}
	c.files.chunks.file = &spy{file: c.files.chunks.file, punched: look, write: func() error { look(); return nil }}
	for _, off := range []int64{0, mib} {
		if n, err := c.punch(off); err != nil || n != mib {
			t.Errorf("%d bytes freed, %v; want a region", n, err)
		}
	}
	if punched < 4 {
		t.Errorf("%d writes and punches, want some for each region", punched)
	}
}

// Where there is no room for another meta file, what is complete and kept can be
// thrown away all the same.
func TestEvictWithoutRoomForMeta(t *testing.T) {
	d := newDir(t, roomy)
	p := random(2 * mib)
	id := image("a\n  \"kept\": true", int64(len(p)))
	e := openEntry(t, d, id)
	fill(e, p)
	if err := e.Completed(true, true); err != nil {
		t.Fatal(err)
	}
	inWay := filepath.Join(filepath.Dir(e.Path()), metaName+".new")
	if err := os.Mkdir(inWay, 0o700); err != nil {
		t.Fatal(err)
	}
	fdtest.NoLeak(t, func() {
		if n := evict(t, d, 1, true); n != mib {
			t.Errorf("%d bytes freed, want a region", n)
		}
	})
	m, err := readMeta(e.f)
	if err != nil || m.Complete || m.Kept || m.Seen[0].Key != id.Key {
		t.Errorf("%+v, %v; want neither complete nor kept", m, err)
	}
	if err := os.Remove(inWay); err != nil {
		t.Fatal(err)
	}
	if err := e.Completed(true, true); err != nil {
		t.Error(err)
	}
}

// What can't be thrown away does not keep the rest, and is an error if there is no
// rest.
func TestEvictPassesOver(t *testing.T) {
	d := newDir(t, roomy)
	p := random(mib)
	stuck, other := openEntry(t, d, image("a", int64(len(p)))), openEntry(t, d, image("b", int64(len(p))))
	fill(stuck, p)
	fill(other, p)
	if err := stuck.Completed(true, false); err != nil {
		t.Fatal(err)
	}
	stuck.now = func() time.Time { return someTime } // it goes first
	stuck.touch(blockio.Extent{Len: 1})
	// In one line, it can't be changed in place.
	m, err := readMeta(stuck.f)
	if err != nil {
		t.Fatal(err)
	}
	text, err := json.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	entry := filepath.Dir(stuck.Path())
	edit(t, entry, text)
	if err := os.Mkdir(filepath.Join(entry, metaName+".new"), 0o700); err != nil {
		t.Fatal(err)
	}
	if n := evict(t, d, 2*mib, false); n != mib || holds(t, stuck.files, p) != mib {
		t.Errorf("%d bytes freed, want those of the other", n)
	}
	if n, err := d.evict(2*mib, false); n != 0 || err == nil {
		t.Errorf("%d bytes freed, %v; want an error", n, err)
	}
}

// The tables of what was thrown away take no room.
func TestTablesBecomeHoles(t *testing.T) {
	d := newDir(t, roomy)
	p := random(8 * mib)
	e := openEntry(t, d, image("a", int64(len(p))))
	fill(e, p)
	if n, err := e.chunks.Allocated(); err != nil || n < 8*mib/chunkSize*sumSize {
		t.Errorf("the table takes %d bytes, %v", n, err)
	}
	evict(t, d, 8*mib, false)
	if n, err := e.chunks.Allocated(); err != nil || n != 0 {
		t.Errorf("the table of nothing takes %d bytes, %v", n, err)
	}
	fill(e, p)
	if n := holds(t, e.files, p); n != int64(len(p)) {
		t.Errorf("%d bytes are there, want all", n)
	}
}

// Trim brings a directory within bounds that have become smaller. What is kept is
// the last to go.
func TestTrim(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	d := openDir(t, path, roomy)
	p := random(8 * mib)
	kept, other := openEntry(t, d, image("kept", int64(len(p)))), openEntry(t, d, image("b", int64(len(p))))
	fill(kept, p)
	fill(other, p)
	if err := kept.Completed(true, true); err != nil {
		t.Fatal(err)
	}
	kept.Close()
	other.Close()
	for _, c := range []struct {
		bound int64
		whole bool
	}{{20 * mib, true}, {12 * mib, true}, {9 * mib, true}, {4 * mib, false}, {0, false}} {
		small := openDir(t, path, Options{Size: c.bound})
		if _, err := small.Trim(t.Context()); err != nil {
			t.Fatal(err)
		}
		if used, err := small.usage(); used > c.bound || err != nil {
			t.Errorf("bound %d: %d bytes taken, %v", c.bound, used, err)
		}
		kept := openEntry(t, d, image("kept", int64(len(p))))
		n := holds(t, kept.files, p)
		if whole := n == int64(len(p)); whole != c.whole || kept.meta.Kept != c.whole || kept.meta.Complete != c.whole {
			t.Errorf("bound %d: %d bytes of what is kept, kept: %v, complete: %v", c.bound, n, kept.meta.Kept, kept.meta.Complete)
		}
		kept.Close()
		if c.bound == 0 {
			continue
		}
		if want := min(len(p), int(c.bound)-2*mib); !c.whole && int(n) < want {
			t.Errorf("bound %d: %d bytes are there, want about that", c.bound, n)
		}
	}
}

// What a process left behind that died as it made an entry, or removed one, goes
// when it is old.
func TestLeftoversGo(t *testing.T) {
	d := newDir(t, roomy)
	make := func(name string) {
		t.Helper()
		if err := os.Mkdir(filepath.Join(d.Path(), name), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := d.fill(name, meta{Size: 1000, Seen: []sighting{{"k", "v"}}}); err != nil {
			t.Fatal(err)
		}
	}
	make(newPrefix + "old")
	make("somebody's")
	if err := os.WriteFile(filepath.Join(d.Path(), "somebody's", metaName), []byte(`{"version": 9}`), 0o600); err != nil {
		t.Fatal(err)
	}
	age(t, d)
	make(newPrefix + "young")
	if list, others, err := d.List(); len(list) != 0 || others != 1 || err != nil {
		t.Errorf("List: %v, %d others, %v; want 1 other", list, others, err)
	}
	evict(t, d, 0, false)
	for name, want := range map[string]bool{newPrefix + "old": false, newPrefix + "young": true, "somebody's": true} {
		if got := exists(filepath.Join(d.Path(), name)); got != want {
			t.Errorf("%s is there: %v, want %v", name, got, want)
		}
	}
}

// An entry of which something can't be removed is none from the start.
func TestHalfRemoved(t *testing.T) {
	d := newDir(t, roomy)
	p := random(mib)
	e := openEntry(t, d, image("a", int64(len(p))))
	fill(e, p)
	inWay := filepath.Join(filepath.Dir(e.Path()), "in the way")
	if err := os.Mkdir(inWay, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.Remove(e.name); err == nil {
		t.Error("no error")
	}
	if exists(filepath.Dir(e.Path())) {
		t.Error("half an entry is there under its name")
	}
	if list, others, err := d.List(); len(list) != 0 || others != 0 || err != nil {
		t.Errorf("List: %v, %d others, %v; want nothing", list, others, err)
	}
	e.Close()
	left := filepath.Join(d.Path(), entries(t, d.Path())[0])
	if err := os.Remove(filepath.Join(left, "in the way")); err != nil {
		t.Fatal(err)
	}
	age(t, d)
	evict(t, d, 0, false)
	if got := entries(t, d.Path()); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
	// The same where it is in the way of a new one.
	e = openEntry(t, d, image("a", int64(len(p))))
	edit(t, filepath.Dir(e.Path()), nil)
	if err := os.Mkdir(inWay, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := d.create(image("a", int64(len(p))), someTime); err == nil || exists(filepath.Dir(e.Path())) {
		t.Errorf("made anew: %v; want an error, and nothing under its name", err)
	}
}

// Where nothing can be written reads go on, one warning says so, and after a while
// it is tried again.
func TestWriteFails(t *testing.T) {
	for name, broken := range map[string]func(e *Entry, f *spy){
		"data":   func(e *Entry, f *spy) { f.file, e.data = e.data, f },
		"chunks": func(e *Entry, f *spy) { f.file, e.chunks.file = e.chunks.file, f },
	} {
		for _, failure := range []error{unix.ENOSPC, unix.EDQUOT, unix.EIO, unix.EROFS} {
			t.Run(fmt.Sprintf("%s, %v", name, failure), func(t *testing.T) {
				var warnings log
				d := newDir(t, Options{Size: 1 << 40, Logger: warnings.logger()})
				p := random(mib)
				e := openEntry(t, d, image("a", int64(len(p))))
				e.writeChunks(p[:chunkSize], 0)
				fails, writes := true, 0
				broken(e, &spy{write: func() error {
					writes++
					if fails {
						return failure
					}
					return nil
				}})
				fill(e, p)
				if writes != 1 {
					t.Errorf("%d writes, want one until it is tried again", writes)
				}
				// Room may be there in a moment; what is broken stays so for longer.
				closed := time.Duration(d.room.closed.Load()) - time.Since(d.room.start)
				if full := failure == unix.ENOSPC || failure == unix.EDQUOT; (closed <= fullTime) != full || d.room.allowance.Load() != 0 {
					t.Errorf("tried again in %v, without a look for %d bytes", closed, d.room.allowance.Load())
				}
				d.room.closed.Store(0) // half a minute later
				fill(e, p)
				if n := holds(t, e.files, p); n != chunkSize || writes != 2 || warnings.count() != 1 {
					t.Errorf("%d bytes are there after %d writes, %d warnings; want %d, 2, 1", n, writes, warnings.count(), chunkSize)
				}
				fails = false
				fill(e, p)
				if n := holds(t, e.files, p); n != chunkSize {
					t.Errorf("%d bytes are there, want no more yet", n)
				}
				d.room.closed.Store(0)
				fill(e, p)
				if n := holds(t, e.files, p); n != int64(len(p)) || warnings.count() != 1 {
					t.Errorf("%d bytes are there, %d warnings; want all and 1", n, warnings.count())
				}
			})
		}
	}
}

// An entry that is removed, or a whole cache, is read on, and nothing is stored
// there any more.
func TestRemovedUnderUse(t *testing.T) {
	for name, remove := range map[string]func(d *Dir, e *Entry) error{
		"entry":     func(d *Dir, e *Entry) error { return d.Remove(e.name) },
		"by hand":   func(_ *Dir, e *Entry) error { return os.RemoveAll(filepath.Dir(e.Path())) },
		"directory": func(d *Dir, _ *Entry) error { return os.RemoveAll(d.Path()) },
	} {
		t.Run(name, func(t *testing.T) {
			var warnings log
			d := newDir(t, Options{Size: 1 << 40, Logger: warnings.logger()})
			p := random(mib)
			e := openEntry(t, d, image("a", int64(len(p))))
			fill(e, p[:mib/2])
			b := wholeBlocks(t, e, true)
			if err := remove(d, e); err != nil {
				t.Fatal(err)
			}
			d.room.allowance.Store(0)
			fill(e, p)
			if n := holds(t, e.files, p); n != mib/2 {
				t.Errorf("%d bytes are there, want the half stored before", n)
			}
			at := blockio.Extent{Off: 0, Len: 3 * chunkSize}
			if !b.Get(0, at, make([]byte, at.Len)) {
				t.Error("a block stored before is not there")
			}
			b.Forget(0, at)
			if b.Get(0, at, make([]byte, at.Len)) {
				t.Error("a block that was forgotten is there")
			}
			if n := warnings.count(); n != 1 || name != "directory" && !strings.Contains(warnings.lines[0], errGone.Error()) {
				t.Errorf("%d warnings, want 1 that says why: %s", n, warnings.lines)
			}
			_ = e.Saw(image("b", int64(len(p)))) // it need not be written down
			_, _ = d.Trim(t.Context())
			_, _, _ = d.List()
			if name == "directory" {
				return
			}
			d.room.closed.Store(0)
			again := openEntry(t, d, image("a", int64(len(p))))
			fill(again, p)
			if n := holds(t, again.files, p); n != int64(len(p)) {
				t.Errorf("%d bytes are there of an entry made anew, want all", n)
			}
		})
	}
}

// Files that somebody cuts off are as if nothing had been stored there.
func TestFilesCutOff(t *testing.T) {
	for _, name := range []string{dataName, chunksName, usedName, blocksName + "0"} {
		for _, size := range []int64{0, 20, 30_000} {
			t.Run(fmt.Sprintf("%s at %d", name, size), func(t *testing.T) {
				d := newDir(t, roomy)
				p := random(mib)
				e := openEntry(t, d, image("a", int64(len(p))))
				b := wholeBlocks(t, e, false)
				put := func() {
					fill(e, p[:mib/2])
					for n := range int64(5) {
						at := blockio.Extent{Off: mib/2 + 10_000*n, Len: 10_000}
						b.Put(n, at, p[at.Off:at.End()])
					}
				}
				left := func() (n int) {
					for i := range int64(5) {
						at := blockio.Extent{Off: mib/2 + 10_000*i, Len: 10_000}
						b.Have(i, at)
						if b.Get(i, at, make([]byte, at.Len)) {
							n++
						}
					}
					return n
				}
				put()
				if err := os.Truncate(filepath.Join(filepath.Dir(e.Path()), name), size); err != nil {
					t.Fatal(err)
				}
				chunks, blocks := holds(t, e.files, p), left()
				switch name {
				case dataName:
					if chunks > size || blocks != 0 {
						t.Errorf("%d bytes and %d blocks are there", chunks, blocks)
					}
				case chunksName:
					if chunks > size/sumSize*chunkSize || blocks != 5 {
						t.Errorf("%d bytes and %d blocks are there", chunks, blocks)
					}
				case blocksName + "0":
					if chunks != mib/2 || blocks > int(size)/sumSize {
						t.Errorf("%d bytes and %d blocks are there", chunks, blocks)
					}
				}
				put()
				if chunks, blocks := holds(t, e.files, p), left(); chunks != mib/2 || blocks != 5 {
					t.Errorf("%d bytes and %d blocks are there, want all that was stored again", chunks, blocks)
				}
				evict(t, d, mib, false)
				if chunks, blocks := holds(t, e.files, p), left(); chunks != 0 || blocks != 0 {
					t.Errorf("%d bytes and %d blocks are there after all was thrown away", chunks, blocks)
				}
			})
		}
	}
}

// Tables of any content are harmless.
func TestTablesOfGarbage(t *testing.T) {
	d := newDir(t, roomy)
	p := random(mib)
	e := openEntry(t, d, image("a", int64(len(p))))
	b := wholeBlocks(t, e, false)
	garbage := random(mib / chunkSize * sumSize)
	for _, name := range []string{chunksName, usedName, blocksName + "0"} {
		if err := os.WriteFile(filepath.Join(filepath.Dir(e.Path()), name), garbage, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	sum := binary.LittleEndian.Uint64(garbage)
	if got := b.sums.loadOne(0); got != sum {
		t.Fatalf("the table has %x, want %x", got, sum)
	}
	at := blockio.Extent{Off: 5000, Len: 10_000}
	if n := holds(t, e.files, p); n != 0 || b.Get(0, at, make([]byte, at.Len)) {
		t.Errorf("%d bytes are there of nothing", n)
	}
	if e.Stats().Mismatches == 0 {
		t.Error("no mismatch was counted")
	}
	b.Put(0, at, p[at.Off:at.End()])
	if !b.Get(0, at, make([]byte, at.Len)) {
		t.Error("a block that was stored is not there")
	}
	evict(t, d, mib, false)
	if _, _, err := d.List(); err != nil {
		t.Error(err)
	}
}

// Who wants to store does not wait for long for a process that throws away. It tries again
// soon, but not again and again: that process may have been stopped, and readers wait, too.
func TestLockedByAnother(t *testing.T) { synctest.Test(t, lockedByAnother) }

func lockedByAnother(t *testing.T) {
	var warnings log
	d := newDir(t, Options{Size: 4 * mib, Logger: warnings.logger()})
	p := random(8 * mib)
	e := openEntry(t, d, image("a", int64(len(p))))
	unlock, err := d.lock(time.Second)
	if err != nil {
		t.Fatal(err)
	}
	closed := func(want time.Duration) {
		t.Helper()
		fill(e, p)
		got := time.Duration(d.room.closed.Load()) - time.Since(d.room.start)
		if got != want {
			t.Errorf("tried again in %v, want %v", got, want)
		}
		time.Sleep(got)
	}
	for _, seconds := range []int{1, 2, 4, 8, 16, 30, 30} {
		closed(time.Duration(seconds) * time.Second)
	}
	if n := holds(t, e.files, p); n == 0 || n > 4*mib {
		t.Errorf("%d bytes are there, want what there was room for", n)
	}
	if warnings.count() != 1 || !strings.Contains(warnings.lines[0], errLocked.Error()) {
		t.Errorf("warnings %q; want one that says why", warnings.lines)
	}
	if _, err := d.Trim(t.Context()); err != nil && !errors.Is(err, errLocked) {
		t.Error(err)
	}
	unlock()
	fill(e, p)
	if used, err := d.usage(); used > 4*mib || err != nil || e.Stats().Stored < 8*mib {
		t.Errorf("%d bytes taken, %d stored, %v", used, e.Stats().Stored, err)
	}
	if unlock, err = d.lock(time.Second); err != nil {
		t.Fatal(err)
	}
	defer unlock()
	closed(time.Second)
}

// What can be stored without throwing anything away is what is left of the bound, but
// for what is thrown away ahead of time.
func TestSpare(t *testing.T) {
	d := newDir(t, Options{Size: 100 * mib})
	e := openEntry(t, d, image("a", 80*mib))
	for _, stored := range []int64{0, 10 * mib} {
		fill(e, random(stored))
		if got, want := d.Spare(), 100*mib-2*maxStep-stored; got > want || got < want-mib {
			t.Errorf("with %d bytes there: room for %d, want about %d", stored, got, want)
		}
	}
	if err := d.f.Close(); err != nil {
		t.Fatal(err)
	}
	if got := d.Spare(); got != 0 {
		t.Errorf("of what can't be looked at %d bytes are free", got)
	}
}

// Between two looks at the directory a 128th of what it may take is stored, within
// bounds; a look makes room for what is to be stored, and no more is allowed than there
// is room for.
func TestSteps(t *testing.T) {
	for _, c := range []struct{ bound, stored, step int64 }{
		{8 << 30, 0, maxStep},
		{1 << 30, 0, 8 * mib},
		{1 << 30, 8 * mib, 8 * mib},
		{mib, 0, minStep},
	} {
		d := newDir(t, Options{Size: c.bound})
		e := openEntry(t, d, image("a", 16*mib))
		fill(e, random(c.stored))
		left, step, err := d.room.look(e, 1)
		if most := c.bound - c.stored; err != nil || left > most || left < most-mib || step > c.step || step < c.step*99/100 {
			t.Errorf("of %d bytes %d are taken: %d are left, %d may be stored, %v; want %d", c.bound, c.stored, left, step, err, c.step)
		}
		d.room.allowance.Store(0)
		if !d.room.admit(e, 1000) {
			t.Fatal("there is no room")
		}
		if got := d.room.allowance.Load(); got > step-1000 || got < (step-1000)*99/100 {
			t.Errorf("%d bytes may be stored before the next look, want %d", got, step-1000)
		}
	}
}

// openCandidate opens an entry as one that may lose bytes.
func openCandidate(t *testing.T, d *Dir, name string) *candidate {
	t.Helper()
	f, m, err := d.look(name)
	if err != nil {
		t.Fatal(err)
	}
	c := &candidate{name: name, f: f, meta: m}
	if err := c.open(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.close)
	return c
}
