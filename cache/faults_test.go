package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/internal/fdtest"
)

// With no more files to open there is an error that says so, and nothing is left open.
func TestNoMoreFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	id := image("a", 100_000)
	use := func() error {
		d, err := OpenDir(path, roomy)
		if err != nil {
			return err
		}
		defer d.Close()
		e, err := d.Open(id, "", someTime)
		if err != nil {
			return err
		}
		defer e.Close()
		if _, err = e.Blocks([]blockio.Extent{{Len: id.Size}}, false); err != nil {
			return err
		}
		if err := e.Pin(); err != nil {
			return err
		}
		if err := e.SetBeside("x", nil); err != nil {
			return err
		}
		_, _, err = e.Beside("x")
		return err
	}
	for _, what := range []string{"made", "there"} {
		if n := fdtest.Scarce(t, use); n < 5 {
			t.Errorf("%s: it has failed %d times", what, n)
		}
	}
	d := openDir(t, path, roomy)
	e := openEntry(t, d, id)
	if err := d.Enforce(t.Context()); err != nil { // which opens a file that stays open
		t.Fatal(err)
	}
	for name, f := range map[string]func() error{
		"each":   func() error { return d.each(func(string, *os.File, meta) {}) },
		"evict":  func() error { return second(d.evict(1, true)) },
		"remove": func() error { return second(d.RemoveDamaged()) },
		"trim":   func() error { return second(d.Trim(t.Context())) },
		"fits":   func() error { return second(d.Fits(e)) },
		"saw":    func() error { return e.Saw(image(fmt.Sprint(time.Now()), id.Size)) },
		"unkeep": func() error { return d.Unkeep(e.name) },
		"listed": func() error {
			_, err := e.ListedBlocks()
			return err
		},
		"list": func() error {
			_, _, err := d.List()
			return err
		},
		"remember": func() error { return d.Remember("x", []byte("1"), func([]byte) bool { return true }) },
		"enforce":  func() error { return d.Enforce(t.Context()) },
	} {
		t.Run(name, func(t *testing.T) {
			if n := fdtest.Scarce(t, f); n < 1 {
				t.Errorf("it has failed %d times", n)
			}
		})
	}
}

func second(_ int64, err error) error { return err }

// What is in the way of an entry's files is an error, leaves nothing open, and nothing
// half made.
func TestInTheWay(t *testing.T) {
	id := image("a", 10_000)
	spoiled := func(t *testing.T, name string) (*Dir, string) {
		d := newDir(t, roomy)
		e := openEntry(t, d, id)
		e.Close()
		entry := filepath.Dir(e.Path())
		if err := errors.Join(os.RemoveAll(filepath.Join(entry, name)), os.Mkdir(filepath.Join(entry, name), 0o700)); err != nil {
			t.Fatal(err)
		}
		return d, entry
	}
	for _, name := range []string{dataName, chunksName, usedName, inUseName} {
		d, _ := spoiled(t, name)
		fdtest.NoLeak(t, func() {
			if _, err := d.Open(id, id.Key, someTime); !errors.Is(err, unix.EISDIR) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s is in the way: %v", name, err)
			}
			if _, err := d.evict(1, true); err != nil {
				t.Errorf("%s is in the way of eviction: %v", name, err)
			}
		})
	}
	d, _ := spoiled(t, blocksName+"0")
	e := openEntry(t, d, id)
	if _, err := e.Blocks([]blockio.Extent{{Len: id.Size}}, false); !errors.Is(err, unix.EISDIR) {
		t.Errorf("the table of blocks is in the way: %v", err)
	}
	d, entry := spoiled(t, besideName("x"))
	e = openEntry(t, d, id)
	if err := e.SetBeside("x", []byte("y")); !errors.Is(err, unix.EEXIST) && !errors.Is(err, unix.EISDIR) {
		t.Errorf("what is beside is in the way: %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(entry, besidePrefix+"*.*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	d = newDir(t, roomy)
	if err := os.WriteFile(filepath.Join(d.Path(), id.name()), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Open(id, "", someTime); err == nil {
		t.Error("a file is in the way of the entry, and that is no error")
	}
	if got := entries(t, d.Path()); len(got) > 0 {
		t.Errorf("left behind: %v", got)
	}
}

// A pipe in place of a file keeps nobody waiting for its other end.
func TestPipes(t *testing.T) {
	id := image("a", 10_000)
	for _, name := range []string{dataName, chunksName, usedName, inUseName, pinName, metaName, blocksName + "0"} {
		t.Run(name, func(t *testing.T) {
			defer time.AfterFunc(30*time.Second, func() { panic("it hangs") }).Stop()
			d := newDir(t, roomy)
			e := openEntry(t, d, id)
			e.Close()
			path := filepath.Join(filepath.Dir(e.Path()), name)
			if err := errors.Join(os.RemoveAll(path), unix.Mkfifo(path, 0o600)); err != nil {
				t.Fatal(err)
			}
			evict(t, d, 1, true)
			e = openEntry(t, d, id)
			p := random(id.Size)
			wholeBlocks(t, e, false).Put(0, blockio.Extent{Len: 1000}, p[:1000])
			fill(e, p)
			if n := holds(t, e.files, p); n != 0 && n != id.Size {
				t.Errorf("%d bytes are there, want all or none", n)
			}
		})
	}
}

// Who closes an entry, its blocks, or a directory leaves no file open.
func TestNothingLeaks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	id := image("a", 100_000)
	use := func() {
		d, err := OpenDir(path, Options{Size: mib})
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		e, err := d.Open(id, "", someTime)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		for _, whole := range []bool{false, true} {
			wholeBlocks(t, e, whole).Put(0, blockio.Extent{Len: 8192}, random(8192))
		}
		other, err := d.Open(image("b", 2*mib), "", someTime)
		if err != nil {
			t.Fatal(err)
		}
		fill(other, random(2*mib))
		err = errors.Join(e.Pin(), e.Completed(true, true), e.Incomplete(), d.Unkeep(e.name), second(d.Trim(t.Context())), d.Enforce(t.Context()), e.Saw(image(fmt.Sprint(time.Now()), id.Size)))
		e.Confirm()
		other.Close()
		evict(t, d, mib, true)
		_, _, listErr := d.List()
		_, listedErr := e.ListedBlocks()
		_, fitsErr := d.Fits(e)
		if found, findErr := d.Find(id.Key, ""); findErr == nil {
			found.Close()
		}
		err = errors.Join(err, listErr, listedErr, fitsErr, d.Remember("x", nil, func([]byte) bool { return true }), e.SetBeside("x", nil))
		if _, _, besideErr := e.Beside("x"); err != nil || besideErr != nil {
			t.Error(err, besideErr)
		}
	}
	fdtest.NoLeak(t, use)
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

// closing is a source that counts bodies that are open.
type closing struct {
	*blockiotest.Source
	open int
}

func (s *closing) OpenRange(ctx context.Context, r blockio.Range) (io.ReadCloser, error) {
	body, err := s.Source.OpenRange(ctx, r)
	s.open++
	return closeFunc{body, func() { s.open-- }}, err
}

type closeFunc struct {
	io.Reader
	close func()
}

func (c closeFunc) Close() error {
	c.close()
	return nil
}

// What is read again is closed, and what came from disk is counted as such.
func TestBytesCloseAndCount(t *testing.T) {
	src := &closing{Source: &blockiotest.Source{Data: random(3 * chunkSize)}}
	e := openEntry(t, newDir(t, roomy), image("a", 3*chunkSize))
	b := e.Bytes(src)
	read := func(want EntryStats) {
		t.Helper()
		if _, err := b.ReadAtContext(t.Context(), make([]byte, 100), chunkSize+5); err != nil {
			t.Fatal(err)
		}
		if got := e.Stats(); got != want || src.open != 0 {
			t.Errorf("%+v, %d bodies are open; want %+v and none", got, src.open, want)
		}
	}
	read(EntryStats{Stored: chunkSize})
	read(EntryStats{Stored: chunkSize, Hits: 1, HitBytes: 100})
	b.forget(blockio.Extent{Off: chunkSize, Len: 1})
	read(EntryStats{Stored: 2 * chunkSize, Hits: 1, HitBytes: 100})
}

// Reads and writes of blocks are counted as what they are. What was never stored is no
// mismatch, and what does not match is not looked for again.
func TestBlocksCount(t *testing.T) {
	const size = 40 * chunkSize
	p := random(size)
	at := blockio.Extent{Off: 1000, Len: 10_000}
	for _, whole := range []bool{false, true} {
		e := openEntry(t, newDir(t, roomy), image("a", size))
		if whole {
			at = blockio.Extent{Off: chunkSize, Len: 2 * chunkSize}
		}
		if err := e.Completed(true, false); err != nil {
			t.Fatal(err)
		}
		b := wholeBlocks(t, e, whole)
		if exists(filepath.Join(filepath.Dir(e.Path()), blocksName+"0")) == whole {
			t.Errorf("whole chunks %v: want a table of blocks if they are not", whole)
		}
		step := func(what string, here bool, want EntryStats) {
			t.Helper()
			if got := b.Get(0, at, make([]byte, at.Len)); got != here {
				t.Errorf("%s: here %v", what, got)
			}
			if got := e.Stats(); got != want {
				t.Errorf("%s: %+v, want %+v", what, got, want)
			}
		}
		step("never stored", false, EntryStats{})
		if m, err := readMeta(e.f); err != nil || !m.Complete {
			t.Errorf("what was not stored takes back that all is complete (%v)", err)
		}
		b.Put(0, at, p[at.Off:at.End()])
		want := EntryStats{Stored: at.Len, Hits: 1, HitBytes: at.Len}
		step("stored", true, want)
		e.writeAt([]byte{p[5000] ^ 1}, 5000)
		if !b.Have(0, at) {
			t.Error("what is damaged, which nobody knows, is not there")
		}
		want.Mismatches++
		step("damaged", false, want)
		if !whole {
			if b.Listed(0) || b.Have(0, at) {
				t.Error("what did not match is still listed")
			}
			step("damaged, and known", false, want)
		}
	}
}

// What could not be written is not said to be there.
func TestNotStoredIsNotListed(t *testing.T) {
	p := random(4 * chunkSize)
	for name, broken := range map[string]func(e *Entry, b *Blocks){
		"no room":    func(e *Entry, _ *Blocks) { e.admit = func(int64) bool { return false } },
		"data fails": func(e *Entry, _ *Blocks) { e.data = &spy{file: e.data, write: func() error { return unix.EIO }} },
		"a table fails": func(e *Entry, b *Blocks) {
			b.sums.file = &spy{file: b.sums.file, write: func() error { return unix.EIO }}
		},
		"another fails": func(e *Entry, _ *Blocks) {
			e.chunks.file = &spy{file: e.chunks.file, write: func() error { return unix.EIO }}
		},
		"not to be used": func(e *Entry, _ *Blocks) { e.write = false },
	} {
		e := openEntry(t, newDir(t, roomy), image("a", int64(len(p))))
		b := wholeBlocks(t, e, false)
		e.failed = func(error) {} // nothing is given up
		broken(e, b)
		at := blockio.Extent{Off: 10, Len: 5000}
		if name != "another fails" {
			b.Put(0, at, p[at.Off:at.End()])
		}
		if name != "a table fails" {
			e.writeChunks(p, 0)
		}
		if b.Listed(0) || e.haveCovered(blockio.Extent{Len: chunkSize}) || e.Stats().Stored != 0 {
			t.Errorf("%s: listed %v, chunks %v, stored %d", name, b.Listed(0), e.haveCovered(blockio.Extent{Len: chunkSize}), e.Stats().Stored)
		}
	}
}

// What is reckoned with is whole pages, and one of a table.
func TestMayIsInPages(t *testing.T) {
	e := openEntry(t, newDir(t, roomy), image("a", 1000))
	var asked int64
	e.admit = func(n int64) bool { asked = n; return true }
	for n, want := range map[int]int64{1: 2, chunkSize: 2, chunkSize + 1: 3, 10 * chunkSize: 11} {
		if e.may(n); asked != want*chunkSize {
			t.Errorf("for %d bytes: room for %d, want %d pages", n, asked, want)
		}
	}
}

// The minute of the last use is noted for each region that was touched, no other, and
// once.
func TestTouch(t *testing.T) {
	const size = 1030 * mib
	e := openEntry(t, newDir(t, roomy), image("a", size))
	e.now = func() time.Time { return someTime }
	writes := 0
	e.used = &spy{file: e.used, write: func() error { writes++; return nil }}
	used := func(region int64) bool {
		var minute [4]byte
		_, _ = e.used.ReadAt(minute[:], region*4)
		return binary.LittleEndian.Uint32(minute[:]) == uint32(someTime.Unix()/60)
	}
	b := wholeBlocks(t, e, false)
	for name, c := range map[string]struct {
		touch func()
		want  []int64
	}{
		"a whole region": {func() { e.touch(blockio.Extent{Off: 3 * mib, Len: mib}) }, []int64{3}},
		"two in parts":   {func() { e.touch(blockio.Extent{Off: 6*mib - 1, Len: 2}) }, []int64{5, 6}},
		"far from them":  {func() { e.touch(blockio.Extent{Off: 1027 * mib, Len: 1}) }, []int64{1027}},
		"a block":        {func() { b.Put(0, blockio.Extent{Off: 10 * mib, Len: 100}, random(100)) }, []int64{10}},
	} {
		for range 3 {
			c.touch()
		}
		for _, region := range c.want {
			if !used(region) || used(region+1) && region != 5 || used(region-1) && region != 6 {
				t.Errorf("%s: region %d is used %v, the next %v, the one before %v", name, region, used(region), used(region+1), used(region-1))
			}
		}
	}
	if writes != 5 {
		t.Errorf("%d writes, want one for each region", writes)
	}
	e.now = func() time.Time { return someTime.Add(time.Minute) }
	if b.Get(0, blockio.Extent{Off: 10 * mib, Len: 100}, make([]byte, 100)); used(10) {
		t.Error("a block that was read is not used")
	}
}

// Whether a block was thrown away is told by pages that are its own, one in each region:
// only if there are none, it has to be read.
func TestAllocatedAt(t *testing.T) {
	const size = 2*mib + 3000
	e := openEntry(t, newDir(t, roomy), image("a", size))
	b := wholeBlocks(t, e, false)
	p := random(size)
	e.writeAt(p, 0)
	for at, want := range map[blockio.Extent]bool{
		{Off: 5000, Len: 1000}:               false,
		{Off: 4096, Len: 4096}:               true,
		{Off: 4097, Len: 8190}:               false,
		{Off: 4097, Len: 8191}:               true,
		{Off: 2 * mib, Len: 3000}:            true, // to the end
		{Off: 2 * mib, Len: 2999}:            false,
		{Off: 2*mib + 1, Len: 2999}:          false,
		{Off: mib - 4096, Len: 4196}:         false, // nothing of its own in the second
		{Off: mib - 4096, Len: 8192}:         true,
		{Off: mib - 100, Len: 5000}:          false,
		{Off: mib - 5000, Len: mib + 6000}:   false,
		{Off: mib - 5000, Len: mib + 10_000}: false,
		{Off: mib - 5000, Len: mib + 8000}:   true,
		{Off: mib - 5000, Len: mib + 4096}:   true,
	} {
		if got := e.allocatedAt(at); got != want {
			t.Errorf("%v: %v, want %v", at, got, want)
		}
	}
	at := blockio.Extent{Off: 10_000, Len: 100_000}
	b.Put(0, at, p[at.Off:at.End()])
	hits := e.Stats().Hits
	if !b.Here(0, at) || e.Stats().Hits != hits {
		t.Error("a block with pages of its own was read")
	}
}

// A directory with another name than an entry's is somebody's, whatever is in it.
func TestForeignNames(t *testing.T) {
	d := newDir(t, roomy)
	names := []string{"cafe", strings.Repeat("a", 31), strings.Repeat("a", 33), strings.Repeat("A", 32), strings.Repeat("g", 32), "b" + strings.Repeat("-", 30) + "c"}
	for _, name := range names {
		if err := os.Mkdir(filepath.Join(d.Path(), name), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	if freed, err := d.RemoveDamaged(); freed != 0 || err != nil {
		t.Errorf("%d bytes freed, %v", freed, err)
	}
	if got := entries(t, d.Path()); len(got) != len(names) {
		t.Errorf("left: %v", got)
	}
}

// What is thrown away is regions, wherever in them there is something.
func TestRegions(t *testing.T) {
	d := newDir(t, roomy)
	e := openEntry(t, d, image("a", 5*mib))
	for _, off := range []int64{mib + 5*chunkSize, 2*mib - chunkSize, 4 * mib} {
		e.writeChunks(random(chunkSize), off)
	}
	c := openCandidate(t, d, e.name)
	var got []int64
	for _, r := range c.regions(nil) {
		got = append(got, r.off/mib, r.off%mib)
	}
	if want := []int64{1, 0, 4, 0}; fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("regions %v, want %v", got, want)
	}
}

// Of what was used in the same minute any may go: who reads all of it again and again
// finds something.
func TestSameMinuteGoesInNoOrder(t *testing.T) {
	d := newDir(t, roomy)
	p := random(16 * mib)
	e := openEntry(t, d, image("a", int64(len(p))))
	e.now = func() time.Time { return someTime }
	fill(e, p)
	evict(t, d, 8*mib, false)
	if half := int64(8 * mib); holds(t, e.files, p[:half]) == 0 || holds(t, e.files, p[:half]) == half { // once in 6435
		t.Error("one half has gone, in order")
	}
}
