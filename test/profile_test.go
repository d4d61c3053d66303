//go:build integration

package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// useBlocks reads those blocks of a disk, in this order, the kernel's read-ahead aside.
func useBlocks(t *testing.T, s *synthetic, dir string, order []int) {
	t.Helper()
	for _, n := range order {
		read := directRead(diskOf(dir), n*s.blockSize, s.blockSize)
		checkBytes(t, "block", must(t, read[0], read[1:]...), s.block(n))
	}
}

// someBlocks is a session: blocks all over a disk of 200, some of them adjacent.
var someBlocks = []int{150, 3, 4, 5, 199, 60, 61, 20, 0, 100, 7}

// record returns a recording of a session, made without a cache.
func record(t *testing.T, s *synthetic, url string, order []int) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.profile")
	dir := mount(t, url, "--record", path)
	useBlocks(t, s, dir, order)
	umount(t, dir)
	return path
}

// fetched is how often each block was asked for.
func (s *synthetic) fetched(ranges []testserver.Range) map[int]int {
	times := make(map[int]int)
	for _, r := range ranges {
		for n := range len(s.offsets) - 1 {
			if off, size := s.stored(n); r.Name == "disk.cloop" && size > 0 && int64(off) < r.Off+r.Len && r.Off < int64(off+size) && r.Off > 0 {
				times[n]++
			}
		}
	}
	return times
}

// checkFetched checks that those blocks were asked for once, and no other.
func (s *synthetic) checkFetched(t *testing.T, ranges []testserver.Range, want []int) {
	t.Helper()
	times := s.fetched(ranges)
	for _, n := range want {
		if times[n] != 1 {
			t.Errorf("block %d was asked for %d times, want once", n, times[n])
		}
		delete(times, n)
	}
	if len(times) > 0 {
		t.Errorf("these blocks were asked for, too: %v", times)
	}
}

// lookups is how often a server was asked for a profile.
func lookups(srv *testserver.Server) (n int) {
	for _, r := range srv.Stats().Ranges {
		if strings.HasSuffix(r.Name, ".profile") {
			n++
		}
	}
	return n
}

// traced is an image whose first 8 KiB, which come when it is opened, are no blocks of
// sessions.
func traced(t *testing.T) *synthetic {
	t.Helper()
	return makeImage(t, 64*kib, append([]int{10 * kib}, blocks(199, 20*kib)...)...)
}

// What a session has used comes by itself the next time, each block once, and the same
// session then asks for nothing more.
func TestReplay(t *testing.T) {
	s := traced(t)
	srv, url := serve(t, s.image)
	path := record(t, s, url, someBlocks)
	if shown := must(t, cloopfs, "profile", "show", path); !strings.Contains(shown, "11 blocks in ") {
		t.Errorf("the profile is\n%s", shown)
	}
	srv.AddBytes("disk.cloop.profile", readAll(t, path))
	for name, from := range map[string]string{"file": path, "URL": url + ".profile", "auto": "auto"} {
		t.Run(name, func(t *testing.T) {
			_, flags := newCache(t, "--profile", from)
			srv.Reset()
			dir := mount(t, url, flags...)
			waitFor(t, "all of it comes", func() bool { return len(s.fetched(srv.Stats().Ranges)) >= len(someBlocks) })
			waitFor(t, "it is stored", func() bool { return statusOf(t, dir).Cache.Stored >= int64(len(someBlocks)) })
			already := srv.Stats()
			useBlocks(t, s, dir, someBlocks)
			if st := srv.Stats(); st.Requests != already.Requests {
				t.Errorf("the session has asked for %v", st.Ranges[already.Requests:])
			}
			s.checkFetched(t, already.Ranges, someBlocks)
			umount(t, dir)
		})
	}
}

func readAll(t *testing.T, path string) []byte {
	t.Helper()
	content, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return content
}

// While a session is replayed readers share what is under way.
func TestReplayUnderReaders(t *testing.T) {
	s := traced(t)
	srv, url := serve(t, s.image)
	path := record(t, s, url, someBlocks)
	srv.Set(func(c *testserver.Config) { c.RTT, c.Rate = 20*time.Millisecond, 2<<20 })
	srv.Reset()
	_, flags := newCache(t, "--profile", path)
	dir := mount(t, url, flags...)
	useBlocks(t, s, dir, someBlocks)
	umount(t, dir)
	s.checkFetched(t, srv.Stats().Ranges, someBlocks)
}

// Whether there is a profile beside an image is asked once a day.
func TestProfileAuto(t *testing.T) {
	s := traced(t)
	srv, url := serve(t, s.image)
	path := record(t, s, url, someBlocks)
	for _, there := range []bool{false, true} {
		cache, flags := newCache(t, "--profile", "auto")
		if there {
			srv.AddBytes("disk.cloop.profile", readAll(t, path))
		}
		srv.Reset()
		for again := range 3 {
			dir := mount(t, url, flags...)
			if again == 0 {
				waitFor(t, "it is asked for", func() bool { return lookups(srv) > 0 })
				waitFor(t, "the answer is kept", func() bool {
					kept, err := filepath.Glob(filepath.Join(cache, "*", "beside-????????????????"))
					return err == nil && len(kept) == 1
				})
			}
			useBlocks(t, s, dir, someBlocks[:3])
			umount(t, dir)
		}
		if n := lookups(srv); n != 1 {
			t.Errorf("there: %v; asked for %d times, want once", there, n)
		}
		kept, err := filepath.Glob(filepath.Join(cache, "*", "beside-*"))
		if err != nil || len(kept) != 1 {
			t.Fatalf("the cache has %q, %v", kept, err)
		}
		old := time.Now().Add(-25 * time.Hour)
		if err := os.Chtimes(kept[0], old, old); err != nil {
			t.Fatal(err)
		}
		dir := mount(t, url, flags...)
		waitFor(t, "it is asked for a day later", func() bool { return lookups(srv) == 2 })
		umount(t, dir)
	}
}

// A profile of another version of the image is said to be none, and nothing is fetched
// for it.
func TestStaleProfile(t *testing.T) {
	old, s := makeImage(t, 64*kib, blocks(200, 21*kib)...), traced(t)
	_, oldURL := serve(t, old.image)
	path := record(t, old, oldURL, someBlocks)
	srv, url := serve(t, s.image)
	srv.AddBytes("disk.cloop.profile", readAll(t, path))
	for _, from := range []string{path, "auto"} {
		log := filepath.Join(t.TempDir(), "log")
		_, flags := newCache(t, "--profile", from, "--log-file", log)
		srv.Reset()
		dir := mount(t, url, flags...)
		waitFor(t, "a word of it", func() bool {
			return strings.Contains(string(readAll(t, log)), "the profile is of another image")
		})
		useBlocks(t, s, dir, someBlocks[:2])
		umount(t, dir)
		s.checkFetched(t, srv.Stats().Ranges, someBlocks[:2])
		if n := strings.Count(string(readAll(t, log)), "another image"); n != 1 {
			t.Errorf("it is said %d times:\n%s", n, readAll(t, log))
		}
	}
}

// A recording is whole whenever its mount is killed, and may be the one that is
// replayed.
func TestRecordKilled(t *testing.T) {
	s := traced(t)
	_, url := serve(t, s.image)
	path := filepath.Join(t.TempDir(), "disk.profile")
	flags := []string{"--record", path, "--profile", path}
	shows := func(want string) func() bool {
		return func() bool {
			r := run(t, cloopfs, "profile", "show", path)
			return r.code == 0 && strings.Contains(r.stdout, want)
		}
	}
	dir := mount(t, url, flags...) // the first time there is none
	useBlocks(t, s, dir, someBlocks[:4])
	waitFor(t, "it is written while the disk is in use", shows("4 blocks in 4 runs"))
	useBlocks(t, s, dir, someBlocks[4:])
	killDaemon(t, dir)
	if !shows("4 blocks in 4 runs")() && !shows("11 blocks in ")() {
		t.Errorf("after a kill the recording is %v", run(t, cloopfs, "profile", "show", path))
	}
	must(t, "umount", "-l", dir)

	dir = mount(t, url, flags...)
	useBlocks(t, s, dir, someBlocks[:1])
	umount(t, dir)
	if !shows("1 blocks in 1 runs")() {
		t.Errorf("the second recording is %v", run(t, cloopfs, "profile", "show", path))
	}
	if left, err := os.ReadDir(filepath.Dir(path)); err != nil || len(left) != 1 {
		t.Errorf("beside the recording there are %v, %v", left, err)
	}
}

// After prefetch --profile a session needs no server, and other blocks are not there.
func TestPrefetchProfile(t *testing.T) {
	s := traced(t)
	srv, url := serve(t, s.image)
	path := record(t, s, url, someBlocks)
	_, flags := newCache(t)
	srv.Reset()
	must(t, cloopfs, slices.Concat([]string{"prefetch", "--profile", path}, flags, []string{url})...)
	s.checkFetched(t, srv.Stats().Ranges, someBlocks)
	srv.Close()
	dir := mount(t, url, append(flags, "--offline")...)
	useBlocks(t, s, dir, someBlocks)
	read := directRead(diskOf(dir), 50*s.blockSize, s.blockSize)
	if r := run(t, read[0], read[1:]...); r.code == 0 || !strings.Contains(r.stderr, "Input/output error") {
		t.Errorf("a block that the session has not used: %v, want an I/O error", r)
	}
	umount(t, dir)
}
