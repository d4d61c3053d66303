//go:build integration

package test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/internal/testserver"
)

// What goes wrong on the way is mended: the reader gets the right bytes, and
// each fault costs one more request.
func TestMendedFaults(t *testing.T) {
	const n = 5
	tests := []struct {
		name     string
		fault    func(c *testserver.Config, off, size int64)
		requests int
	}{
		{"no fault", func(*testserver.Config, int64, int64) {}, 1},
		{"one flipped bit", func(c *testserver.Config, off, size int64) {
			c.FlipTimes, c.FlipOffset = 1, off+size/2
		}, 2},
		{"flipped bit in the checksum", func(c *testserver.Config, off, size int64) {
			c.FlipTimes, c.FlipOffset = 1, off+size-1
		}, 2},
		{"truncated body", func(c *testserver.Config, _, _ int64) { c.Truncate = 1 }, 2},
		{"503 twice", func(c *testserver.Config, _, _ int64) { c.StatusTimes = 2 }, 3},
		{"connection reset", func(c *testserver.Config, _, _ int64) { c.Reset = 1 }, 2},
	}
	for _, test := range tests {
		for _, reader := range readers {
			t.Run(test.name+" "+reader.name, func(t *testing.T) {
				s := makeImage(t, 64*kib, blocks(16, 10*kib)...)
				srv, url := serve(t, s.image)
				dir := mount(t, url)
				srv.Reset()
				off, size := s.stored(n)
				srv.Set(func(c *testserver.Config) { test.fault(c, int64(off), int64(size)) })

				p := startReader(t, reader.args(diskOf(dir), n*64*kib, pageSize))
				checkBytes(t, p.name, p.result(t).stdout, s.block(n)[:pageSize])
				if st := srv.Stats(); st.Requests != test.requests {
					t.Errorf("got %d requests, want %d: %v", st.Requests, test.requests, st.Ranges)
				}
				umount(t, dir)
			})
		}
	}
}

// A page of the index that came wrong is read again, wherever it lies and is kept, and what is
// kept of it after that is right.
func TestMendedIndex(t *testing.T) {
	const n, count = 700, 1000
	s := makeImage(t, 64*kib, blocks(count, kib)...)
	var stored [][]byte
	for k := range count {
		off, size := s.stored(k)
		stored = append(stored, s.image[off:off+size])
	}
	iso := makeISO(t, map[string][]byte{"KNOPPIX/KNOPPIX": s.image})
	last := clooptest.AssembleLast(64*kib, stored)
	for _, test := range []struct {
		name, inside string
		file         []byte
		index        int
	}{
		{"header first", "", s.image, 136},
		{"header last", "", last, len(last) - 136 - 8*(count+1)},
		{"inside an ISO", "#KNOPPIX/KNOPPIX", iso, bytes.Index(iso, s.image) + 136},
	} {
		_, cached := newCache(t)
		for cache, flags := range map[string][]string{"cached": cached, "not cached": {"--cache-size", "0"}} {
			t.Run(test.name+" "+cache, func(t *testing.T) {
				srv, url := serve(t, test.file)
				srv.Set(func(c *testserver.Config) { c.FlipTimes, c.FlipOffset = 1, int64(test.index+8*n) })
				for range 2 {
					dir := mount(t, url+test.inside, flags...)
					for _, k := range []int{n - 1, n} {
						args := directRead(diskOf(dir), k*64*kib, pageSize)
						checkBytes(t, "disk", must(t, args[0], args[1:]...), s.block(k)[:pageSize])
					}
					umount(t, dir)
				}
				srv.Set(func(c *testserver.Config) {
					if c.FlipTimes != 0 {
						t.Error("nothing was flipped")
					}
				})
			})
		}
	}
}

// A block that is corrupt in the image itself is an I/O error for its readers,
// and for nobody else.
func TestCorruptBlock(t *testing.T) {
	const n = 5
	damaged := func(t *testing.T) (s *synthetic, url string) {
		s = makeImage(t, 64*kib, blocks(32, 10*kib)...)
		off, size := s.stored(n)
		s.image[off+size/2] ^= 1
		_, url = serve(t, s.image)
		return s, url
	}
	readAll := []struct {
		name string
		args []string // of dd
	}{
		{"direct, block by block", []string{"iflag=direct", "bs=64K"}},
		{"direct, page by page", []string{"iflag=direct", "bs=4K"}},
		{"buffered", []string{"bs=4K"}},
	}
	for _, test := range readAll {
		t.Run(test.name, func(t *testing.T) {
			s, url := damaged(t)
			dir := mount(t, url)
			want := bytes.Clone(s.disk)
			clear(want[n*64*kib : (n+1)*64*kib])

			// dd puts zeros where it gets an error.
			r := run(t, "dd", append(test.args, "if="+diskOf(dir), "conv=noerror,sync")...)
			checkBytes(t, "dd", r.stdout, want)
			if !strings.Contains(r.stderr, "Input/output error") {
				t.Errorf("dd: stderr %q, want an I/O error", r.stderr)
			}
			umount(t, dir)
		})
	}
	t.Run("each block by each reader", func(t *testing.T) {
		s, url := damaged(t)
		dir := mount(t, url)
		for _, reader := range readers {
			for i := range 32 {
				p := startReader(t, reader.args(diskOf(dir), i*64*kib, pageSize))
				r := p.result(t)
				switch {
				case i != n:
					checkBytes(t, p.name, r.stdout, s.block(i)[:pageSize])
				case r.code == 0 || r.stdout != "":
					t.Errorf("%s: %v, want an error and no data", p.name, r)
				}
			}
		}
		umount(t, dir)
	})
	t.Run("extract", func(t *testing.T) {
		_, url := damaged(t)
		dir := t.TempDir()
		r := run(t, cloopfs, "extract", url, filepath.Join(dir, "out"))
		checkFailure(t, r, 3, "block 5")
		if entries, err := os.ReadDir(dir); err != nil || len(entries) > 0 {
			t.Errorf("left in the directory: %v, %v; want nothing", entries, err)
		}
	})
}

// An image that is exchanged on the server under a mount is an error, never
// other data. What is in memory stays right, and the right image is welcome back.
func TestChangedImage(t *testing.T) {
	const before, after = 2, 9 // blocks read before and after the change
	tests := []struct {
		name         string
		change, undo func(srv *testserver.Server, s, other *synthetic)
	}{
		{
			"ETag",
			func(srv *testserver.Server, _, _ *synthetic) {
				srv.Set(func(c *testserver.Config) { c.ETag = `"other"` })
			},
			func(srv *testserver.Server, _, _ *synthetic) {
				srv.Set(func(c *testserver.Config) { c.ETag = "" })
			},
		},
		{
			"content of the same size",
			func(srv *testserver.Server, _, other *synthetic) { srv.AddBytes("disk.cloop", other.image) },
			func(srv *testserver.Server, s, _ *synthetic) { srv.AddBytes("disk.cloop", s.image) },
		},
		{
			"Last-Modified",
			func(srv *testserver.Server, _, _ *synthetic) {
				srv.Set(func(c *testserver.Config) { c.NoLastModified = true })
			},
			func(srv *testserver.Server, _, _ *synthetic) {
				srv.Set(func(c *testserver.Config) { c.NoLastModified = false })
			},
		},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := makeImage(t, 64*kib, blocks(16, 10*kib)...)
			// The other image has the same blocks in another order.
			other := makeImage(t, 64*kib, blocks(16, 10*kib)...)
			for i := range 16 {
				off, size := s.stored(15 - i)
				copy(other.image[other.offsets[i]:], s.image[off:off+size])
			}
			srv, url := serve(t, s.image)
			dir := mount(t, url)
			page := func(n int) []string { return directRead(diskOf(dir), n*64*kib, pageSize) }
			read := func(n int) result { return run(t, page(n)[0], page(n)[1:]...) }
			checkBytes(t, "before the change", read(before).stdout, s.block(before)[:pageSize])

			test.change(srv, s, other)
			for _, reader := range readers {
				p := startReader(t, reader.args(diskOf(dir), after*64*kib, pageSize))
				if r := p.result(t); r.code == 0 || r.stdout != "" {
					t.Errorf("after the change: %s: %v, want an error and no data", p.name, r)
				}
			}
			if r := read(after); !strings.Contains(r.stderr, "Input/output error") {
				t.Errorf("after the change: %v, want an I/O error", r)
			}
			checkBytes(t, "in memory", read(before).stdout, s.block(before)[:pageSize])

			test.undo(srv, s, other)
			var r result
			waitFor(t, "read of the right image", func() bool { r = read(after); return r.code == 0 })
			checkBytes(t, "after the change was undone", r.stdout, s.block(after)[:pageSize])
			umount(t, dir)
		})
	}
}
