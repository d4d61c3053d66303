package overlay

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/fdtest"
)

func TestMain(m *testing.M) {
	unix.Umask(0o022)
	os.Exit(m.Run())
}

// testBase is a base of a few clusters.
var testBase = Base{Source: "https://example.org/KNOPPIX", Size: 10*clusterSize + 100, Identity: "version 1"}

// opened opens the overlay at path, which is made if need be.
func opened(t *testing.T, path string) *Disk {
	t.Helper()
	d, err := OpenOrMake(path, testBase)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := d.Disk(baseDisk{testBase.Size}, testBase, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	return disk
}

// written opens the overlay at path, writes something, and closes it.
func written(t *testing.T, path string) {
	t.Helper()
	disk := opened(t, path)
	if _, err := disk.WriteAtContext(t.Context(), []byte("hello"), clusterSize+7); err != nil {
		t.Fatal(err)
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
}

// What was written is there when the overlay is opened again, and nobody else can read it.
func TestKept(t *testing.T) {
	path := filepath.Join(t.TempDir(), "overlay")
	disk := opened(t, path)
	if !disk.ModTime().IsZero() {
		t.Errorf("changed at %v, want never", disk.ModTime())
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	written(t, path)
	at := time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)
	if err := os.Chtimes(filepath.Join(path, dataName), at, at); err != nil {
		t.Fatal(err)
	}
	disk = opened(t, path)
	if got := disk.ModTime(); !got.Equal(at) {
		t.Errorf("changed at %v, want %v", got, at)
	}
	got, err := cluster(disk, 1)
	if err != nil {
		t.Fatal(err)
	}
	want, err := cluster(&Disk{below: baseDisk{testBase.Size}, size: testBase.Size, here: newClusters()}, 1)
	if err != nil {
		t.Fatal(err)
	}
	copy(want[7:], "hello")
	if !bytes.Equal(got, want) {
		t.Error("what was written is not there")
	}
	if disk.Changed() != clusterSize {
		t.Errorf("%d bytes are changed, want %d", disk.Changed(), clusterSize)
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	if err := disk.Close(); err != nil {
		t.Errorf("closed once more: %v", err)
	}
	for name, want := range map[string]os.FileMode{".": fs.ModeDir | 0o700, metaName: 0o600, dataName: 0o600, mapName: 0o600, stateName: 0o600} {
		info, err := os.Stat(filepath.Join(path, name))
		if err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
}

// Look says what is there, whether it is in use or not.
func TestLook(t *testing.T) {
	path := filepath.Join(t.TempDir(), "overlay")
	written(t, path)
	look := func(want Info) {
		t.Helper()
		got, err := Look(path)
		if err != nil {
			t.Fatal(err)
		}
		room := int64(0)
		for _, name := range []string{dataName, mapName} {
			var st unix.Stat_t
			if err := unix.Stat(filepath.Join(path, name), &st); err != nil {
				t.Fatal(err)
			}
			room += st.Blocks * 512
		}
		if got.Room != room || room == 0 {
			t.Errorf("it takes %d bytes, want %d", got.Room, room)
		}
		got.Room = 0
		if got != want {
			t.Errorf("Look = %+v, want %+v", got, want)
		}
	}
	look(Info{Base: testBase, Changed: clusterSize, Clean: true})
	disk := opened(t, path)
	look(Info{Base: testBase, Changed: clusterSize, InUse: true})
	if err := disk.ZeroContext(t.Context(), blockio.Extent{Len: testBase.Size}); err != nil {
		t.Fatal(err)
	}
	look(Info{Base: testBase, Changed: clusterSize, InUse: true})
	if err := disk.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	look(Info{Base: testBase, Changed: testBase.Size, InUse: true})
	// As if the process had died.
	disk.timer.Stop()
	if err := disk.end(false); err != nil {
		t.Fatal(err)
	}
	look(Info{Base: testBase, Changed: testBase.Size})
	disk = opened(t, path)
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	look(Info{Base: testBase, Changed: testBase.Size, Clean: true})
}

// Whoever made it is told what was made, and an overlay nobody has written to is clean.
func TestMade(t *testing.T) {
	path := filepath.Join(t.TempDir(), "overlay")
	for _, c := range []struct {
		name               string
		before             func() error
		overlay, directory bool
	}{
		{"nothing there", nil, true, true},
		{"there", nil, false, false},
		{"empty, but for an old state", func() error {
			return errors.Join(os.RemoveAll(path), os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, stateName), []byte(stateOpen), 0o600))
		}, true, false},
	} {
		if c.before != nil {
			if err := c.before(); err != nil {
				t.Fatal(err)
			}
		}
		d, err := OpenOrMake(path, testBase)
		if err != nil {
			t.Fatal(err)
		}
		if overlay, directory := d.Made(); overlay != c.overlay || directory != c.directory || !d.Clean() || d.Base() != testBase {
			t.Errorf("%s: made %v and %v, clean %v, base %v", c.name, overlay, directory, d.Clean(), d.Base())
		}
		if err := d.Close(); err != nil {
			t.Fatal(err)
		}
	}
	// Not clean is what was not closed.
	disk := opened(t, path)
	if err := errors.Join(disk.closeFiles(), os.WriteFile(filepath.Join(path, stateName), []byte(stateOpen), 0o600)); err != nil {
		t.Fatal(err)
	}
	if info, err := Look(path); err != nil || info.Clean || !info.InUse {
		t.Errorf("%+v, %v; want one in use", info, err)
	}
	if err := disk.Close(); err == nil {
		t.Error("its files were closed, and it says nothing")
	}
}

// A map that was copied without its zeros gets its room back before anything is written:
// no flush can fail for want of it.
func TestMapHasRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "overlay")
	written(t, path)
	name := filepath.Join(path, mapName)
	if err := errors.Join(os.Truncate(name, 0), os.Truncate(name, mapSize(testBase.Size))); err != nil {
		t.Fatal(err)
	}
	disk := opened(t, path)
	defer disk.Close()
	if room, err := disk.bits.(osFile).Allocated(); err != nil || room < mapSize(testBase.Size) {
		t.Errorf("it has %d bytes, %v", room, err)
	}
}

// An overlay is opened by one process at a time, who comes while the last one closes
// waits for that, and who waits while it is thrown away finds nothing.
func TestInUse(t *testing.T) {
	defer func(was time.Duration) { lockPatience = was }(lockPatience)
	path := filepath.Join(t.TempDir(), "overlay")
	disk := opened(t, path)
	lockPatience = 20 * time.Millisecond
	begin := time.Now()
	refused := func() {
		t.Helper()
		fdtest.NoLeak(t, func() {
			if _, err := OpenOrMake(path, testBase); !errors.Is(err, ErrInUse) || !strings.Contains(err.Error(), path) {
				t.Errorf("opened twice: %v", err)
			}
			if _, err := Open(path); !errors.Is(err, ErrInUse) {
				t.Errorf("opened twice: %v", err)
			}
		})
	}
	refused()
	if waited := time.Since(begin); waited < 2*lockPatience {
		t.Errorf("waited for %v, want twice %v at least", waited, lockPatience)
	}
	lockPatience = time.Minute
	time.AfterFunc(50*time.Millisecond, func() { disk.Close() })
	next := opened(t, path)
	time.AfterFunc(50*time.Millisecond, func() {
		if err := next.Close(); err != nil {
			t.Error(err)
		}
	})
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	failed := make(chan error)
	go func() {
		_, err := Open(path)
		failed <- err
	}()
	time.Sleep(50 * time.Millisecond)
	if err := d.Discard(); err != nil {
		t.Fatal(err)
	}
	if err := <-failed; !errors.Is(err, errNotOverlay) {
		t.Errorf("opened while it was thrown away: %v", err)
	}
	// Or makes another, which is in use then.
	written(t, path)
	if d, err = Open(path); err != nil {
		t.Fatal(err)
	}
	made := make(chan *Dir)
	go func() {
		d, err := OpenOrMake(path, testBase)
		if err != nil {
			t.Error(err)
		}
		made <- d
	}()
	time.Sleep(50 * time.Millisecond)
	if err := d.Discard(); err != nil {
		t.Fatal(err)
	}
	d = <-made
	lockPatience = 20 * time.Millisecond
	refused()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
}

// An overlay is used over the disk that it was made for, wherever that is.
func TestMismatch(t *testing.T) {
	path := filepath.Join(t.TempDir(), "overlay")
	written(t, path)
	larger, other := testBase, testBase
	larger.Size++
	other.Identity = "version 2"
	for _, base := range []Base{larger, other} {
		reason := "its content"
		if base == larger {
			reason = "41060 bytes, this one 41061"
		}
		d, err := OpenOrMake(path, base)
		if err != nil {
			t.Fatal(err)
		}
		_, err = d.Disk(baseDisk{base.Size}, base, nil)
		if !errors.Is(err, ErrBaseMismatch) || !strings.Contains(err.Error(), testBase.Source) || !strings.Contains(err.Error(), reason) {
			t.Errorf("opened for another base: %v", err)
		}
		if _, err = d.View(baseDisk{base.Size}, base); !errors.Is(err, ErrBaseMismatch) {
			t.Errorf("viewed over another base: %v", err)
		}
		d.Close()
	}
	// Another place of the same image is no other base.
	moved := testBase
	moved.Source = "/home/user/KNOPPIX"
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	disk, err := d.View(baseDisk{moved.Size}, moved)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disk.WriteAtContext(t.Context(), []byte("x"), 0); err == nil {
		t.Error("a view was written to")
	}
	if err := disk.Close(); err != nil {
		t.Fatal(err)
	}
	if info, err := Look(path); err != nil || !info.Clean || info.InUse {
		t.Errorf("a view has changed the overlay's state: %+v, %v", info, err)
	}
	// What lies below has to be what it is said to be.
	if d, err = Open(path); err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if _, err := d.View(baseDisk{testBase.Size - 1}, testBase); err == nil {
		t.Error("a smaller disk below is no error")
	}
}

// Each of these directories is refused, and left as it is.
func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		spoil func(path string) error
		want  error
		text  string
	}{
		"other files": {func(path string) error {
			return errors.Join(os.RemoveAll(path), os.Mkdir(path, 0o700), os.WriteFile(filepath.Join(path, "letter"), nil, 0o600), os.WriteFile(filepath.Join(path, "music"), nil, 0o600))
		}, errNotOverlay, "letter"},
		"meta is lost":       {func(path string) error { return os.Remove(filepath.Join(path, metaName)) }, errNotOverlay, "no meta"},
		"writable by others": {func(path string) error { return os.Chmod(path, 0o770) }, ErrUnsafe, "0770"},
		"data is a link": {func(path string) error {
			return errors.Join(os.Rename(filepath.Join(path, dataName), path+".data"), os.Symlink(path+".data", filepath.Join(path, dataName)))
		}, nil, "links are not followed"},
		"meta is a pipe": {func(path string) error {
			return errors.Join(os.Remove(filepath.Join(path, metaName)), unix.Mkfifo(filepath.Join(path, metaName), 0o600))
		}, nil, "not a file"},
		"data has another name": {func(path string) error {
			return os.Link(filepath.Join(path, dataName), path+".data")
		}, ErrUnsafe, "another name"},
		"map is writable by others": {func(path string) error {
			return os.Chmod(filepath.Join(path, mapName), 0o666)
		}, ErrUnsafe, "0666"},
		"data is cut off":  {func(path string) error { return os.Truncate(filepath.Join(path, dataName), 5*clusterSize) }, ErrDamaged, "data"},
		"data is missing":  {func(path string) error { return os.Remove(filepath.Join(path, dataName)) }, ErrDamaged, "data"},
		"map is too large": {func(path string) error { return os.Truncate(filepath.Join(path, mapName), 2*pageSize) }, ErrDamaged, "map"},
		"map has other bits": {func(path string) error {
			return os.WriteFile(filepath.Join(path, mapName), append([]byte{0, 8}, make([]byte, pageSize-2)...), 0o600)
		}, ErrDamaged, "behind the end"},
		"meta is empty":     {func(path string) error { return os.Truncate(filepath.Join(path, metaName), 0) }, ErrDamaged, "meta"},
		"meta is something": {func(path string) error { return os.WriteFile(filepath.Join(path, metaName), []byte("[1]"), 0o600) }, ErrDamaged, "meta"},
		"meta has another type": {func(path string) error {
			return os.WriteFile(filepath.Join(path, metaName), []byte(`{"version": 1, "base": {"identity": 5, "size": 41060}}`), 0o600)
		}, ErrDamaged, "meta"},
		"size 0": {func(path string) error {
			return os.WriteFile(filepath.Join(path, metaName), []byte(`{"version":1}`), 0o600)
		}, ErrDamaged, "0 bytes"},
		"another version": {func(path string) error {
			return os.WriteFile(filepath.Join(path, metaName), []byte(`{"version":2}`), 0o600)
		}, errVersion, "2"},
		"a file": {func(path string) error {
			return errors.Join(os.RemoveAll(path), os.WriteFile(path, nil, 0o600))
		}, unix.ENOTDIR, ""},
	} {
		t.Run(name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "overlay")
			written(t, path)
			if err := c.spoil(path); err != nil {
				t.Fatal(err)
			}
			before, _ := os.ReadDir(path)
			open := func() error {
				d, err := OpenOrMake(path, testBase)
				if err != nil {
					return err
				}
				defer d.Close()
				_, err = d.Disk(baseDisk{testBase.Size}, testBase, nil)
				return err
			}
			look := func() error {
				_, err := Look(path)
				return err
			}
			for what, refuse := range map[string]func() error{"open": open, "look": look} {
				fdtest.NoLeak(t, func() {
					err := refuse()
					if err == nil || c.want != nil && !errors.Is(err, c.want) || !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), path) {
						t.Errorf("%s: the error is %v, want %v and %q", what, err, c.want, c.text)
					}
				})
			}
			if after, _ := os.ReadDir(path); len(after) != len(before) {
				t.Errorf("there were %v, there are %v", before, after)
			}
		})
	}
}

// Who only looks for an overlay makes none.
func TestNotOverlay(t *testing.T) {
	empty, missing := t.TempDir(), filepath.Join(t.TempDir(), "missing")
	for path, want := range map[string]error{empty: errNotOverlay, missing: fs.ErrNotExist} {
		if _, err := Open(path); !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("Open: %v, want %v", err, want)
		}
		if _, err := Look(path); !errors.Is(err, want) || !strings.Contains(err.Error(), path) {
			t.Errorf("Look: %v, want %v", err, want)
		}
	}
	if _, err := OpenOrMake(filepath.Join(missing, "overlay"), testBase); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("made in a directory that is not there: %v", err)
	}
	if names, err := os.ReadDir(empty); err != nil || len(names) > 0 {
		t.Errorf("looking has left %v, %v", names, err)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("looking has made a directory")
	}
}

// Making and throwing away may be broken off at any time: what is left is an overlay,
// or can become a new one, with nothing of the old.
func TestBrokenOff(t *testing.T) {
	whole := filepath.Join(t.TempDir(), "overlay")
	written(t, whole)
	for _, left := range [][]string{
		{},
		{stateName},
		{stateName, newName},
		{stateName, newName, mapName},
		{stateName, newName, mapName, dataName},
		{stateName, goneName, mapName, dataName},
		{stateName, goneName, mapName},
		{stateName, goneName},
		{goneName},
		{stateName, goneName, newName, mapName, dataName},
		{"lost+found"},
	} {
		t.Run(strings.Join(left, " "), func(t *testing.T) {
			path := t.TempDir()
			for _, name := range left {
				from := name
				if name == newName || name == goneName {
					from = metaName
				}
				text, err := os.ReadFile(filepath.Join(whole, from))
				if name == "lost+found" {
					text, err = nil, nil
				}
				if err := errors.Join(err, os.WriteFile(filepath.Join(path, name), text, 0o600)); err != nil {
					t.Fatal(err)
				}
			}
			if _, err := Open(path); !errors.Is(err, errNotOverlay) {
				t.Errorf("Open: %v", err)
			}
			disk := opened(t, path)
			if disk.Changed() != 0 {
				t.Error("something of the old overlay is there")
			}
			if err := disk.Close(); err != nil {
				t.Error(err)
			}
			for _, name := range []string{newName, goneName} {
				if _, err := os.Stat(filepath.Join(path, name)); err == nil {
					t.Errorf("%s is left", name)
				}
			}
		})
	}
}

// The lock's file is the last that goes: as soon as it is gone another process may be
// making an overlay, and what it has made must stay.
func TestLockGoesLast(t *testing.T) {
	for name, throwAway := range map[string]func(path string, hold func()) error{
		"made in part": func(path string, hold func()) error {
			_, err := open(path, unix.O_RDWR|unix.O_CREAT, func(d *Dir) error {
				if err := d.makeFiles(testBase); err != nil {
					return err
				}
				hold()
				return d.clear(newName)
			})
			return err
		},
		"discarded": func(path string, hold func()) error {
			written(t, path)
			d, err := Open(path)
			if err != nil {
				return err
			}
			hold()
			return d.Discard()
		},
	} {
		path := t.TempDir()
		state := filepath.Join(path, stateName)
		err := throwAway(path, func() { // what can't be removed is where it stops
			if err := errors.Join(os.Remove(state), os.Mkdir(state, 0o700)); err != nil {
				t.Fatal(err)
			}
		})
		left, dirErr := os.ReadDir(path)
		if !errors.Is(err, unix.EISDIR) || dirErr != nil || len(left) != 1 || left[0].Name() != stateName {
			t.Errorf("%s: %v, and the lock's file went before the last of %v (%v)", name, err, left, dirErr)
		}
		if err := os.Remove(state); err != nil {
			t.Fatal(err)
		}
		written(t, path)
	}
}

// What is discarded is gone, also from an open Disk, and the directory can be used anew.
func TestDiscard(t *testing.T) {
	path := filepath.Join(t.TempDir(), "overlay")
	for name, open := range map[string]func() interface{ Discard() error }{
		"a Dir": func() interface{ Discard() error } {
			d, err := Open(path)
			if err != nil {
				t.Fatal(err)
			}
			return d
		},
		"a Disk": func() interface{ Discard() error } { return opened(t, path) },
	} {
		written(t, path)
		fdtest.NoLeak(t, func() {
			if err := open().Discard(); err != nil {
				t.Fatal(err)
			}
		})
		if names, err := os.ReadDir(path); err != nil || len(names) > 0 {
			t.Errorf("%s: it has left %v, %v", name, names, err)
		}
		disk := opened(t, path)
		if disk.Changed() != 0 {
			t.Errorf("%s: what was written is there again", name)
		}
		if err := disk.Close(); err != nil {
			t.Error(err)
		}
	}
}

// The lock's file alone is nothing to lose an overlay for.
func TestStateLost(t *testing.T) {
	path := filepath.Join(t.TempDir(), "overlay")
	written(t, path)
	lose := func() {
		t.Helper()
		if err := os.Remove(filepath.Join(path, stateName)); err != nil {
			t.Fatal(err)
		}
	}
	lose()
	if info, err := Look(path); err != nil || info.Clean || info.InUse || info.Changed != clusterSize {
		t.Errorf("Look: %+v, %v", info, err)
	}
	disk := opened(t, path)
	if disk.Changed() != clusterSize {
		t.Error("what was written is gone")
	}
	if err := disk.Close(); err != nil {
		t.Error(err)
	}
	lose()
	d, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := d.Discard(); err != nil {
		t.Error(err)
	}
}

// A disk whose map would take more than 2 GiB is refused, before anything is made.
func TestTooLarge(t *testing.T) {
	path := filepath.Join(t.TempDir(), "overlay")
	base := testBase
	base.Size = maxDisk + 1
	if _, err := OpenOrMake(path, base); !errors.Is(err, errTooLarge) {
		t.Errorf("a disk of %d bytes: %v", base.Size, err)
	}
	if _, err := os.Stat(path); err == nil {
		t.Error("the directory is left")
	}
	fdtest.NoLeak(t, func() {
		if _, err := Ephemeral(t.TempDir(), baseDisk{base.Size}); !errors.Is(err, errTooLarge) {
			t.Errorf("ephemeral, a disk of %d bytes: %v", base.Size, err)
		}
	})
	disk, err := Ephemeral(t.TempDir(), baseDisk{maxDisk})
	if errors.Is(err, errTooLarge) { // another error is the file system's
		t.Error(err)
	}
	if err == nil {
		disk.Close()
	}
}

// What a write that failed has left is flushed, too: it can be read.
func TestFailedWriteIsFlushed(t *testing.T) {
	data, bits := newMemFile(crashSize), newMemFile(mapSize(crashSize))
	half := &halfWriter{memFile: data}
	disk, err := reopened(half, bits)
	if err != nil {
		t.Fatal(err)
	}
	p := bytes.Repeat([]byte{200}, 2*clusterSize)
	if _, err := disk.WriteAtContext(t.Context(), p, 0); err != nil {
		t.Fatal(err)
	}
	if err := disk.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	half.fail = true
	if _, err := disk.WriteAtContext(t.Context(), bytes.Repeat([]byte{100}, 2*clusterSize), 0); !errors.Is(err, unix.ENOSPC) {
		t.Fatalf("the write: %v", err)
	}
	if err := disk.Flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	now, err := cluster(disk, 0)
	if err != nil {
		t.Fatal(err)
	}
	after, err := reopened(data.durable(), bits.durable())
	if err != nil {
		t.Fatal(err)
	}
	if is, err := cluster(after, 0); err != nil || !bytes.Equal(is, now) {
		t.Errorf("after a crash it is %d, it was %d, %v", is[0], now[0], err)
	}
}

// halfWriter writes the first half of what it is given, if fail is set.
type halfWriter struct {
	*memFile
	fail bool
}

func (f *halfWriter) WriteAt(p []byte, off int64) (int, error) {
	if !f.fail {
		return f.memFile.WriteAt(p, off)
	}
	n, _ := f.memFile.WriteAt(p[:len(p)/2], off)
	return n, unix.ENOSPC
}

// What is written for a session is there, all over the disk, and leaves nothing behind.
func TestEphemeral(t *testing.T) {
	dir := t.TempDir()
	disk, err := Ephemeral(dir, baseDisk{testBase.Size})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := disk.WriteAtContext(t.Context(), []byte("hello"), 5); err != nil {
		t.Fatal(err)
	}
	if is, err := cluster(disk, 0); err != nil || string(is[5:10]) != "hello" || is[0] != 1 {
		t.Errorf("it reads %q, %v", is[:10], err)
	}
	last := clusterEnd(testBase.Size) - 1
	if err := disk.ZeroContext(t.Context(), blockio.Extent{Off: last * clusterSize, Len: testBase.Size - last*clusterSize}); err != nil {
		t.Error(err)
	}
	if is, err := cluster(disk, last); err != nil || !bytes.Equal(is, make([]byte, testBase.Size-last*clusterSize)) {
		t.Errorf("the last cluster reads %q, %v", is, err)
	}
	if err := disk.Flush(t.Context()); err != nil {
		t.Error(err)
	}
	if names, err := os.ReadDir(dir); err != nil || len(names) > 0 {
		t.Errorf("there is %v, %v", names, err)
	}
	if err := disk.Close(); err != nil {
		t.Error(err)
	}
	if _, err := Ephemeral(filepath.Join(dir, "missing"), baseDisk{testBase.Size}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("in a directory that is not there: %v", err)
	}
}

// A disk that can't be flushed never says later that it was.
func TestFailedFlush(t *testing.T) {
	ctx := context.Background()
	data, bits := newMemFile(crashSize), newMemFile(mapSize(crashSize))
	disk, err := reopened(data, bits)
	if err != nil {
		t.Fatal(err)
	}
	write := func(k int64) {
		t.Helper()
		if _, err := disk.WriteAtContext(ctx, bytes.Repeat([]byte{200}, clusterSize), k*clusterSize); err != nil {
			t.Fatal(err)
		}
	}
	write(0)
	if err := disk.Flush(ctx); err != nil {
		t.Fatal(err)
	}
	// The map can be written again: it is in memory.
	write(1)
	bits.onSync = func() error { return unix.ENOSPC }
	if err := disk.Flush(ctx); !errors.Is(err, unix.ENOSPC) || !strings.Contains(err.Error(), "map") {
		t.Errorf("Flush: %v", err)
	}
	bits.onSync = nil
	if err := disk.Flush(ctx); err != nil {
		t.Errorf("Flush: %v", err)
	}
	write(2)
	data.onSync = func() error { return unix.EIO }
	if err := disk.Flush(ctx); !errors.Is(err, unix.EIO) {
		t.Errorf("Flush: %v", err)
	}
	data.onSync = nil
	write(3)
	for range 2 {
		if err := disk.Flush(ctx); !errors.Is(err, unix.EIO) {
			t.Errorf("Flush after one that failed: %v", err)
		}
	}
	after, err := reopened(data, bits)
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range []bool{true, true, false, false} {
		if got := after.here.has(int64(k)); got != want {
			t.Errorf("cluster %d is in the map: %v, want %v", k, got, want)
		}
	}
	if err := disk.Close(); !errors.Is(err, unix.EIO) {
		t.Errorf("Close: %v", err)
	}
}

// What was written is flushed by itself, and once more if that failed.
func TestFlushedByItself(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		data, bits := newMemFile(crashSize), newMemFile(mapSize(crashSize))
		disk, err := reopened(data, bits)
		if err != nil {
			t.Fatal(err)
		}
		disk.timer = time.AfterFunc(time.Hour, disk.flushNow)
		flushed := func(k int64) bool {
			after, err := reopened(data.durable(), bits.durable())
			if err != nil {
				t.Fatal(err)
			}
			return after.here.has(k)
		}
		var failed atomic.Bool
		bits.onSync = func() error {
			if failed.Swap(true) {
				return nil
			}
			return unix.ENOSPC
		}
		for k := range int64(3) {
			if _, err := disk.WriteAtContext(t.Context(), []byte("x"), k*clusterSize); err != nil {
				t.Fatal(err)
			}
			time.Sleep(flushTime - time.Millisecond)
			synctest.Wait()
			if flushed(k) {
				t.Errorf("cluster %d was flushed early", k)
			}
			time.Sleep(3 * flushTime)
			synctest.Wait()
			if !flushed(k) {
				t.Errorf("cluster %d was not flushed", k)
			}
		}
		// Whoever writes on and on does not put it off.
		for range 3 * flushTime / time.Second {
			if _, err := disk.WriteAtContext(t.Context(), []byte("x"), 4*clusterSize); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if !flushed(4) {
			t.Error("with writes all the time nothing was flushed")
		}
		if err := disk.Close(); err != nil {
			t.Error(err)
		}
	})
}
