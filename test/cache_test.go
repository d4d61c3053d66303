//go:build integration

package test

import (
	"bytes"
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"testing"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// newCache makes a path for a cache directory, and the flags that use it. more
// are further flags.
func newCache(t testing.TB, more ...string) (dir string, flags []string) {
	t.Helper()
	dir = filepath.Join(t.TempDir(), "cache")
	return dir, append(cacheFlags(dir, "2GiB"), more...)
}

// entries lists the directories of images in a cache directory.
func entries(t testing.TB, cache string) []string {
	t.Helper()
	metas, err := filepath.Glob(filepath.Join(cache, "*", "meta"))
	if err != nil {
		t.Fatal(err)
	}
	for i := range metas {
		metas[i] = filepath.Dir(metas[i])
	}
	return metas
}

// oneEntry is the directory of the only image in a cache directory.
func oneEntry(t testing.TB, cache string) string {
	t.Helper()
	list := entries(t, cache)
	if len(list) != 1 {
		t.Fatalf("the cache has the entries %q, want one", list)
	}
	return list[0]
}

// large is an image of some size, and where a cache has it.
type large struct {
	name  string
	flags []string // for mount
	image []byte
	disk  string // path of what it decodes to
	// blocks are the offsets of the stored blocks, and of the end of the last.
	blocks []int
	// table is the file of a cache entry that tells which blocks are here, and
	// width how many numbers it has for each.
	table string
	width int
}

// needLarge makes a cloop image and a raw one of the same disk, once: 128 MiB,
// three quarters of it noise.
func needLarge(t *testing.T) []large {
	t.Helper()
	largeOnce.Do(func() { largeImages = makeLarge(t, filepath.Join(scratch, "large.img"), 2048) })
	if largeImages == nil {
		t.Fatal("the large images could not be made")
	}
	return largeImages
}

var (
	largeOnce   sync.Once
	largeImages []large
)

// makeLarge makes a cloop image and a raw one of a disk of so many blocks of 64
// KiB.
func makeLarge(t *testing.T, disk string, n int) []large {
	t.Helper()
	var sizes, raw []int
	for i := range n {
		sizes = append(sizes, (32+i*37%32)*kib)
		raw = append(raw, i*64*kib)
	}
	s := makeImage(t, 64*kib, sizes...)
	if err := os.WriteFile(disk, s.disk, 0o644); err != nil {
		t.Fatal(err)
	}
	return []large{
		{"cloop", nil, s.image, disk, s.offsets, "blocks-0", 1},
		{"raw", []string{"--format", "raw"}, s.disk, disk, append(raw, len(s.disk)), "chunks", 64 * kib / pageSize},
	}
}

// kept says which blocks of the image a cache directory has. It does not ask the
// program: a block is kept if the table has a number for all of it, and its bytes
// are those of the image.
func (l *large) kept(t *testing.T, cache string) []bool {
	t.Helper()
	kept := make([]bool, len(l.blocks)-1)
	if len(entries(t, cache)) == 0 {
		return kept
	}
	entry := oneEntry(t, cache)
	data, err := os.ReadFile(filepath.Join(entry, "data"))
	if err != nil {
		t.Fatal(err)
	}
	table, err := os.ReadFile(filepath.Join(entry, l.table))
	if err != nil && !os.IsNotExist(err) {
		t.Fatal(err)
	}
	for n := range kept {
		here := true
		for i := n * l.width; i < (n+1)*l.width; i++ {
			here = here && 8*(i+1) <= len(table) && binary.LittleEndian.Uint64(table[8*i:]) != 0
		}
		from, to := l.blocks[n], l.blocks[n+1]
		kept[n] = here && bytes.Equal(data[from:to], l.image[from:to])
	}
	return kept
}

// bytesOf is how long those blocks are together that are marked.
func (l *large) bytesOf(marked []bool) int64 {
	total := 0
	for n, here := range marked {
		if here {
			total += l.blocks[n+1] - l.blocks[n]
		}
	}
	return int64(total)
}

// checkNotAgain checks that a mount has asked for none of the blocks that are
// marked. Its first request is the price of looking whether the image is still the
// same.
func (l *large) checkNotAgain(t *testing.T, ranges []testserver.Range, marked []bool) {
	t.Helper()
	if len(ranges) == 0 {
		t.Fatal("the server was not asked whether the image is still the same")
	}
	if ranges[0].Off != 0 || ranges[0].Len > 8*kib {
		t.Errorf("the first request is %+v, want at most the first 8 KiB", ranges[0])
	}
	for _, r := range ranges[1:] {
		for n, here := range marked {
			if here && r.Off < int64(l.blocks[n+1]) && int64(l.blocks[n]) < r.Off+r.Len {
				t.Fatalf("block %d was stored, and asked for again: %+v", n, r)
			}
		}
	}
}

// What was read once is never asked for again: the second mount costs the one
// request that shows that the image is the same. So it is with real servers.
// lighttpd, as it is set up here, gives nothing to tell two versions by.
func TestSecondMount(t *testing.T) {
	f := need(t, small)
	tests := []struct {
		name  string
		web   webServer
		flags []string
		kept  bool
	}{
		{"nginx", nginx, nil, true},
		{"lighttpd", lighttpd, nil, false},
		{"lighttpd, trusted", lighttpd, []string{"--trust-size"}, true},
	}
	for _, test := range tests {
		docs := test.web.start(t, filepath.Dir(f.image)) + "/"
		for name, image := range map[string]string{"cloop": f.image, "raw": f.raw} {
			t.Run(test.name+" "+name, func(t *testing.T) {
				_, flags := newCache(t, test.flags...)
				dir := makeDir(t)
				for again := range 3 {
					mountAt(t, docs+filepath.Base(image), dir, flags...)
					must(t, "cmp", diskOf(dir), f.raw)
					st := statusOf(t, dir).Servers[0]
					if again > 0 && test.kept && st.Requests != 1 {
						t.Errorf("mount %d: %d requests, want one", again+1, st.Requests)
					}
					if (again == 0 || !test.kept) && st.Bytes < sizeOf(t, image) {
						t.Errorf("mount %d: %d bytes, want all of %d", again+1, st.Bytes, sizeOf(t, image))
					}
					if cached := statusOf(t, dir).Cache; (cached != nil) != test.kept || cached != nil && cached.Bytes < sizeOf(t, image) {
						t.Errorf("mount %d: status says of the cache %+v, want all of %d: %v", again+1, cached, sizeOf(t, image), test.kept)
					}
					umount(t, dir)
				}
			})
		}
	}
}

// What is kept of an image while it is mounted serves a second mount beside the
// first.
func TestMountBesideAnother(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(32, 20*kib)...)
	srv, url := serve(t, s.image)
	_, flags := newCache(t)
	first := mount(t, url, flags...)
	checkBytes(t, "first", must(t, "cat", diskOf(first)), s.disk)
	srv.Reset()
	second := mount(t, url, flags...)
	checkBytes(t, "second", must(t, "cat", diskOf(second)), s.disk)
	if st := srv.Stats(); st.Requests != 1 {
		t.Errorf("the second mount cost the requests %v, want one", st.Ranges)
	}
	umount(t, first)
	umount(t, second)
}

// The directory and all in it is for the user alone, whatever the umask; data is
// the image itself once all of it was read.
func TestCacheFiles(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(32, 20*kib)...)
	_, url := serve(t, s.image)
	cache, flags := newCache(t)
	dir := makeDir(t)
	must(t, "sh", slices.Concat([]string{"-c", `umask 0; exec "$@"`, "sh", cloopfs, "mount"}, flags, []string{url, dir})...)
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
	umount(t, dir)
	if got := must(t, "find", cache, "-perm", "/077"); got != "" {
		t.Errorf("others may use %q, want nothing", got)
	}
	data, err := os.ReadFile(filepath.Join(oneEntry(t, cache), "data"))
	if err != nil {
		t.Fatal(err)
	}
	checkBytes(t, "data", string(data), s.image)
}
