//go:build integration

package test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// flip changes bytes of a file: one bit at each offset.
func flip(t *testing.T, path string, offsets ...int) {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, off := range offsets {
		var b [1]byte
		if _, err := f.ReadAt(b[:], int64(off)); err != nil {
			t.Fatal(err)
		}
		b[0] ^= 0x10
		if _, err := f.WriteAt(b[:], int64(off)); err != nil {
			t.Fatal(err)
		}
	}
}

// A block that arrives damaged is asked for once more, and kept as it should be.
func TestCacheOfDamagedBlock(t *testing.T) {
	const n = 5
	for _, reader := range readers {
		t.Run(reader.name, func(t *testing.T) {
			s := makeImage(t, 64*kib, blocks(16, 10*kib)...)
			srv, url := serve(t, s.image)
			_, flags := newCache(t)
			off, size := s.stored(n)
			dir := mount(t, url, flags...)
			srv.Reset()
			srv.Set(func(c *testserver.Config) { c.FlipTimes, c.FlipOffset = 1, int64(off+size/2) })
			read := func(what string, requests int) {
				t.Helper()
				p := startReader(t, reader.args(diskOf(dir), n*64*kib, pageSize))
				checkBytes(t, what, p.result(t).stdout, s.block(n)[:pageSize])
				if st := srv.Stats(); st.Requests != requests {
					t.Errorf("%s: got %d requests, want %d: %v", what, st.Requests, requests, st.Ranges)
				}
			}
			read("damaged on its way", 2)
			for range 2 {
				umount(t, dir)
				srv.Reset()
				mountAt(t, url, dir, flags...)
				read("mounted again", 1)
			}
			umount(t, dir)
		})
	}
}

// An index that arrives damaged is no reason to fail for ever: it is asked for
// again, at the latest by the next mount.
func TestCacheOfDamagedIndex(t *testing.T) {
	const entry = 136 + 8*3000
	s := makeImage(t, 4*kib, blocks(4096, 100)...)
	iso := makeISO(t, map[string][]byte{"dir/image": s.image})
	at := bytes.Index(iso, s.image[:mib/4])
	name := bytes.Index(iso, []byte("NM\x0a\x01\x00image")) // as Rock Ridge has it
	tests := []struct {
		name, inside string
		image        []byte
		off          int
		heals        bool // at once, after an error at most
	}{
		{"first 8 KiB", "", s.image, 136 + 8*500 + 6, true},
		{"an impossible offset", "", s.image, entry + 2, true},
		{"an offset that is off by 1", "", s.image, entry + 7, true},
		{"inside an ISO file", "#dir/image", iso, at + entry + 7, true},
		{"the ISO file's directory", "#dir/image", iso, name + 5, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			srv, url := serve(t, test.image)
			_, flags := newCache(t)
			srv.Set(func(c *testserver.Config) { c.FlipTimes, c.FlipOffset = 1, int64(test.off) })
			dir := makeDir(t)
			r := run(t, cloopfs, append([]string{"mount"}, append(flags, url+test.inside, dir)...)...)
			if test.heals {
				waitFor(t, "right bytes", func() bool { return run(t, "cat", diskOf(dir)).stdout == string(s.disk) })
			}
			if r.code == 0 {
				umount(t, dir)
			}
			if left := srvConfig(srv).FlipTimes; left != 0 {
				t.Fatal("nothing was damaged")
			}
			mountAt(t, url+test.inside, dir, flags...)
			checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
			umount(t, dir)
		})
	}
}

// Bits that turn over on disk cost the blocks that they are in.
func TestCacheBitRot(t *testing.T) {
	for _, l := range makeLarge(t, filepath.Join(t.TempDir(), "disk"), 256) {
		t.Run(l.name, func(t *testing.T) {
			srv, url := serve(t, l.image)
			cache, flags := newCache(t, l.flags...)
			dir := mount(t, url, flags...)
			must(t, "cmp", diskOf(dir), l.disk)
			umount(t, dir)

			bad := []int{3, 100, 101, 200, 255}
			kept := l.kept(t, cache)
			for _, n := range bad {
				if !kept[n] {
					t.Fatalf("block %d is not kept", n)
				}
				flip(t, filepath.Join(oneEntry(t, cache), "data"), (l.blocks[n]+l.blocks[n+1])/2)
				kept[n] = false
			}
			flip(t, filepath.Join(oneEntry(t, cache), l.table), 8*l.width*150) // a sum is as good
			kept[150] = false

			for again := range 2 {
				srv.Reset()
				mountAt(t, url, dir, flags...)
				must(t, "cmp", diskOf(dir), l.disk)
				umount(t, dir)
				st := srv.Stats()
				l.checkNotAgain(t, st.Ranges, kept)
				if most := 1 + len(bad) + 1; again == 0 && st.Requests > most || again == 1 && st.Requests != 1 {
					t.Errorf("read %d: %d requests, want at most %d, and later one: %v", again+1, st.Requests, most, st.Ranges)
				}
			}
		})
	}
}

// An image that has changed on the server is another, whatever is kept of the old
// one, and that is not lost.
func TestCacheOfChangedImage(t *testing.T) {
	old := makeImage(t, 64*kib, blocks(64, 20*kib)...)
	// The same blocks in another order: the same size, header and index.
	other := makeImage(t, 64*kib, blocks(64, 20*kib)...)
	for n := range 64 {
		off, size := old.stored(63 - n)
		copy(other.image[other.offsets[n]:], old.image[off:off+size])
		copy(other.disk[n*64*kib:], old.block(63-n))
	}
	begins := bytes.Clone(old.image)
	begins[20] ^= 1 // in the text before the header, where any text may be
	tests := []struct {
		name  string
		image []byte
		disk  []byte
		set   func(c *testserver.Config)
	}{
		{"content, ETag as it follows", other.image, other.disk, func(*testserver.Config) {}},
		{"content, weak ETag", other.image, other.disk, func(c *testserver.Config) { c.ETag = `W/"other"` }},
		{"ETag alone", old.image, old.disk, func(c *testserver.Config) { c.ETag = `"other"` }},
		{"Last-Modified alone", other.image, other.disk, func(c *testserver.Config) { c.NoETag = true }},
		{"the first bytes, with the same ETag", begins, old.disk, func(c *testserver.Config) { c.ETag = `"same"` }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			srv, url := serve(t, old.image)
			if strings.Contains(test.name, "same ETag") {
				srv.Set(func(c *testserver.Config) { c.ETag = `"same"` })
			}
			before := srvConfig(srv)
			cache, flags := newCache(t)
			dir := makeDir(t)
			read := func(what string, disk []byte, cached bool) {
				t.Helper()
				srv.Reset()
				mountAt(t, url, dir, flags...)
				checkBytes(t, what, must(t, "cat", diskOf(dir)), disk)
				if st := srv.Stats(); st.Requests == 1 != cached {
					t.Errorf("%s: %d requests; is it cached? want %v", what, st.Requests, cached)
				}
				umount(t, dir)
			}
			read("old", old.disk, false)
			srv.AddBytes("disk.cloop", test.image)
			srv.Set(test.set)
			read("new", test.disk, false)
			read("new again", test.disk, true)
			srv.AddBytes("disk.cloop", old.image)
			srv.Set(func(c *testserver.Config) { *c = before })
			read("old again", old.disk, true)
			if n := len(entries(t, cache)); n != 2 {
				t.Errorf("the cache has %d entries, want two", n)
			}
		})
	}

	// While it is mounted it is an error, but for what is here already.
	t.Run("under a mount", func(t *testing.T) {
		srv, url := serve(t, old.image)
		cache, flags := newCache(t, "--memory", "0")
		dir := mount(t, url, flags...)
		const half = 32 * 64 * kib
		args := directRead(diskOf(dir), 0, half)
		checkBytes(t, "before", must(t, args[0], args[1:]...), old.disk[:half])
		srv.AddBytes("disk.cloop", other.image)
		checkBytes(t, "kept", must(t, args[0], args[1:]...), old.disk[:half])
		if r := run(t, args[0], directRead(diskOf(dir), half+mib, 64*kib)[1:]...); !strings.Contains(r.stderr, "Input/output error") || r.stdout != "" {
			t.Errorf("not kept: %v, want an I/O error", r)
		}
		umount(t, dir)
		mountAt(t, url, dir, flags...)
		checkBytes(t, "new", must(t, "cat", diskOf(dir)), other.disk)
		umount(t, dir)
		if n := len(entries(t, cache)); n != 2 {
			t.Errorf("the cache has %d entries, want two", n)
		}
	})
}

func srvConfig(srv *testserver.Server) (c testserver.Config) {
	srv.Set(func(now *testserver.Config) { c = *now })
	return c
}
