package cache

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// onLock has f called before each lock that is tried, with the file's path, until the
// test ends.
func onLock(t *testing.T, f func(path string, how int)) {
	t.Helper()
	t.Cleanup(func() { flock = unix.Flock })
	flock = func(fd, how int) error {
		path, err := os.Readlink(fmt.Sprint("/proc/self/fd/", fd))
		if err != nil {
			t.Error(err)
		}
		f(path, how)
		return unix.Flock(fd, how)
	}
}

// inPieces has no more thrown away at a time than n bytes, until the test ends.
func inPieces(t *testing.T, n int64) {
	t.Helper()
	was := maxEvict
	t.Cleanup(func() { maxEvict = was })
	maxEvict = n
}

// While everything is thrown away each entry can be opened: nobody holds more than the
// one that he is removing.
func TestOpenWhileOthersAreEvicted(t *testing.T) {
	d := newDir(t, roomy)
	ids := []Identity{image("a", mib), image("b", mib), image("c", mib)}
	for _, id := range ids {
		e := openEntry(t, d, id)
		fill(e, random(mib))
		e.Close()
	}
	opened := 0
	held := func(path string) { // that entry, and no other
		for _, id := range ids {
			if id.name() == filepath.Base(filepath.Dir(path)) {
				continue
			}
			e, gone, err := d.tryOpen(id.name())
			if gone {
				t.Errorf("%s can't be opened", id.Key)
			}
			if err == nil && !gone {
				opened++
				e.Close()
			}
		}
	}
	flock = func(fd, how int) error {
		err := unix.Flock(fd, how)
		if path, _ := os.Readlink(fmt.Sprint("/proc/self/fd/", fd)); filepath.Base(path) == inUseName && how&unix.LOCK_EX != 0 {
			held(path)
		}
		return err
	}
	t.Cleanup(func() { flock = unix.Flock })
	evict(t, d, 10*mib, false)
	if got := entries(t, d.Path()); len(got) > 0 || opened < 2*len(ids) {
		t.Errorf("opened %d times, and left: %v", opened, got)
	}
}

// Who opens an entry while the last of it is thrown away has it: it is removed neither
// while it is open, nor with what was stored since.
func TestOpenedBeforeRemoval(t *testing.T) {
	for _, open := range []bool{true, false} {
		d := newDir(t, roomy)
		id, p := image("a", mib), random(mib)
		e := openEntry(t, d, id)
		fill(e, p)
		e.Close()
		locks := 0
		onLock(t, func(path string, how int) {
			if filepath.Base(path) != inUseName || how&unix.LOCK_EX == 0 {
				return
			}
			if locks++; locks == 2 { // the first time it was looked at whether it is in use
				e = openEntry(t, d, id)
				if !open {
					fill(e, p)
					e.Close()
				}
			}
		})
		evict(t, d, mib, false)
		if locks != 2 || !exists(e.Path()) {
			t.Errorf("open %v: locked %d times, the entry is there %v", open, locks, exists(e.Path()))
		}
	}
}

// However much is to be thrown away, it is a little at a time: the lock is free in
// between, who stores is not kept waiting, and it can be broken off.
func TestEvictedInPieces(t *testing.T) {
	inPieces(t, 2*mib)
	for name, shrink := range map[string]func(context.Context, *Dir) error{
		"Enforce": func(ctx context.Context, d *Dir) error { return d.Enforce(ctx) },
		"Trim":    func(ctx context.Context, d *Dir) error { return second(d.Trim(ctx)) },
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { evictedInPieces(t, shrink) }) // nothing takes any time
		})
	}
}

func evictedInPieces(t *testing.T, shrink func(context.Context, *Dir) error) {
	d := newDir(t, roomy)
	fill(openEntry(t, d, image("a", 12*mib)), random(12*mib))
	if n := evict(t, d, 1<<40, true); n != 2*mib {
		t.Errorf("%d bytes thrown away at a time", n)
	}
	small := openDir(t, d.Path(), Options{Size: mib})
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	pieces := 0
	onLock(t, func(path string, _ int) {
		if filepath.Base(path) != lockName {
			return
		}
		if !small.room.mu.TryLock() {
			t.Error("who stores has to wait")
		} else {
			small.room.mu.Unlock()
		}
		if pieces++; pieces == 2 {
			cancel()
		}
	})
	if err := shrink(ctx, small); !errors.Is(err, context.Canceled) || pieces != 2 {
		t.Errorf("broken off after %d pieces: %v", pieces, err)
	}
	if err := shrink(t.Context(), small); err != nil || pieces != 5 {
		t.Errorf("done after %d pieces, want 5: %v", pieces, err)
	}
	if used, err := small.usage(); err != nil || used > mib {
		t.Errorf("%d bytes taken, %v; want %d at most", used, err, mib)
	}
}

// A piece is larger where to find it takes longer than to throw it away: each look is at
// all that is there, and the more of that there is, the more looks there would be.
func TestLargerPiecesOfMore(t *testing.T) { synctest.Test(t, largerPiecesOfMore) }

func largerPiecesOfMore(t *testing.T) {
	inPieces(t, 2*mib)
	const hour = time.Hour
	for _, c := range []struct {
		want    int64
		listing time.Duration // a region goes in a second
		freed   int64
	}{
		{10 * mib, 0, 2 * mib},
		{10 * mib, 2 * time.Second, 2 * mib},
		{10 * mib, 5 * time.Second, 5 * mib},
		{10 * mib, hour, 8 * mib}, // all
		{3 * mib, hour, 3 * mib},
		{1, hour, mib},
		{0, hour, 0},
	} {
		d := newDir(t, roomy)
		e := openEntry(t, d, image("a", 8*mib))
		fill(e, random(8*mib))
		one := openCandidate(t, d, e.name)
		one.files.data = &spy{file: one.files.data, punched: func() { time.Sleep(time.Second) }}
		if n, err := throwAway(one.regions(nil), c.want, c.listing); n != c.freed || err != nil {
			t.Errorf("of %d bytes, listed in %v, %d are thrown away, %v; want %d", c.want, c.listing, n, err, c.freed)
		}
	}
	d := newDir(t, roomy)
	fill(openEntry(t, d, image("a", 40*mib)), random(40*mib))
	small := openDir(t, d.Path(), Options{Size: mib})
	lists := 0
	onLock(t, func(path string, _ int) {
		if filepath.Base(path) == pinName {
			lists++
			time.Sleep(time.Minute)
		}
	})
	if err := small.Enforce(t.Context()); err != nil || lists != 1 {
		t.Errorf("listed %d times, %v; want once", lists, err)
	}
}

// Who wants to store makes room also where that takes long, but does not keep readers
// waiting for all of it.
func TestFarBeyondTheBound(t *testing.T) {
	for _, c := range []struct {
		name  string
		takes time.Duration // a piece
		fits  bool
	}{{"fast", 0, true}, {"slow", 2 * lookTime, false}} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				inPieces(t, mib)
				d := newDir(t, roomy)
				fill(openEntry(t, d, image("a", 16*mib)), random(16*mib))
				small := openDir(t, d.Path(), Options{Size: 4 * mib})
				e := openEntry(t, small, image("b", chunkSize))
				pieces := 0
				onLock(t, func(path string, _ int) {
					if filepath.Base(path) == lockName {
						pieces++
						time.Sleep(c.takes)
					}
				})
				fill(e, random(chunkSize))
				if stored := e.Stats().Stored > 0; stored != c.fits || (pieces > 3) != c.fits || pieces < 3 {
					t.Errorf("stored: %v after %d pieces, want %v, after 3 if it is slow", stored, pieces, c.fits)
				}
			})
		})
	}
}

// Who has waited while another looked for room, and found none, does not look, too.
func TestOneLooksForRoom(t *testing.T) {
	d := newDir(t, Options{Size: mib, MinFree: 1 << 60})
	e := openEntry(t, d, image("a", chunkSize))
	onLock(t, func(path string, _ int) {
		if filepath.Base(path) == lockName {
			t.Error("another has looked")
		}
	})
	d.room.mu.Lock()
	var wg sync.WaitGroup
	for range 5 {
		wg.Go(func() { fill(e, random(chunkSize)) })
	}
	time.Sleep(50 * time.Millisecond) // they may need it to get there: if not, that is no failure
	d.room.full(nil)
	d.room.mu.Unlock()
	wg.Wait()
}

// What others store while something is thrown away is theirs to make room for: who throws
// away comes to an end.
func TestEvictingEnds(t *testing.T) { synctest.Test(t, evictingEnds) }

func evictingEnds(t *testing.T) {
	inPieces(t, 2*mib)
	d := newDir(t, roomy)
	p := random(8 * mib)
	e := openEntry(t, d, image("a", int64(len(p))))
	e.admit = func(int64) bool { return true } // it keeps to no bound
	fill(e, p)
	small := openDir(t, d.Path(), Options{Size: mib})
	other := openEntry(t, small, image("b", chunkSize))
	pieces := 0
	onLock(t, func(path string, _ int) {
		if filepath.Base(path) == lockName {
			if pieces++; pieces < 40 {
				fill(e, p)
			}
		}
	})
	if err := small.Enforce(t.Context()); err != nil || pieces != 4 {
		t.Errorf("%d pieces, %v; want 4", pieces, err)
	}
	pieces = 0
	if fill(other, p[:chunkSize]); other.Stats().Stored > 0 || pieces > 12 {
		t.Errorf("%d bytes stored after %d pieces, want none after 3 times what is too much", other.Stats().Stored, pieces)
	}
}

// lateFile tells later what has become free.
type lateFile struct{ file }

func (lateFile) Allocated() (int64, error) { return 100 * mib, nil }

// Where the file system does not tell at once what has become free, it is what was there:
// else all would be thrown away, for lack of success.
func TestFreeShowsLate(t *testing.T) {
	const size = 3*mib + 5000
	d := newDir(t, roomy)
	e := openEntry(t, d, image("a", size))
	e.writeChunks(random(mib), 0)
	for _, chunk := range []int64{0, 4, 9} {
		e.writeChunks(random(chunkSize), mib+chunk*chunkSize)
	}
	e.writeChunks(random(5000), 3*mib)
	c := openCandidate(t, d, e.name)
	for region, want := range []int64{mib, 3 * chunkSize, 0, 5000} {
		if got := c.held(int64(region) * mib); got != want {
			t.Errorf("region %d holds %d bytes, want %d", region, got, want)
		}
	}
	c.files.data = lateFile{c.files.data}
	for _, want := range []int64{3 * chunkSize, 0} {
		if n, err := c.punch(mib); n != want || err != nil {
			t.Errorf("%d bytes freed, %v; want %d", n, err, want)
		}
	}
}
