package overlay

import (
	"bytes"
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/fdtest"
)

// belowFunc is a disk below that is read by a function.
type belowFunc struct {
	baseDisk
	read func(ctx context.Context, p []byte, off int64) (int, error)
}

func (d belowFunc) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	return d.read(ctx, p, off)
}

// faultyFile is a file that counts what is done to it, and fails if fail is set.
type faultyFile struct {
	*memFile
	fail          error
	writes, syncs int
}

func (f *faultyFile) ReadAt(p []byte, off int64) (int, error) {
	if f.fail != nil {
		return 0, f.fail
	}
	return f.memFile.ReadAt(p, off)
}

func (f *faultyFile) WriteAt(p []byte, off int64) (int, error) {
	f.writes++
	if f.fail != nil {
		return 0, f.fail
	}
	return f.memFile.WriteAt(p, off)
}

func (f *faultyFile) Punch(off, n int64) error {
	if f.fail != nil {
		return f.fail
	}
	return f.memFile.Punch(off, n)
}

func (f *faultyFile) sync() error {
	f.syncs++
	return f.memFile.sync()
}

func (f *faultyFile) NextData(off int64) (int64, error) {
	if f.fail != nil {
		return 0, f.fail
	}
	return f.memFile.NextData(off)
}

// faultyDisk is a disk over files that count and fail, and below.
func faultyDisk(below blockio.ReaderAt) (disk *Disk, data, bits *faultyFile) {
	data = &faultyFile{memFile: newMemFile(crashSize)}
	bits = &faultyFile{memFile: newMemFile(mapSize(crashSize))}
	return newDisk(below, data, bits), data, bits
}

var errFault = errors.New("no luck")

// What can't be read below is an error of every read that wants it, and of every write
// that does: nothing takes its place. Others go well.
func TestFaultBelow(t *testing.T) {
	ctx := t.Context()
	for name, c := range map[string]struct {
		part int // of what was asked for comes one in so many; 0 is nothing
		err  error
		well bool
	}{
		"all":                   {1, nil, true},
		"all, and an error":     {1, errFault, false},
		"less, and the end":     {2, io.EOF, false},
		"less, and an error":    {2, errFault, false},
		"nothing, and an error": {0, errFault, false},
		"nothing in time":       {0, context.DeadlineExceeded, false},
	} {
		t.Run(name, func(t *testing.T) {
			base := baseDisk{crashSize}
			disk, _, _ := faultyDisk(belowFunc{base, func(ctx context.Context, p []byte, off int64) (int, error) {
				n, err := base.ReadAtContext(ctx, p, off)
				if off >= 5*clusterSize || off+int64(n) <= 4*clusterSize {
					return n, err
				}
				if c.part > 0 {
					return n / c.part, c.err
				}
				return 0, c.err
			}})
			check := func(what string, got int, err error, well bool) {
				t.Helper()
				if (err == nil) != well || !well && (got != 0 || !errors.Is(err, c.err)) {
					t.Errorf("%s: %d, %v; want that it goes well: %v", what, got, err, well)
				}
			}
			write := func(n, off int64, well bool) {
				t.Helper()
				got, err := disk.WriteAtContext(ctx, make([]byte, n), off)
				check("write", got, err, well)
			}
			read := func(first, end int64, well bool) {
				t.Helper()
				got, err := disk.ReadAtContext(ctx, make([]byte, (end-first)*clusterSize), first*clusterSize)
				check("read", got, err, well)
			}
			read(0, 4, true)
			read(4, 5, c.well)
			read(5, 6, true)
			for _, k := range []int64{2, 6} {
				write(clusterSize, k*clusterSize, true)
			}
			read(1, 4, true)
			read(1, 8, c.well) // in several pieces
			write(100, 4*clusterSize+5, c.well)
			check("zeros", 0, disk.ZeroContext(ctx, blockio.Extent{Off: 4*clusterSize + 200, Len: 10}), c.well)
			if disk.Differs(blockio.Extent{Off: 3 * clusterSize, Len: 3 * clusterSize}) != c.well {
				t.Error("want that a cluster counts as written if it could be completed")
			}
			write(clusterSize, 4*clusterSize, true) // nothing else is needed
			read(1, 8, true)
		})
	}
}

// What can't be read or written in the overlay itself is an error, too, and ends what
// is read below for it.
func TestFaultInOverlay(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base := baseDisk{crashSize}
		disk, data, _ := faultyDisk(belowFunc{base, func(ctx context.Context, p []byte, off int64) (int, error) {
			if off == 0 {
				<-ctx.Done()
				return 0, ctx.Err()
			}
			return base.ReadAtContext(ctx, p, off)
		}})
		ctx := context.Background()
		p := make([]byte, 3*clusterSize)
		if _, err := disk.WriteAtContext(ctx, p[:clusterSize], clusterSize); err != nil {
			t.Fatal(err)
		}
		data.fail = errFault
		for what, err := range map[string]error{
			"read":  second(disk.ReadAtContext(ctx, p, 0)),
			"alone": second(disk.ReadAtContext(ctx, p[:clusterSize], clusterSize)),
			"write": second(disk.WriteAtContext(ctx, p, 5*clusterSize)),
			"part":  second(disk.WriteAtContext(ctx, p[:10], 6*clusterSize)),
			"zeros": disk.ZeroContext(ctx, blockio.Extent{Off: 7 * clusterSize, Len: clusterSize}),
		} {
			if !errors.Is(err, errFault) || !strings.Contains(err.Error(), "overlay") {
				t.Errorf("%s: %v", what, err)
			}
		}
		if _, _, err := disk.MapAt(ctx, clusterSize); !errors.Is(err, errFault) {
			t.Errorf("MapAt: %v", err)
		}
		if disk.Changed() != clusterSize {
			t.Errorf("%d bytes count as written", disk.Changed())
		}
	})
}

// second is the error of a read or write.
func second(_ int, err error) error { return err }

// Beyond the disk nothing is written, and an empty write is none.
func TestWriteBeyondTheEnd(t *testing.T) {
	disk, data, _ := faultyDisk(baseDisk{crashSize})
	for _, e := range []blockio.Extent{{Off: crashSize, Len: 1}, {Off: crashSize - 1, Len: 2}, {Off: -1, Len: 1}, {Off: 5}} {
		if n, err := disk.WriteAtContext(t.Context(), make([]byte, e.Len), e.Off); n != 0 || (err == nil) != (e.Len == 0) {
			t.Errorf("write of %v: %d, %v", e, n, err)
		}
		if err := disk.ZeroContext(t.Context(), e); (err == nil) != (e.Len == 0) {
			t.Errorf("zeros at %v: %v", e, err)
		}
	}
	if data.writes > 0 || disk.Changed() > 0 {
		t.Errorf("%d writes, %d bytes changed", data.writes, disk.Changed())
	}
}

// Several pieces of what lies below are read at a time, and no more than maxBelow.
func TestReadsBelowAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		base, now, most := baseDisk{crashSize}, 0, 0
		var mu sync.Mutex
		disk, _, _ := faultyDisk(belowFunc{base, func(ctx context.Context, p []byte, off int64) (int, error) {
			mu.Lock()
			now++
			most = max(most, now)
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			now--
			mu.Unlock()
			return base.ReadAtContext(ctx, p, off)
		}})
		for k := range int64(3 * maxBelow) {
			if _, err := disk.WriteAtContext(context.Background(), zeros[:], 2*k*clusterSize); err != nil {
				t.Fatal(err)
			}
		}
		p := make([]byte, 6*maxBelow*clusterSize)
		if _, err := disk.ReadAtContext(context.Background(), p, 0); err != nil || most != maxBelow {
			t.Errorf("%d at a time, %v; want %d", most, err, maxBelow)
		}
	})
}

// Adjacent whole clusters are one write, however many they are.
func TestWholeClustersAreOneWrite(t *testing.T) {
	for _, c := range []struct {
		off, n int64
		writes int
	}{
		{0, 10 * clusterSize, 1},
		{clusterSize, 10*clusterSize + 1, 2},
		{clusterSize - 1, 10*clusterSize + 1, 2},
		{clusterSize - 1, 10*clusterSize + 2, 3},
		{5, 10, 1},
		{clusterSize - 1, 2, 2},
		{crashSize - 3*clusterSize - 1000, 3*clusterSize + 1000, 1}, // to the end of the disk
	} {
		disk, data, _ := faultyDisk(baseDisk{crashSize})
		for range 2 { // fresh, and there
			data.writes = 0
			if _, err := disk.WriteAtContext(t.Context(), make([]byte, c.n), c.off); err != nil || data.writes != c.writes {
				t.Errorf("%d bytes at %d: %d writes, %v; want %d", c.n, c.off, data.writes, err, c.writes)
			}
		}
	}
}

// A flush syncs what there is to sync, one at a time, and whoever waits for another can
// give up. With nothing written it syncs nothing.
func TestFlushes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk, data, bits := faultyDisk(baseDisk{crashSize})
		ctx := context.Background()
		step := func(what string, write bool, dataSyncs, bitsSyncs int) {
			t.Helper()
			if write {
				if _, err := disk.WriteAtContext(ctx, []byte("x"), 5); err != nil {
					t.Fatal(err)
				}
			}
			data.syncs, bits.syncs = 0, 0
			if err := disk.Flush(ctx); err != nil || data.syncs != dataSyncs || bits.syncs != bitsSyncs {
				t.Errorf("%s: %d and %d syncs, %v; want %d and %d", what, data.syncs, bits.syncs, err, dataSyncs, bitsSyncs)
			}
		}
		step("nothing written", false, 0, 0)
		step("a fresh cluster", true, 1, 1)
		step("nothing since", false, 0, 0)
		step("no fresh cluster", true, 1, 0)
		if _, err := disk.WriteAtContext(ctx, []byte("x"), 7*clusterSize); err != nil {
			t.Fatal(err)
		}
		bits.fail = errFault
		if err := disk.Flush(ctx); !errors.Is(err, errFault) || !strings.Contains(err.Error(), "map") {
			t.Errorf("the map can't be written: %v", err)
		}
		bits.fail = nil
		step("once more", false, 1, 1)

		syncing := 0
		data.onSync = func() error {
			if syncing++; syncing > 1 {
				t.Error("two syncs at a time")
			}
			time.Sleep(time.Second)
			syncing--
			return nil
		}
		if _, err := disk.WriteAtContext(ctx, []byte("x"), 5); err != nil {
			t.Fatal(err)
		}
		go disk.Flush(ctx)
		synctest.Wait()
		if _, err := disk.WriteAtContext(ctx, []byte("y"), 5); err != nil {
			t.Fatal(err)
		}
		short, cancel := context.WithTimeout(ctx, time.Millisecond)
		defer cancel()
		if err := disk.Flush(short); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Flush beside another: %v", err)
		}
		data.syncs = 0
		if err := disk.Flush(ctx); err != nil || data.syncs != 1 {
			t.Errorf("Flush behind another: %d syncs, %v", data.syncs, err)
		}
	})
}

// A map that says something of what is behind the end of the disk is damaged.
func TestMapBehindTheEnd(t *testing.T) {
	for _, n := range []int64{1, 9, pageClusters - 1, pageClusters, pageClusters + 1, 2 * pageClusters, 2*pageClusters + 9} {
		for _, c := range []int64{0, n - 1, n, n + 1, n + 7, n + 8} {
			bits := newMemFile(mapSize(n * clusterSize))
			if c/8 >= bits.size {
				continue
			}
			if _, err := bits.WriteAt([]byte{1 << (c % 8)}, c/8); err != nil {
				t.Fatal(err)
			}
			m := newClusters()
			if err := m.read(bits, n); errors.Is(err, ErrDamaged) != (c >= n) {
				t.Errorf("%d clusters, bit %d is set: %v", n, c, err)
			}
			if c < n && (!m.has(c) || m.len() != 1) {
				t.Errorf("%d clusters, bit %d is set: %d clusters are here", n, c, m.len())
			}
		}
	}
	bits := &faultyFile{memFile: newMemFile(pageSize), fail: errFault}
	m := newClusters()
	if err := m.read(bits, 9); !errors.Is(err, errFault) {
		t.Errorf("a map that can't be read: %v", err)
	}
	short := newMemFile(5)
	if _, err := short.WriteAt([]byte{1}, 0); err != nil {
		t.Fatal(err)
	}
	if err := m.read(short, 9); err == nil {
		t.Error("a map of five bytes is no error")
	}
	for size, want := range map[int64]int64{1: 1, clusterSize: 1, pageClusters * clusterSize: 1, pageClusters*clusterSize + 1: 2, crashSize: 3} {
		if got := mapSize(size); got != want*pageSize {
			t.Errorf("the map of %d bytes has %d, want %d pages", size, got, want)
		}
	}
}

// holedDisk is a disk below that knows that all of it from cluster 6 on is zeros.
type holedDisk struct{ baseDisk }

func (d holedDisk) MapAt(_ context.Context, off int64) (int64, bool, error) {
	if off < 6*clusterSize {
		return 6*clusterSize - off, false, nil
	}
	return d.size - off, true, nil
}

// faultyMapper is a disk below of which nothing can be told.
type faultyMapper struct{ baseDisk }

func (faultyMapper) MapAt(context.Context, int64) (int64, bool, error) { return 0, false, errFault }

// Zeros are known as far as they go: those below, and the holes of the overlay.
func TestMapAt(t *testing.T) {
	disk, _, _ := faultyDisk(holedDisk{baseDisk{crashSize}})
	ctx := t.Context()
	for k, zero := range map[int64]bool{1: false, 2: true, 3: true, 5: false, 8: true, 9: false, 10: false} {
		e := blockio.Extent{Off: k * clusterSize, Len: clusterSize}
		var err error
		if zero {
			err = disk.ZeroContext(ctx, e)
		} else {
			_, err = disk.WriteAtContext(ctx, bytes.Repeat([]byte{1}, clusterSize), e.Off)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		off, end int64 // clusters
		zeros    bool
	}{
		{0, 1, false},
		{1, 2, false},
		{2, 4, true},
		{3, 4, true},
		{4, 5, false},
		{5, 6, false},
		{6, 8, true},
		{7, 8, true},
		{8, 9, true},
		{9, 11, false},
		{10, 11, false},
	} {
		for _, inside := range []int64{0, 1, clusterSize - 1} {
			off := c.off*clusterSize + inside
			n, zeros, err := disk.MapAt(ctx, off)
			if n != c.end*clusterSize-off || zeros != c.zeros || err != nil {
				t.Errorf("MapAt(%d of cluster %d) = %d, %v, %v; want %d, %v", inside, c.off, n, zeros, err, c.end*clusterSize-off, c.zeros)
			}
		}
	}
	if n, zeros, err := disk.MapAt(ctx, 11*clusterSize); n != crashSize-11*clusterSize || !zeros || err != nil {
		t.Errorf("MapAt of the rest = %d, %v, %v", n, zeros, err)
	}
	disk.below = faultyMapper{}
	if _, _, err := disk.MapAt(ctx, 0); !errors.Is(err, errFault) {
		t.Errorf("MapAt, and below it fails: %v", err)
	}
	if _, _, err := disk.MapAt(ctx, 9*clusterSize); err != nil {
		t.Errorf("MapAt of what is here: %v", err)
	}
}

// With no more files to open there is an error that says so and where, nothing is left
// open, and nothing half made.
func TestNoMoreFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "overlay")
	scarce := func(what string, least int, use func() error) {
		t.Helper()
		n := fdtest.Scarce(t, func() error {
			err := use()
			if err != nil && !strings.Contains(err.Error(), path) {
				t.Errorf("%s: %v; want that it says where", what, err)
			}
			return err
		})
		if n < least {
			t.Errorf("%s: it has failed %d times", what, n)
		}
	}
	opened := func(open func() (*Dir, error), over func(*Dir) (*Disk, error)) func() error {
		return func() error {
			d, err := open()
			if err != nil {
				return err
			}
			disk, err := over(d)
			if err != nil {
				return errors.Join(err, d.Close())
			}
			return disk.Close()
		}
	}
	written := func(d *Dir) (*Disk, error) {
		return d.Disk(baseDisk{testBase.Size}, testBase, slog.New(slog.DiscardHandler))
	}
	viewed := func(d *Dir) (*Disk, error) { return d.View(baseDisk{testBase.Size}, testBase) }
	read := func() (*Dir, error) { return Open(path) }

	gone := 0
	scarce("make all", 4, func() error {
		d, err := OpenOrMake(path, testBase)
		if err != nil {
			if unix.Rmdir(path) == unix.ENOENT {
				gone++
			}
			return errors.Join(err, os.RemoveAll(path))
		}
		return d.Discard()
	})
	if gone < 3 {
		t.Errorf("the new directory was removed %d times", gone)
	}
	scarce("make", 4, opened(func() (*Dir, error) {
		d, err := OpenOrMake(path, testBase)
		if _, statErr := os.Stat(path); statErr != nil {
			t.Errorf("%v, and the directory, which was there, is gone", err)
		}
		return d, err
	}, written))
	scarce("write", 4, opened(func() (*Dir, error) { return OpenOrMake(path, testBase) }, written))
	scarce("read", 4, opened(read, viewed))
	scarce("look", 4, func() error {
		_, err := Look(path)
		return err
	})
	scarce("discard", 2, func() error {
		d, err := read()
		if err != nil {
			return err
		}
		return d.Discard()
	})
	scarce("ephemeral", 1, func() error {
		disk, err := Ephemeral(filepath.Dir(path), baseDisk{testBase.Size})
		if err != nil {
			return errors.Join(err, errors.New(path)) // there is no overlay to speak of
		}
		return disk.Close()
	})
}

// What is in the way of the overlay's files is an error that names it, and no overlay.
// What is in the way of their removal is one, too, and what is left is none any more.
func TestInTheWay(t *testing.T) {
	inTheWay := func(path string) error { return os.Mkdir(path, 0o700) }
	for _, name := range []string{stateName, newName, goneName, mapName, dataName} {
		path := t.TempDir()
		if err := inTheWay(filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
		fdtest.NoLeak(t, func() {
			if _, err := OpenOrMake(path, testBase); err == nil || !strings.Contains(err.Error(), path) || !strings.Contains(err.Error(), name) {
				t.Errorf("%s is in the way: %v", name, err)
			}
		})
		if _, err := Look(path); err == nil {
			t.Errorf("%s is in the way, and there is an overlay", name)
		}
		if err := os.Remove(filepath.Join(path, name)); err != nil {
			t.Fatal(err)
		}
		written(t, path)
	}
	path := filepath.Join(t.TempDir(), "overlay")
	for _, name := range []string{dataName, mapName} {
		written(t, path)
		d, err := Open(path)
		if err != nil {
			t.Fatal(err)
		}
		data := filepath.Join(path, name)
		if err := errors.Join(os.Remove(data), inTheWay(data)); err != nil {
			t.Fatal(err)
		}
		if err := d.Discard(); err == nil || !strings.Contains(err.Error(), path) {
			t.Errorf("%s is in the way, and is discarded: %v", name, err)
		}
		if _, err := Look(path); !errors.Is(err, errNotOverlay) {
			t.Errorf("%s is in the way: what was discarded is %v", name, err)
		}
		if err := errors.Join(os.Remove(data), os.WriteFile(data, nil, 0o600)); err != nil { // it counts as none
			t.Fatal(err)
		}
	}
	written(t, path)
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Join(path, metaName), filepath.Join(path, "else")); err != nil {
		t.Fatal(err)
	}
	if err := d.Discard(); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("discarded without its meta: %v", err)
	}
}

// What could not be flushed, with nobody there to be told, is in the log; that a disk is
// closed is not.
func TestFlushIsLogged(t *testing.T) {
	path := filepath.Join(t.TempDir(), "overlay")
	d, err := OpenOrMake(path, testBase)
	if err != nil {
		t.Fatal(err)
	}
	var log bytes.Buffer
	disk, err := d.Disk(baseDisk{testBase.Size}, testBase, slog.New(slog.NewTextHandler(&log, nil)))
	if err != nil {
		t.Fatal(err)
	}
	write := func() {
		t.Helper()
		if _, err := disk.WriteAtContext(t.Context(), []byte("x"), 0); err != nil {
			t.Fatal(err)
		}
	}
	write()
	disk.flushNow()
	if log.Len() > 0 {
		t.Errorf("a flush that went well is in the log: %s", &log)
	}
	write()
	if err := disk.data.Close(); err != nil {
		t.Fatal(err)
	}
	disk.flushNow()
	if !strings.Contains(log.String(), "bad file descriptor") || strings.Count(log.String(), "\n") != 1 {
		t.Errorf("the log is %q, want why it failed", &log)
	}
	if err := disk.Close(); err == nil {
		t.Error("closed well, and not all was flushed")
	}
	log.Reset()
	disk.flushNow()
	if log.Len() > 0 {
		t.Errorf("after the end there is %s", &log)
	}
	if info, err := Look(path); err != nil || info.Clean || info.InUse {
		t.Errorf("%+v, %v; want one that is not clean", info, err)
	}
}
