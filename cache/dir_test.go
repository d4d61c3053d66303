package cache

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
)

// roomy are bounds that no test meets.
var roomy = Options{Size: 1 << 40}

func openDir(t *testing.T, path string, opt Options) *Dir {
	t.Helper()
	d, err := OpenDir(path, opt)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { d.Close() })
	return d
}

func newDir(t *testing.T, opt Options) *Dir {
	t.Helper()
	return openDir(t, filepath.Join(t.TempDir(), "cache"), opt)
}

// image is the identity of an image of size bytes.
func image(name string, size int64) Identity {
	return Identity{Key: "http://example.org/" + name, Validator: `"1"`, Size: size}
}

// someTime is when the images of these tests were changed.
var someTime = time.Date(2020, 2, 3, 4, 5, 6, 0, time.UTC)

// openEntry opens an entry. It is closed at the test's end, or earlier.
func openEntry(t *testing.T, d *Dir, id Identity) *Entry {
	t.Helper()
	e, err := d.Open(id, id.Key, someTime)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(e.Close)
	return e
}

// random is n bytes that no file system can do without.
func random(n int64) []byte {
	p := make([]byte, n)
	rand.NewChaCha8([32]byte{byte(n)}).Read(p)
	return p
}

// fill stores p as the image's bytes, a piece at a time.
func fill(e *Entry, p []byte) {
	for off := int64(0); off < int64(len(p)); off += 16 * chunkSize {
		e.writeChunks(p[off:min(off+16*chunkSize, int64(len(p)))], off)
	}
}

// holds says how many bytes of chunks of want are there. Others are an error.
func holds(t *testing.T, d *files, want []byte) (n int64) {
	t.Helper()
	p := make([]byte, chunkSize)
	for off := int64(0); off < int64(len(want)); off += chunkSize {
		p := p[:min(chunkSize, int64(len(want))-off)]
		if !d.readCovered(p, off) {
			continue
		}
		if !bytes.Equal(p, want[off:off+int64(len(p))]) {
			t.Fatalf("the chunk at %d holds other bytes", off)
		}
		n += int64(len(p))
	}
	return n
}

// exists says whether something is at path.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}

// entries is the names of what is in a cache directory, but for its own files.
func entries(t *testing.T, path string) (names []string) {
	t.Helper()
	list, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		if f.IsDir() {
			names = append(names, f.Name())
		}
	}
	return names
}

// log collects the lines of a logger.
type log struct {
	mu    sync.Mutex
	lines []string
}

func (l *log) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.lines = append(l.lines, string(p))
	return len(p), nil
}

func (l *log) logger() *slog.Logger {
	return slog.New(slog.NewTextHandler(l, &slog.HandlerOptions{Level: slog.LevelWarn}))
}

// count is how many lines there are.
func (l *log) count() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return len(l.lines)
}

// without calls f without root's right to read and write everything.
func without(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 {
		f()
		return
	}
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	const nobody = 65534
	if err := unix.Setfsuid(nobody); err != nil { // of this thread alone
		t.Fatal(err)
	}
	defer func() { _ = unix.Setfsuid(0) }()
	f()
}

// Nobody else may read what is kept, whatever the umask.
func TestModes(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	d := openDir(t, filepath.Join(t.TempDir(), "some", "where", "cache"), roomy)
	e := openEntry(t, d, image("a", 100_000))
	b, err := e.Blocks([]blockio.Extent{{Len: 100_000}}, false)
	if err != nil {
		t.Fatal(err)
	}
	b.Put(0, blockio.Extent{Len: 100}, random(100))
	if err := e.Saw(image("b", 100_000)); err != nil {
		t.Fatal(err)
	}
	parent := filepath.Dir(filepath.Dir(d.Path()))
	files := 0
	err = filepath.WalkDir(parent, func(path string, f fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		info, err := f.Info()
		if err != nil {
			return err
		}
		want := fs.FileMode(0o600)
		if f.IsDir() {
			want = 0o700
		} else {
			files++
		}
		if got := info.Mode().Perm(); got != want {
			t.Errorf("mode of %s is %04o, want %04o", path, got, want)
		}
		return nil
	})
	if err != nil || files < 6 {
		t.Errorf("%d files, %v; want those of an entry", files, err)
	}
}

func TestUnsafeDirectory(t *testing.T) {
	for _, c := range []struct {
		mode fs.FileMode
		want error
	}{
		{0o755, nil},
		{0o770, errUnsafe},
	} {
		t.Run(c.mode.String(), func(t *testing.T) {
			spoil := func(path string) {
				t.Helper()
				if err := os.Chmod(path, c.mode); err != nil {
					t.Fatal(err)
				}
			}
			path := t.TempDir()
			spoil(path)
			d, err := OpenDir(path, roomy)
			if !errors.Is(err, c.want) {
				t.Errorf("OpenDir: %v, want %v", err, c.want)
			}
			if err == nil {
				d.Close()
			}
			// The same for an entry.
			d = newDir(t, roomy)
			id := image("a", 10_000)
			e := openEntry(t, d, id)
			entry := filepath.Dir(e.Path())
			e.Close()
			if err := openEntry(t, d, image("b", 10_000)).Saw(id); err != nil { // in whose place this is not taken
				t.Fatal(err)
			}
			spoil(entry)
			e, err = d.Open(id, "", someTime)
			if !errors.Is(err, c.want) {
				t.Errorf("Open: %v, want %v", err, c.want)
			}
			if err == nil {
				e.Close()
			}
			if !exists(filepath.Join(entry, metaName)) {
				t.Error("the entry is gone")
			}
		})
	}
}

// What is not a directory or a file of ours is never followed to where it leads.
func TestLinksAreNotFollowed(t *testing.T) {
	id := image("a", 100_000)
	p := random(id.Size)
	// elsewhere makes an entry in another cache directory, and replaces path, of
	// this one, by a link to the same place there.
	replace := func(t *testing.T, path, target string) {
		t.Helper()
		if err := errors.Join(os.RemoveAll(path), os.Symlink(target, path)); err != nil {
			t.Fatal(err)
		}
	}
	make := func(t *testing.T) (d *Dir, entry string) {
		t.Helper()
		d = newDir(t, roomy)
		e := openEntry(t, d, id)
		fill(e, p)
		e.Close()
		return d, filepath.Dir(e.Path())
	}
	t.Run("directory", func(t *testing.T) {
		target, _ := make(t)
		path := filepath.Join(t.TempDir(), "link")
		replace(t, path, target.Path())
		if d, err := OpenDir(path, roomy); err == nil {
			d.Close()
			t.Error("no error")
		}
	})
	t.Run("entry", func(t *testing.T) {
		_, target := make(t)
		d, entry := make(t)
		replace(t, entry, target)
		if e, err := d.Open(id, "", someTime); err == nil {
			e.Close()
			t.Error("no error")
		}
		if _, err := d.evict(1<<40, true); err != nil {
			t.Error(err)
		}
		if list, others, err := d.List(); err != nil || len(list) != 0 || others != 0 {
			t.Errorf("List: %v, %d others, %v; want nothing", list, others, err)
		}
		if err := d.Remove(filepath.Base(entry)); err == nil {
			t.Error("Remove: no error")
		}
		if !exists(filepath.Join(target, dataName)) {
			t.Error("what the link leads to was changed")
		}
	})
	for _, name := range []string{dataName, chunksName, usedName, inUseName, metaName, metaName + ".new", blocksName + "0"} {
		t.Run(name, func(t *testing.T) {
			d, entry := make(t)
			target := filepath.Join(t.TempDir(), "target")
			content := []byte(strings.Repeat("not ours", 20_000))
			if err := os.WriteFile(target, content, 0o600); err != nil {
				t.Fatal(err)
			}
			replace(t, filepath.Join(entry, name), target)
			for range 2 {
				e, err := d.Open(id, "", someTime)
				if err != nil {
					continue
				}
				if n := holds(t, e.files, p); n != 0 && n != id.Size {
					t.Errorf("%d bytes are there, want all or none", n)
				}
				if b, err := e.Blocks([]blockio.Extent{{Len: id.Size}}, false); err == nil {
					b.Put(0, blockio.Extent{Len: 1000}, p[:1000])
				}
				fill(e, p)
				_ = e.Saw(image("b", id.Size))
				e.Close()
			}
			if _, err := d.evict(1<<40, true); err != nil {
				t.Error(err)
			}
			if got, err := os.ReadFile(target); err != nil || !bytes.Equal(got, content) {
				t.Error("what the link leads to was changed")
			}
		})
	}
}

// Whoever may read an entry, and not write, reads it.
func TestReadOnlyEntry(t *testing.T) {
	d := newDir(t, roomy)
	id := image("a", 100_000)
	p := random(id.Size)
	e := openEntry(t, d, id)
	fill(e, p[:50_000/chunkSize*chunkSize])
	entry := filepath.Dir(e.Path())
	e.Close()
	for _, name := range []string{dataName, chunksName, usedName, inUseName, metaName} {
		if err := os.Chmod(filepath.Join(entry, name), 0o444); err != nil {
			t.Fatal(err)
		}
	}
	parent := filepath.Dir(d.Path())
	t.Cleanup(func() {
		_ = errors.Join(os.Chmod(entry, 0o700), os.Chmod(d.Path(), 0o700)) // for the directory's removal
	})
	if err := errors.Join(os.Chmod(entry, 0o555), os.Chmod(d.Path(), 0o555),
		os.Chmod(parent, 0o755), os.Chmod(filepath.Dir(parent), 0o755)); err != nil {
		t.Fatal(err)
	}
	var warnings log
	without(t, func() {
		d := openDir(t, d.Path(), Options{Size: 1 << 40, Logger: warnings.logger()})
		e := openEntry(t, d, id)
		defer e.Close()
		if n := holds(t, e.files, p); n != 50_000/chunkSize*chunkSize || !locked(e.f, inUseName) {
			t.Errorf("%d bytes are there, in use %v; want those stored, and that it is", n, locked(e.f, inUseName))
		}
		fill(e, p)
		b, err := e.Blocks([]blockio.Extent{{Len: id.Size}}, false)
		if err != nil {
			t.Fatal(err)
		}
		at := blockio.Extent{Off: 10, Len: 10_000}
		got := make([]byte, at.Len)
		if !b.Have(1, at) || !b.Get(1, at, got) || !bytes.Equal(got, p[at.Off:at.End()]) {
			t.Error("a block that is there as bytes can't be read")
		}
		at.Off = 70_000
		b.Put(2, at, p[at.Off:at.End()])
		b.Forget(1, at)
		if release, ok := b.Claim(at, blockio.Demand); !ok {
			t.Error("can't be claimed")
		} else {
			release()
		}
		if n := holds(t, e.files, p); n != 50_000/chunkSize*chunkSize {
			t.Errorf("%d bytes are there after writes to what can't be written", n)
		}
		if s := e.Stats(); s.Stored != 0 || warnings.count() != 0 {
			t.Errorf("%d bytes stored, warnings %q", s.Stored, warnings.lines)
		}
	})
}

// edit replaces the meta file of an entry.
func edit(t *testing.T, entry string, text []byte) {
	t.Helper()
	if err := os.WriteFile(filepath.Join(entry, metaName), text, 0o600); err != nil {
		t.Fatal(err)
	}
}

// An entry of another version is somebody's: it is left alone.
func TestOtherVersion(t *testing.T) {
	for name, text := range map[string]string{
		"same fields":  `{"version": 2, "size": 100000, "seen": [{"key": "k", "validator": "v"}]}`,
		"none of them": `{"version": 7}`,
		"other types":  `{"size": {"data": 1}, "seen": "everywhere", "version": 2, "kept": 17}`,
	} {
		t.Run(name, func(t *testing.T) {
			d := newDir(t, roomy)
			id := image("a", 100_000)
			e := openEntry(t, d, id)
			fill(e, random(id.Size))
			entry := filepath.Dir(e.Path())
			e.Close()
			edit(t, entry, []byte(text))
			if e, err := d.Open(id, "", someTime); !errors.Is(err, errVersion) {
				if err == nil {
					e.Close()
				}
				t.Errorf("Open: %v, want errVersion", err)
			}
			if _, err := d.Find(id.Key, ""); !errors.Is(err, ErrNotCached) {
				t.Errorf("Find: %v, want ErrNotCached", err)
			}
			if n, err := d.evict(1<<40, true); n != 0 || err != nil {
				t.Errorf("evict: %d bytes, %v", n, err)
			}
			if list, others, err := d.List(); len(list) != 0 || others != 1 || err != nil {
				t.Errorf("List: %v, %d others, %v; want 1 other", list, others, err)
			}
			if err := d.Remove(filepath.Base(entry)); !errors.Is(err, errVersion) {
				t.Errorf("Remove: %v, want errVersion", err)
			}
			if got, err := os.ReadFile(filepath.Join(entry, metaName)); err != nil || string(got) != text {
				t.Errorf("meta is %q, %v", got, err)
			}
			// Others find their place beside it.
			other := openEntry(t, d, image("b", 100_000))
			fill(other, random(id.Size))
			if n := holds(t, other.files, random(id.Size)); n != id.Size {
				t.Errorf("%d bytes of another image are there, want all", n)
			}
			// Not even one that was seen there takes its place.
			if err := other.Saw(id); err != nil {
				t.Fatal(err)
			}
			if e, err := d.Open(id, "", someTime); !errors.Is(err, errVersion) {
				if err == nil {
					e.Close()
				}
				t.Errorf("Open, with another that was seen there: %v, want errVersion", err)
			}
		})
	}
}

// Another file is another entry, and the old one stays.
func TestIdentity(t *testing.T) {
	d := newDir(t, roomy)
	id := image("a", 100_000)
	p := random(id.Size)
	first := openEntry(t, d, id)
	fill(first, p)
	for name, other := range map[string]Identity{
		"validator": {Key: id.Key, Validator: `"2"`, Size: id.Size},
		"size":      {Key: id.Key, Validator: id.Validator, Size: id.Size - 1},
		"key":       {Key: id.Key + "x", Validator: id.Validator, Size: id.Size},
		"moved":     {Key: id.Key + id.Validator, Size: id.Size},
	} {
		e := openEntry(t, d, other)
		if e.Path() == first.Path() {
			t.Errorf("another %s: the same entry", name)
		}
		if n := holds(t, e.files, p[:other.Size]); n != 0 || e.Size() != other.Size {
			t.Errorf("another %s: %d bytes are there, size is %d", name, n, e.Size())
		}
	}
	again := openEntry(t, d, id)
	if n := holds(t, again.files, p); again.Path() != first.Path() || n != id.Size {
		t.Errorf("opened again: %d bytes are there, want all", n)
	}
	if list, _, err := d.List(); err != nil || len(list) != 5 {
		t.Errorf("%d entries, %v; want 5", len(list), err)
	}
}

// An image that was seen at another place is found there.
func TestSaw(t *testing.T) {
	d := newDir(t, roomy)
	id, mirror := image("a", 100_000), image("mirror", 100_000)
	first := openEntry(t, d, id)
	if err := first.Saw(mirror); err != nil {
		t.Fatal(err)
	}
	if e := openEntry(t, d, mirror); e.Path() != first.Path() {
		t.Error("the mirror has an entry of its own")
	}
	if e, err := d.Find(mirror.Key, ""); err != nil || e.Path() != first.Path() {
		t.Errorf("Find: %v", err)
	} else {
		e.Close()
	}
	changed := mirror
	changed.Validator = `"2"`
	if e := openEntry(t, d, changed); e.Path() == first.Path() {
		t.Error("what is at the mirror has changed, and is the same entry")
	}
	// Where several were seen to be it, it is the one that was made for it.
	other := openEntry(t, d, image("b", 100_000))
	if err := errors.Join(first.Saw(image("b", 100_000)), other.Saw(id)); err != nil {
		t.Fatal(err)
	}
	for _, e := range []*Entry{first, other} {
		seen := Identity{Key: e.key, Validator: id.Validator, Size: id.Size}
		if again := openEntry(t, d, seen); again.Path() != e.Path() {
			t.Errorf("%s: another entry, which was seen there, too", e.key)
		}
	}
}

// What an entry says of its image is what was said when it was made or completed.
func TestEntry(t *testing.T) {
	d := newDir(t, roomy)
	id := image("a", 1000)
	e := openEntry(t, d, id)
	if e.Complete() || e.Removed() || e.Validator() != id.Validator {
		t.Errorf("complete %v, removed %v, validator %s", e.Complete(), e.Removed(), e.Validator())
	}
	if info, err := os.Stat(e.Path()); err != nil {
		t.Error(err)
	} else if info.Size() != id.Size {
		t.Errorf("the file has %d bytes, the image %d", info.Size(), id.Size)
	}
	if err := e.Completed(true, true); err != nil {
		t.Fatal(err)
	}
	if err := d.Unkeep(e.name); err != nil {
		t.Fatal(err)
	}
	again := openEntry(t, d, id)
	if !again.Complete() || again.meta.Kept {
		t.Errorf("complete %v, kept %v; want that it is complete alone", again.Complete(), again.meta.Kept)
	}
	if err := d.Unkeep("missing"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("Unkeep of nothing: %v", err)
	}
	if err := d.Remove(e.name); err != nil {
		t.Fatal(err)
	}
	if !e.Removed() || !again.Removed() {
		t.Error("it is not said that the entry was removed")
	}
}

// The time of the file's change is the first that was said.
func TestModTimeStays(t *testing.T) {
	d := newDir(t, roomy)
	id := image("a", 1000)
	for i := range 3 {
		e, err := d.Open(id, "", someTime.Add(time.Duration(i)*time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		if got := e.ModTime(); !got.Equal(someTime) {
			t.Errorf("opened %d times: changed at %v, want %v", i+1, got, someTime)
		}
		e.Close()
	}
}

// Find returns what a server has confirmed last.
func TestFind(t *testing.T) {
	d := newDir(t, roomy)
	id := image("a", 1000)
	if _, err := d.Find(id.Key, ""); !errors.Is(err, ErrNotCached) {
		t.Errorf("Find in an empty cache: %v, want ErrNotCached", err)
	}
	want := ""
	for _, i := range []int{1, 3, 2, 0} {
		id.Validator = fmt.Sprint(i)
		e := openEntry(t, d, id)
		at := someTime.Add(time.Duration(i) * time.Minute)
		if err := os.Chtimes(filepath.Join(filepath.Dir(e.Path()), inUseName), at, at); err != nil {
			t.Fatal(err)
		}
		if i == 3 {
			want = e.Path()
		}
	}
	e, err := d.Find(id.Key, "")
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	if e.Path() != want {
		t.Error("Find returns another than the one confirmed last")
	}
}

// Images whose URLs have only other queries are told apart by these, as long as
// they are known. A query that is not known is no reason to take another image.
func TestFindByAddress(t *testing.T) {
	d := newDir(t, roomy)
	open := func(validator, address string) string {
		t.Helper()
		id := image("dl", 1000)
		id.Validator, id.Address = validator, address
		e := openEntry(t, d, id)
		e.Confirm()
		return e.Path()
	}
	find := func(address, want string, wantErr error) {
		t.Helper()
		e, err := d.Find("http://example.org/dl", address)
		if !errors.Is(err, wantErr) {
			t.Fatalf("Find at %q: %v, want %v", address, err, wantErr)
		}
		if err != nil {
			return
		}
		defer e.Close()
		if e.Path() != want {
			t.Errorf("Find at %q returns another image", address)
		}
	}
	a := open("1", "?f=a")
	find("?f=a", a, nil)
	find("?signed=2", a, nil)
	b := open("2", "?f=b")
	find("?f=a", a, nil)
	find("?f=b", b, nil)
	find("", b, nil)
	find("?f=c", "", ErrAmbiguous)
	// A new version is found in place of the old one.
	newer := open("3", "?f=a")
	find("?f=a", newer, nil)
	find("?f=b", b, nil)
	// A file may have several addresses.
	if again := open("2", "?f=b&also"); again != b {
		t.Error("another address is another entry")
	}
	find("?f=b&also", b, nil)
	find("?f=b", b, nil)
	// It is known from the start: whoever makes an entry may not come further.
	made := image("dl", 1000)
	made.Validator, made.Address = "4", "?f=d"
	if err := d.create(made, someTime); err != nil {
		t.Fatal(err)
	}
	find("?f=d", filepath.Join(d.Path(), made.name(), dataName), nil)
}

// What is confirmed last is found, also within one tick of the clock, or after that
// was stepped back. Opening alone confirms nothing.
func TestConfirm(t *testing.T) {
	d := newDir(t, roomy)
	var versions []*Entry
	for _, v := range []string{"1", "2", "3"} {
		id := image("a", 1000)
		id.Validator = v
		versions = append(versions, openEntry(t, d, id))
	}
	future := time.Now().Add(time.Hour)
	for _, e := range versions {
		if err := os.Chtimes(filepath.Join(filepath.Dir(e.Path()), inUseName), future, future); err != nil {
			t.Fatal(err)
		}
	}
	for _, i := range []int{0, 1, 2, 1, 0, 2, 2, 0} {
		versions[i].Confirm()
		other := image("a", 1000)
		other.Validator = fmt.Sprint((i+1)%3 + 1)
		openEntry(t, d, other)
		e, err := d.Find("http://example.org/a", "")
		if err != nil {
			t.Fatal(err)
		}
		if e.Path() != versions[i].Path() {
			t.Errorf("Find returns another than version %d", i+1)
		}
		e.Close()
	}
}

// An entry whose meta file is of no use is made anew.
func TestDamagedMeta(t *testing.T) {
	id := image("a", 100_000)
	p := random(id.Size)
	good, err := json.Marshal(meta{Version: formatVersion, Size: id.Size, Seen: []sighting{{id.Key, id.Validator}}})
	if err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string][]byte{
		"empty":        {},
		"zeros":        make([]byte, 300),
		"truncated":    good[:len(good)/2],
		"garbage":      random(300),
		"no image":     []byte(`{"version": 1}`),
		"seen nowhere": []byte(`{"version": 1, "size": 100000}`),
		"size 0":       bytes.Replace(good, []byte("100000"), []byte("0"), 1),
		"another size": bytes.Replace(good, []byte("100000"), []byte("5000"), 1),
		"negative":     bytes.Replace(good, []byte("100000"), []byte("-100000"), 1),
		"another key":  bytes.Replace(good, []byte("example"), []byte("elpmaxe"), 1),
		"a list":       []byte(`[1, 2]`),
		"10 MB":        append(bytes.Repeat([]byte(" "), 10<<20), good...),
		"10 MB of [":   bytes.Repeat([]byte("["), 10<<20),
	} {
		t.Run(name, func(t *testing.T) {
			d := newDir(t, roomy)
			e := openEntry(t, d, id)
			fill(e, p)
			entry := filepath.Dir(e.Path())
			e.Close()
			edit(t, entry, text)
			if e, err := d.Find("k", ""); !errors.Is(err, ErrNotCached) {
				e.Close()
				t.Errorf("Find: %v, want ErrNotCached", err)
			}
			another := strings.HasPrefix(name, "another") // that is of an image
			if list, others, err := d.List(); others != 0 || err != nil || (len(list) == 1) != another {
				t.Errorf("List: %v, %d others, %v; want an entry: %v", list, others, err, another)
			}
			e = openEntry(t, d, id)
			if n := holds(t, e.files, p); n != 0 {
				t.Errorf("%d bytes are there of an entry made anew", n)
			}
			fill(e, p)
			if n := holds(t, e.files, p); n != id.Size {
				t.Errorf("%d bytes are there, want all", n)
			}
			e.Close()
			e = openEntry(t, d, id)
			if n := holds(t, e.files, p); n != id.Size {
				t.Errorf("%d bytes are there after a while, want all", n)
			}
			if got := entries(t, d.Path()); len(got) != 1 {
				t.Errorf("the directory has %v, want one entry", got)
			}
		})
	}
}

// An entry whose meta file is of no use goes as soon as room is needed, or it is
// asked for. What is another's, or in use, stays.
func TestDamagedEntriesGo(t *testing.T) {
	const size = 2 * mib
	spoil := map[string]func(t *testing.T, entry string){
		"garbage": func(t *testing.T, entry string) { edit(t, entry, []byte("?")) },
		"empty":   func(t *testing.T, entry string) { edit(t, entry, nil) },
		"missing": func(t *testing.T, entry string) {
			if err := os.Remove(filepath.Join(entry, metaName)); err != nil {
				t.Fatal(err)
			}
		},
	}
	for name, spoil := range spoil {
		for how, remove := range map[string]func(*Dir) (int64, error){
			"evict": func(d *Dir) (int64, error) { return d.evict(1, false) },
			"asked": (*Dir).RemoveDamaged,
		} {
			t.Run(name+", "+how, func(t *testing.T) {
				d := newDir(t, roomy)
				e, good := openEntry(t, d, image("a", size)), openEntry(t, d, image("b", size))
				fill(e, random(size))
				entry := filepath.Dir(e.Path())
				spoil(t, entry)
				foreign := filepath.Join(d.Path(), "my files")
				if err := os.Mkdir(foreign, 0o700); err != nil {
					t.Fatal(err)
				}
				if _, err := remove(d); err != nil || !exists(e.Path()) {
					t.Fatalf("in use, and gone: %v", err)
				}
				e.Close()
				if d.stays(e.name, nil) {
					t.Error("what nobody can use is reckoned to stay")
				}
				if freed, err := remove(d); err != nil || freed < size {
					t.Errorf("%d bytes freed, %v; want all that it took", freed, err)
				}
				if exists(entry) || !exists(good.Path()) || !exists(foreign) {
					t.Errorf("left: %v", entries(t, d.Path()))
				}
			})
		}
	}
}

// What is found in the way of a new entry may be that, which another process has made, or
// have been made by another version.
func TestEntryInTheWay(t *testing.T) {
	d := newDir(t, roomy)
	id := image("a", 1000)
	entry := filepath.Dir(openEntry(t, d, id).Path())
	e := openEntry(t, d, id)
	if err := d.create(id, someTime); err != nil || e.Removed() {
		t.Errorf("made by another: %v, removed %v; want neither", err, e.Removed())
	}
	const other = `{"version": 2}`
	edit(t, entry, []byte(other))
	if err := d.create(id, someTime); !errors.Is(err, errVersion) {
		t.Errorf("%v, want errVersion", err)
	}
	for what, err := range map[string]error{
		"Saw": e.Saw(image("b", 1000)), "Completed": e.Completed(true, true), "Incomplete": e.Incomplete(), "Unkeep": d.Unkeep(e.name),
	} {
		if !errors.Is(err, errVersion) {
			t.Errorf("%s, by who has opened it before: %v, want errVersion", what, err)
		}
	}
	if got, err := os.ReadFile(filepath.Join(entry, metaName)); string(got) != other {
		t.Errorf("the other version's entry has %q, %v", got, err)
	}
}

// However long what servers and users say, meta can be read again.
func TestMetaIsBounded(t *testing.T) {
	d := newDir(t, roomy)
	long := strings.Repeat("<", 60_000) // each is six bytes of JSON
	id := image("a", 1000)
	id.Validator = `"` + long + `"`
	e := openEntry(t, d, id)
	for i := range 4 { // more than a MiB, but for the bound
		other := image(fmt.Sprint(i, long), 1000)
		other.Validator = id.Validator
		if err := e.Saw(other); err != nil {
			t.Fatal(err)
		}
		if err := e.update(func(m *meta) { m.Sources = add(m.Sources, fmt.Sprint(i, long), maxSources) }); err != nil {
			t.Fatal(err)
		}
	}
	m, err := readMeta(e.f)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range m.Seen {
		if n := len(s.Validator); n > maxValidator {
			t.Errorf("a validator of %d bytes is kept", n)
		}
	}
	if again := openEntry(t, d, id); again.Path() != e.Path() {
		t.Error("a long validator is not found again")
	}
	id.Validator += "x"
	if other := openEntry(t, d, id); other.Path() == e.Path() {
		t.Error("another long validator is the same entry")
	}
}

// However often an image is opened and wherever it is seen, meta stays small, and
// the image is found where it was seen first and last.
func TestListsAreBounded(t *testing.T) {
	d := newDir(t, roomy)
	id := image("a", 1000)
	e := openEntry(t, d, id)
	const many = maxSeen + 10
	for i := range many {
		if err := e.Saw(image(fmt.Sprint(i), 1000)); err != nil {
			t.Fatal(err)
		}
		if err := e.update(func(m *meta) { m.Sources = add(m.Sources, fmt.Sprint(i), maxSources); m.meet(fmt.Sprint(i)) }); err != nil {
			t.Fatal(err)
		}
	}
	m, err := readMeta(e.f)
	if err != nil {
		t.Fatal(err)
	}
	if len(m.Seen) != maxSeen || len(m.Sources) != maxSources || len(m.Addresses) != maxAddresses {
		t.Errorf("%d places, %d sources and %d addresses, want %d, %d and %d", len(m.Seen), len(m.Sources), len(m.Addresses), maxSeen, maxSources, maxAddresses)
	}
	for _, id := range []Identity{id, image(fmt.Sprint(many-1), 1000)} {
		if again := openEntry(t, d, id); again.Path() != e.Path() {
			t.Errorf("%s is another entry", id.Key)
		}
	}
}

// However many open an image for the first time at once, it has one entry.
func TestOpenedAtOnce(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	for round := range 20 {
		id := image(fmt.Sprint(round), 100_000)
		if round%2 == 1 { // what is of no use is in the way
			entry := filepath.Join(path, id.name())
			if err := os.Mkdir(entry, 0o700); err != nil {
				t.Fatal(err)
			}
			edit(t, entry, []byte("?"))
		}
		opened := make([]*Entry, 8)
		var wg sync.WaitGroup
		for i := range opened {
			d := openDir(t, path, roomy)
			wg.Go(func() {
				e, err := d.Open(id, "", someTime)
				if err != nil {
					t.Error(err)
					return
				}
				opened[i] = e
			})
		}
		wg.Wait()
		if t.Failed() {
			return
		}
		p := random(id.Size)
		fill(opened[0], p)
		for _, e := range opened {
			if n := holds(t, e.files, p); n != id.Size {
				t.Errorf("%d bytes are there, want what the first has stored", n)
			}
			e.Close()
		}
		if got := entries(t, path); len(got) != round+1 {
			t.Fatalf("the directory has %d entries, want %d: %v", len(got), round+1, got)
		}
	}
}

// While others open an entry again and again, it is thrown away again and again:
// each finds it, or makes it anew, and nothing else is left behind.
func TestOpenedWhileRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	id := image("a", 100_000)
	p := random(id.Size)
	end := make(chan struct{})
	var removers, openers sync.WaitGroup
	for _, throwAway := range []func(*Dir){
		func(d *Dir) { _ = d.Remove(id.name()) }, // it may not be there
		func(d *Dir) { _, _ = d.evict(1<<40, true) },
	} {
		d := openDir(t, path, roomy)
		removers.Go(func() {
			for {
				select {
				case <-end:
					return
				default:
					throwAway(d)
				}
			}
		})
	}
	for range 3 {
		d := openDir(t, path, roomy)
		openers.Go(func() {
			for range 40 {
				e, err := d.Open(id, "", someTime)
				if err != nil {
					t.Errorf("Open: %v", err)
					return
				}
				fill(e, p[:5*chunkSize])
				holds(t, e.files, p)
				e.Close()
			}
		})
	}
	openers.Wait()
	close(end)
	removers.Wait()
	// What was opened as it was removed may have left files in the way of that.
	d := openDir(t, path, roomy)
	_ = d.Remove(id.name())
	age(t, d)
	if _, err := d.evict(0, false); err != nil {
		t.Error(err)
	}
	if got := entries(t, path); len(got) != 0 {
		t.Errorf("left behind: %v", got)
	}
}

// Where the file system has no locks entries are opened and read.
func TestNoLocks(t *testing.T) {
	d := newDir(t, roomy)
	id := image("a", 100_000)
	p := random(id.Size)
	fill(openEntry(t, d, id), p)
	t.Cleanup(func() { flock = unix.Flock })
	flock = func(int, int) error { return unix.ENOLCK }
	if e := openEntry(t, d, id); holds(t, e.files, p) != id.Size {
		t.Error("what was stored is not there")
	}
}

// age makes what is in a cache directory look old.
func age(t *testing.T, d *Dir) {
	t.Helper()
	old := time.Now().Add(-2 * oldNew)
	for _, name := range entries(t, d.Path()) {
		if err := os.Chtimes(filepath.Join(d.Path(), name), old, old); err != nil {
			t.Fatal(err)
		}
	}
}

// A directory that we can't look into, as of another user on a file system of its
// own, is no reason to keep nothing.
func TestForeignDirectory(t *testing.T) {
	var warnings log
	d := newDir(t, Options{Size: 1 << 40, Logger: warnings.logger()})
	parent := filepath.Dir(d.Path())
	foreign := filepath.Join(d.Path(), "lost+found")
	if err := errors.Join(os.Mkdir(foreign, 0), os.WriteFile(filepath.Join(d.Path(), "README"), random(5000), 0o644),
		os.Chmod(d.Path(), 0o755), os.Chmod(parent, 0o755), os.Chmod(filepath.Dir(parent), 0o755)); err != nil {
		t.Fatal(err)
	}
	id := image("a", 100_000)
	p := random(id.Size)
	e := openEntry(t, d, id)
	without(t, func() { fill(e, p) })
	if n := holds(t, e.files, p); n != id.Size || warnings.count() > 0 {
		t.Errorf("%d bytes are there, warnings %q; want all and none", n, warnings.lines)
	}
	if list, others, err := d.List(); len(list) != 1 || others != 0 || err != nil {
		t.Errorf("List: %v, %d others, %v; want the one entry", list, others, err)
	}
}

func TestList(t *testing.T) {
	d := newDir(t, roomy)
	p := random(100_000)
	for i, name := range []string{"a", "b"} {
		e := openEntry(t, d, image(name, int64(len(p))))
		fill(e, p[:(i+1)*40_000/chunkSize*chunkSize])
		if err := e.Completed(name == "a", name == "b"); err != nil {
			t.Fatal(err)
		}
		if name == "a" {
			e.Close()
		}
	}
	list, others, err := d.List()
	if err != nil || others != 0 {
		t.Fatalf("%d others, %v", others, err)
	}
	got := make(map[string]Stat)
	for _, s := range list {
		if age := time.Since(s.Used); age < -time.Minute || age > time.Hour {
			t.Errorf("%s was used %v ago", s.Keys, age)
		}
		if filepath.Base(filepath.Dir(s.Path)) != s.Name || !exists(s.Path) {
			t.Errorf("%s is at %s, called %s", s.Keys, s.Path, s.Name)
		}
		s.Used, s.Path, s.Name = time.Time{}, "", ""
		got[s.Keys[0]] = s
	}
	a, b := "http://example.org/a", "http://example.org/b"
	want := map[string]Stat{
		a: {Keys: []string{a}, Sources: []string{a}, Validators: []string{`"1"`}, ModTime: someTime, Size: 100_000, Allocated: 40_000 / chunkSize * chunkSize, Complete: true},
		b: {Keys: []string{b}, Sources: []string{b}, Validators: []string{`"1"`}, ModTime: someTime, Size: 100_000, Allocated: 80_000 / chunkSize * chunkSize, Kept: true, InUse: true},
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
}

// A file that is all there is so when one inside it has been completed as well.
func TestCompletedInside(t *testing.T) {
	e := openEntry(t, newDir(t, roomy), image("a", 1000))
	for i, c := range []struct{ whole, want bool }{{false, false}, {true, true}, {false, true}} {
		if err := e.Completed(c.whole, false); err != nil {
			t.Fatal(err)
		}
		if m, err := readMeta(e.f); err != nil || m.Complete != c.want {
			t.Errorf("step %d: complete: %v, %v; want %v", i, m.Complete, err, c.want)
		}
	}
	if err := e.Incomplete(); err != nil {
		t.Fatal(err)
	}
	if m, err := readMeta(e.f); err != nil || m.Complete {
		t.Errorf("incomplete, and complete: %v, %v", m.Complete, err)
	}
}

// cutEntry makes an entry for an image of size bytes. cut is its files after a power cut
// that keeps nothing but what was synced.
func cutEntry(t *testing.T, size int64) (e *Entry, cut func() *files) {
	t.Helper()
	e = openEntry(t, newDir(t, roomy), image("a", size))
	e.closeFiles()
	mem := newMemFiles(size)
	open := func(mem *memFiles) *files {
		t.Helper()
		f, err := openFiles(memDir{memFiles: mem}, size, true)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	e.files = open(mem)
	return e, func() *files {
		return open(mem.crash(func(string, int, int) int { return 0 }))
	}
}

// What is said to be here, and to stay, is here after a power cut, too: it is durable
// before that is written down.
func TestCompletedIsDurable(t *testing.T) {
	const size, tail = 20*chunkSize + 100, 5 * chunkSize
	p := random(size)
	e, cut := cutEntry(t, size)
	b := wholeBlocks(t, e, false)
	at := blockio.Extent{Off: tail, Len: size - tail}
	e.writeChunks(p[:tail], 0)
	b.Put(7, at, p[tail:])
	left := func() (chunks int64, block bool) {
		t.Helper()
		files := cut()
		after, err := files.Blocks([]blockio.Extent{{Len: size}}, false)
		if err != nil {
			t.Fatal(err)
		}
		return holds(t, files, p), after.Get(7, at, make([]byte, at.Len))
	}
	if chunks, block := left(); chunks != 0 || block {
		t.Fatalf("%d bytes and the block (%v) are there, and nothing was synced", chunks, block)
	}
	data := e.data
	for _, fail := range []error{errors.New("no luck"), nil} {
		syncs := 0
		sync := func() error {
			syncs++
			if m, err := readMeta(e.f); err != nil || m.Complete || m.Kept {
				t.Errorf("complete: %v, kept: %v, %v; want neither yet", m.Complete, m.Kept, err)
			}
			return fail
		}
		e.data = &spy{file: data, sync: sync}
		if err := e.Completed(true, true); !errors.Is(err, fail) || syncs == 0 {
			t.Errorf("%v after %d syncs, want %v", err, syncs, fail)
		}
	}
	if chunks, block := left(); chunks != tail || !block {
		t.Errorf("%d bytes and the block (%v) are there, want %d and the block", chunks, block, tail)
	}
}

// What has come since something was kept is durable, too, when that is said once more: of
// another profile, or another image inside. Where nothing can be written, nothing has come.
func TestCompletedAgainIsDurable(t *testing.T) {
	const size = 20 * chunkSize
	p := random(size)
	e, cut := cutEntry(t, size)
	for _, n := range []int64{5, 12, 20} {
		e.writeChunks(p[:n*chunkSize], 0)
		if err := e.Completed(false, true); err != nil {
			t.Fatal(err)
		}
		if got := holds(t, cut(), p); got != n*chunkSize {
			t.Errorf("%d bytes are there, want %d", got, n*chunkSize)
		}
	}
	e.write, e.data = false, &spy{file: e.data, sync: func() error { return unix.EINVAL }}
	if err := e.Completed(false, true); err != nil {
		t.Errorf("on a read-only file system: %v", err)
	}
}

// metaFile is the inode of an entry's meta file: another one once that was written again.
func metaFile(t *testing.T, e *Entry) uint64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Fstatat(int(e.f.Fd()), metaName, &st, 0); err != nil {
		t.Fatal(err)
	}
	return st.Ino
}

// What is known already is not written again: there may be no room for that.
func TestCompletedAgain(t *testing.T) {
	e := openEntry(t, newDir(t, roomy), image("a", 1000))
	for _, c := range []struct{ whole, keep, writes bool }{
		{false, false, false},
		{true, false, true},
		{true, false, false},
		{false, false, false},
		{false, true, true},
		{true, true, false},
		{false, true, false},
	} {
		before, err := os.Open(filepath.Join(filepath.Dir(e.Path()), metaName)) // so that its number is not used again
		if err != nil {
			t.Fatal(err)
		}
		was := metaFile(t, e)
		if err := e.Completed(c.whole, c.keep); err != nil || (metaFile(t, e) != was) != c.writes {
			t.Errorf("whole %v, keep %v: written %v, %v; want %v", c.whole, c.keep, metaFile(t, e) != was, err, c.writes)
		}
		before.Close()
	}
}

// An image of which something was found damaged is no longer complete, whoever
// finds it; it stays kept.
func TestDamagedIsNotComplete(t *testing.T) {
	const size = 64 * chunkSize
	p, block := random(size), blockio.Extent{Off: 1000, Len: 50_000}
	buf := make([]byte, block.Len)
	for _, c := range []struct {
		name string
		find func(e *Entry, b *Blocks)
	}{
		{"a block is read", func(e *Entry, b *Blocks) {
			e.writeAt([]byte{p[2000] ^ 1}, 2000)
			b.Get(0, block, buf)
		}},
		{"a block makes no sense", func(_ *Entry, b *Blocks) { b.Forget(0, block) }},
		{"chunks are read", func(e *Entry, _ *Blocks) {
			e.writeAt([]byte{p[200_000] ^ 1}, 200_000)
			e.readChunks(buf[:chunkSize], 200_000/chunkSize*chunkSize)
		}},
		{"chunks are checked", func(e *Entry, _ *Blocks) {
			e.writeAt([]byte{p[200_000] ^ 1}, 200_000)
			_, _, _ = e.CheckChunks(t.Context())
		}},
	} {
		e := openEntry(t, newDir(t, roomy), image("a", size))
		b, err := e.Blocks([]blockio.Extent{{Len: size}}, false)
		if err != nil {
			t.Fatal(err)
		}
		fill(e, p)
		b.Put(0, block, p[block.Off:block.End()])
		if err := e.Completed(true, true); err != nil {
			t.Fatal(err)
		}
		if !b.Get(0, block, buf) || e.readChunks(buf[:chunkSize], 0).Len > 0 {
			t.Fatal("what was stored is not there")
		}
		if m, err := readMeta(e.f); err != nil || !m.Complete {
			t.Errorf("%s: not complete before (%v)", c.name, err)
		}
		c.find(e, b)
		if m, err := readMeta(e.f); err != nil || m.Complete || !m.Kept {
			t.Errorf("%s: complete %v, kept %v, %v; want that it is kept alone", c.name, m.Complete, m.Kept, err)
		}
		was := metaFile(t, e)
		c.find(e, b)
		if metaFile(t, e) != was {
			t.Errorf("%s once more: that is written down again", c.name)
		}
	}
}

// stretches cuts size bytes into blocks of many lengths.
func stretches(size int64) (ext blockiotest.Extents) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for end := int64(0); end < size; {
		end = min(size, end+[]int64{1, 100, 5000, 4096, 30_000, 0}[rnd.IntN(6)])
		ext.Ends = append(ext.Ends, end)
	}
	return ext
}

func TestBlocksConform(t *testing.T) {
	const size = 500_001
	file := random(size)
	for _, c := range []struct {
		name  string
		parts []blockio.Extent
		whole bool
	}{
		{"a table of their own", []blockio.Extent{{Len: size}}, false},
		{"inside", []blockio.Extent{{Off: 6000, Len: 300_001}}, false},
		{"inside, in parts", []blockio.Extent{{Off: 300_000, Len: 100_001}, {Off: 2048, Len: 3000}, {Off: 6000, Len: 123_456}, {Off: 450_000, Len: 50_001}}, false},
		{"whole chunks", []blockio.Extent{{Len: size}}, true},
		{"whole chunks, in parts", []blockio.Extent{{Off: 60 * chunkSize, Len: 22 * chunkSize}, {Len: 43 * chunkSize}}, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			e := openEntry(t, newDir(t, roomy), image("a", size))
			b, err := e.Blocks(c.parts, c.whole)
			if err != nil {
				t.Fatal(err)
			}
			var image []byte
			for _, part := range c.parts {
				image = append(image, file[part.Off:part.End()]...)
			}
			ext := stretches(int64(len(image)))
			if c.whole {
				ext.Ends = nil
				for end, all := int64(5*chunkSize), int64(len(image)); end < all; end += 5 * chunkSize {
					ext.Ends = append(ext.Ends, end)
				}
				ext.Ends = append(ext.Ends, int64(len(image)))
			}
			blockiotest.TestBlockStore(t, b, ext, image)
			if s := e.Stats(); s.Mismatches != 0 && c.whole {
				t.Errorf("%d mismatches", s.Mismatches)
			}
		})
	}
}

// A block beyond the end of the image is never there, whatever is asked.
func TestBlocksBeyondTheEnd(t *testing.T) {
	const size = 10_000
	e := openEntry(t, newDir(t, roomy), image("a", size))
	for _, parts := range [][]blockio.Extent{nil, {{Len: size}}, {{Off: 5000, Len: 5000}}} {
		for _, whole := range []bool{false, true} {
			b, err := e.Blocks(parts, whole)
			if err != nil {
				t.Fatal(err)
			}
			for _, at := range []blockio.Extent{{Off: 0, Len: size + 1}, {Off: 9000, Len: 5000}, {Off: size, Len: 1}, {Off: 1 << 40, Len: 100}} {
				p := random(at.Len)
				b.Put(3, at, p)
				if b.Get(3, at, p) {
					t.Errorf("parts %v: block at %v is there", parts, at)
				}
				b.Forget(3, at)
			}
		}
	}
}

// What one process has claimed another can't, until that lets go or has ended.
func TestClaims(t *testing.T) {
	const size = 100_000
	path := filepath.Join(t.TempDir(), "cache")
	parts := []blockio.Extent{{Off: 50_000, Len: 10_000}, {Off: 0, Len: 10_000}}
	blocks := func() (*Blocks, *Entry) {
		e := openEntry(t, openDir(t, path, roomy), image("a", size))
		b, err := e.Blocks(parts, false)
		if err != nil {
			t.Fatal(err)
		}
		return b, e
	}
	one, oneEntry := blocks()
	two, _ := blocks()
	claim := func(b *Blocks, off, n int64, want bool) (release func()) {
		t.Helper()
		release, ok := b.Claim(blockio.Extent{Off: off, Len: n}, blockio.Demand)
		if ok != want {
			t.Errorf("claim of %d+%d: %v, want %v", off, n, ok, want)
		}
		return release
	}
	release := claim(one, 9000, 2000, true) // over the gap
	claim(two, 8000, 1001, false)
	claim(two, 10_500, 1, false)
	claim(two, 10_999, 5000, false)
	claim(two, 5000, 10_000, false)
	claim(two, 8000, 1000, true)()
	last := claim(two, 11_000, 5000, true)
	release()
	claim(one, 9500, 3000, false) // and it lets go of the piece that it could have
	claim(two, 9000, 2000, true)()
	claim(one, 11_000, 1, false)
	last()
	claim(one, 11_000, 1, true)
	oneEntry.Close()
	claim(two, 11_000, 1, true)()
}

func TestContradicts(t *testing.T) {
	e := openEntry(t, newDir(t, roomy), image("a", 10_000))
	p := random(10_000)
	other := bytes.Clone(p)
	other[4999] ^= 1
	for _, n := range []int{0, 1, 5000, 10_000} {
		if e.Contradicts(other[:n]) {
			t.Errorf("%d bytes contradict nothing at all", n)
		}
	}
	fill(e, p)
	for _, c := range []struct {
		n    int
		want bool
	}{{0, false}, {4096, false}, {4999, false}, {5000, true}, {10_000, true}} {
		if got := e.Contradicts(other[:c.n]); got != c.want {
			t.Errorf("%d bytes contradict what is there: %v, want %v", c.n, got, c.want)
		}
		if e.Contradicts(p[:c.n]) {
			t.Errorf("%d bytes contradict themselves", c.n)
		}
	}
}

// FuzzMeta reads whatever may be in a meta file. What is taken for an entry can be
// written and read again.
func FuzzMeta(f *testing.F) {
	for _, s := range []string{
		`{"version": 1, "size": 5, "seen": [{"key": "k", "validator": "v"}], "sources": ["s"], "kept": true}`,
		`{"version": 1}`, `{"version": 1, "size": 5}`, `{"version": 1, "seen": [{}]}`, `{"version": 2}`, `{}`, `[]`, ``, `{"version": 1, "size": 1e3, "seen": [{}]}`, "{\"version\": 1\x00",
	} {
		f.Add([]byte(s))
	}
	dir := f.TempDir()
	at, err := os.Open(dir)
	if err != nil {
		f.Fatal(err)
	}
	defer at.Close()
	f.Fuzz(func(t *testing.T, text []byte) {
		if err := os.WriteFile(filepath.Join(dir, metaName), text, 0o600); err != nil {
			t.Fatal(err)
		}
		m, err := readMeta(at)
		if err != nil {
			return
		}
		if m.Version != formatVersion || m.Size <= 0 || len(m.Seen) == 0 {
			t.Errorf("%q is taken for an entry: %+v", text, m)
		}
		again, err := json.Marshal(m)
		if err != nil {
			t.Fatalf("%q can't be written again: %v", text, err)
		}
		if err := os.WriteFile(filepath.Join(dir, metaName), again, 0o600); err != nil {
			t.Fatal(err)
		}
		got, err := readMeta(at)
		if diff := cmp.Diff(m, got); err != nil || diff != "" {
			t.Errorf("%q, written again: %v (-want +got):\n%s", text, err, diff)
		}
	})
}
