//go:build integration

package test

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// cacheFlags are the flags for a cache in dir.
func cacheFlags(dir, size string) []string {
	return []string{"--cache-dir", dir, "--cache-size", size, "--min-free", "0"}
}

// withCache is a command of the program with a cache in dir.
func withCache(dir string, args ...string) []string {
	return slices.Concat(args[:1], cacheFlags(dir, "1GiB"), args[1:])
}

// prefetched brings an image into the cache in dir.
func prefetched(t *testing.T, dir, url string) {
	t.Helper()
	must(t, cloopfs, withCache(dir, "prefetch", url)...)
}

// dataFile is the one file in a cache that holds an image's bytes.
func dataFile(t *testing.T, cache string) string {
	t.Helper()
	found, err := filepath.Glob(filepath.Join(cache, "*", "data"))
	if err != nil || len(found) != 1 {
		t.Fatalf("%s holds %q, %v; want one image", cache, found, err)
	}
	return found[0]
}

// A prefetch that is killed goes on where it was: what was stored is not asked
// for again, and little more than the file is sent.
func TestPrefetchKilled(t *testing.T) {
	const kills, lost = 5, 8 << 20
	s := makeImage(t, 64*kib, blocks(1200, 50*kib)...) // 60 MB
	srv, url := serve(t, s.image)
	srv.Set(func(c *testserver.Config) { c.RTT, c.Rate = 50*time.Millisecond, 40<<20 })
	cache := t.TempDir()
	killed := 0
	var again []func() // checks of what was asked for after each kill
	for range kills {
		p := start(t, cloopfs, withCache(cache, "prefetch", url)...)
		time.Sleep(100*time.Millisecond + rand.N(400*time.Millisecond))
		if p.running() {
			killed++
		}
		p.kill()
		if !p.endsWithin(limit) {
			t.Fatal("can't be killed")
		}
		stored := storedBlocks(t, s, cache)
		already := srv.Stats().Requests
		again = append(again, func() {
			for _, r := range srv.Stats().Ranges[already:] {
				if i, _ := slices.BinarySearch(stored, int(r.Off)); i < len(stored) && stored[i] < int(r.Off+r.Len) {
					t.Errorf("asked for %d bytes from %d on, though the block at %d was stored", r.Len, r.Off, stored[i])
				}
			}
		})
	}
	if killed < kills {
		t.Errorf("%d of %d were over before they were killed", kills-killed, kills)
	}
	prefetched(t, cache, url)
	for _, check := range again {
		check()
	}
	if sent, most := srv.Stats().Bytes, int64(len(s.image)+killed*lost); sent > most {
		t.Errorf("the server sent %d bytes for a file of %d and %d kills, want at most %d", sent, len(s.image), killed, most)
	} else {
		t.Logf("%d kills: %d bytes sent for a file of %d", killed, sent, len(s.image))
	}
	data, err := os.ReadFile(dataFile(t, cache))
	if err != nil || !bytes.Equal(data, s.image) {
		t.Errorf("data is another file than the image (%v)", err)
	}
	srv.Reset()
	prefetched(t, cache, url)
	if got := srv.Stats().Requests; got != 1 {
		t.Errorf("when all is there: %d requests, want 1", got)
	}
}

// storedBlocks is which blocks of a synthetic image are in a cache, as their
// offsets in the image.
func storedBlocks(t *testing.T, s *synthetic, cache string) []int {
	t.Helper()
	f, err := os.Open(dataFile(t, cache))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	table, err := os.ReadFile(filepath.Join(filepath.Dir(f.Name()), "blocks-0"))
	if err != nil {
		return nil // killed before the first block
	}
	table = append(table, make([]byte, len(s.disk)/s.blockSize*8-len(table))...)
	var stored []int
	for n := range len(s.disk) / s.blockSize {
		off, size := s.stored(n)
		got := make([]byte, size)
		if binary.LittleEndian.Uint64(table[8*n:]) == 0 {
			continue
		}
		if _, err := f.ReadAt(got, int64(off)); err == nil && bytes.Equal(got, s.image[off:off+size]) {
			stored = append(stored, off)
		}
	}
	return stored
}

// After prefetch the server may go.
func TestOffline(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(64, 30*kib)...)
	srv, url := serve(t, s.image)
	cache := t.TempDir()
	prefetched(t, cache, url)
	must(t, "cmp", dataFile(t, cache), writeTemp(t, s.image))
	srv.Close()
	dir := mount(t, url, append(cacheFlags(cache, "1GiB"), "--offline")...)
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
	if st := statusOf(t, dir); st.Fetched.Requests != 0 || !st.Offline {
		t.Errorf("while offline: %+v", st)
	}
	if status := must(t, cloopfs, "status", dir); !strings.Contains(status, "none is asked (offline)") {
		t.Errorf("status while offline:\n%s", status)
	}
	umount(t, dir)
}

// Offline, what is not there is an error at once, and the rest is not.
func TestOfflineInPart(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(64, 30*kib)...)
	_, url := serve(t, s.image)
	cache := t.TempDir()
	flags := cacheFlags(cache, "1GiB")
	dir := mount(t, url, flags...)
	must(t, directRead(diskOf(dir), 5*s.blockSize, s.blockSize)[0], directRead(diskOf(dir), 5*s.blockSize, s.blockSize)[1:]...)
	umount(t, dir)

	// For ever, if it waited at all.
	dir = mount(t, url, append(flags, "--offline", "--timeout", "0")...)
	read := directRead(diskOf(dir), 5*s.blockSize, s.blockSize)
	checkBytes(t, "block 5", must(t, read[0], read[1:]...), s.block(5))
	read = directRead(diskOf(dir), 40*s.blockSize, s.blockSize)
	if r := run(t, read[0], read[1:]...); r.code == 0 || !strings.Contains(r.stderr, "Input/output error") {
		t.Errorf("a block that is not there: %v, want an I/O error", r)
	}
	umount(t, dir)
}

// An image that was prefetched is whole however many others come.
func TestPrefetchedIsKept(t *testing.T) {
	kept := makeImage(t, 64*kib, blocks(100, 40*kib)...)
	srv, url := serve(t, kept.image)
	cache := t.TempDir()
	flags := cacheFlags(cache, "6MiB")
	must(t, cloopfs, slices.Concat([]string{"prefetch"}, flags, []string{url})...)
	srv.Close()
	for i := range 3 {
		other := makeImage(t, 64*kib, blocks(100+i, 40*kib)...)
		_, url := serve(t, other.image)
		dir := mount(t, url, flags...)
		checkBytes(t, "other disk", must(t, "cat", diskOf(dir)), other.disk)
		umount(t, dir)
	}
	dir := mount(t, url, append(flags, "--offline")...)
	checkBytes(t, "kept disk", must(t, "cat", diskOf(dir)), kept.disk)
	umount(t, dir)
}

// With --background-fill all of the image comes while nobody reads.
func TestBackgroundFill(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(200, 40*kib)...)
	srv, url := serve(t, s.image)
	cache := t.TempDir()
	flags := cacheFlags(cache, "1GiB")
	dir := mount(t, url, append(flags, "--background-fill")...)
	read := directRead(diskOf(dir), 150*s.blockSize, s.blockSize)
	checkBytes(t, "block 150", must(t, read[0], read[1:]...), s.block(150))
	waitFor(t, "the image is complete", func() bool {
		return strings.Contains(must(t, cloopfs, slices.Concat([]string{"cache", "list", "--json"}, flags)...), `"complete": true`)
	})
	if sent := srv.Stats().Bytes; sent > int64(len(s.image))+16*kib {
		t.Errorf("the server sent %d bytes for a file of %d", sent, len(s.image))
	}
	why := must(t, cloopfs, "status", "--why", dir)
	for _, cause := range []string{"demand: ", "fill: "} {
		if !strings.Contains(why, cause) {
			t.Errorf("status --why does not say %q:\n%s", cause, why)
		}
	}
	srv.Close()
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
	for _, c := range statusOf(t, dir).Causes { // those who read got it from the cache
		if c.Used != c.Bytes {
			t.Errorf("after all was read: %+v, want all of it used", c)
		}
	}
	umount(t, dir)
	must(t, "cmp", dataFile(t, cache), writeTemp(t, s.image))
}

// Filling ends when what comes can't be stored any more: the image was removed from
// the cache, and status says so.
func TestBackgroundFillOfRemoved(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(400, 50*kib)...) // 20 MB
	srv, url := serve(t, s.image)
	srv.Set(func(c *testserver.Config) { c.Rate = 4 << 20 })
	cache := t.TempDir()
	flags := cacheFlags(cache, "2GiB") // steps of 16 MiB
	log := filepath.Join(t.TempDir(), "log")
	dir := mount(t, url, append(flags, "--background-fill", "--log-file", log)...)
	waitFor(t, "something has arrived", func() bool { return srv.Stats().Bytes > 2<<20 })
	must(t, cloopfs, "cache", "remove", "--cache-dir", cache)
	waitFor(t, "filling ends", func() bool {
		text, err := os.ReadFile(log)
		return err == nil && strings.Contains(string(text), "no longer filling in the background") &&
			strings.Contains(string(text), "the image was removed from there")
	})
	if sent := srv.Stats().Bytes; sent > int64(len(s.image))*3/4 {
		t.Errorf("the server sent %d bytes of %d, though they could not be stored", sent, len(s.image))
	}
	if status := must(t, cloopfs, "status", dir); !strings.Contains(status, "removed; ") || strings.Contains(status, cache) {
		t.Errorf("status of an image that was removed:\n%s", status)
	}
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
	umount(t, dir)
}

// Who asks for filling hears why there is none.
func TestBackgroundFillWithoutValidator(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	srv, url := serve(t, s.image)
	srv.Set(func(c *testserver.Config) { c.NoETag, c.NoLastModified = true, true })
	dir := makeDir(t)
	r := run(t, cloopfs, append([]string{"mount", "--background-fill"}, append(cacheFlags(t.TempDir(), "1GiB"), url, dir)...)...)
	const want = "cloopfs: nothing is filled in the background: the server gives neither ETag nor Last-Modified\n" +
		"cloopfs: hint: --trust-size keeps it nevertheless\n"
	if r.code != 0 || r.stderr != want {
		t.Errorf("mount: %v, want success and %q", r, want)
	}
	umount(t, dir)
}

// On a terminal there is a bar with bytes, rate and time; elsewhere there are plain
// lines, and for programs objects.
func TestPrefetchProgress(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(200, 40*kib)...)
	srv, url := serve(t, s.image)
	srv.Set(func(c *testserver.Config) { c.Rate = 3 << 20 })
	r := startCmd(t, onTerminal(exec.Command(cloopfs, withCache(t.TempDir(), "prefetch", url)...))).result(t)
	for _, want := range []string{"disk.cloop: ", "MiB of 7.", "% |", "MiB/s, ", "s left"} {
		if r.code != 0 || !strings.Contains(r.stdout+r.stderr, want) {
			t.Errorf("on a terminal: %v, want success and a bar with %q", r, want)
		}
	}
	r = run(t, cloopfs, withCache(t.TempDir(), "prefetch", "--json", url)...)
	lines := strings.Split(strings.TrimSpace(r.stdout), "\n")
	for i, line := range lines {
		var p struct {
			Size, Done      int64
			Rate            int64
			Complete, Ended bool
		}
		if err := json.Unmarshal([]byte(line), &p); err != nil {
			t.Fatalf("%v: %q", err, line)
		}
		last := i == len(lines)-1
		if p.Rate > 6*mib || p.Ended && p.Rate == 0 { // it is 3 MiB/s at most
			t.Errorf("report %d of %d: %d bytes in a second", i+1, len(lines), p.Rate)
		}
		if p.Ended != last || p.Complete != last || p.Size != int64(len(s.image)) || last != (p.Done == p.Size) {
			t.Errorf("report %d of %d is %q", i+1, len(lines), line)
		}
	}
	if len(lines) < 2 {
		t.Errorf("%d reports, want some on the way: %q", len(lines), r.stdout)
	}
}

// writeTemp writes a file.
func writeTemp(t *testing.T, content []byte) string {
	t.Helper()
	name := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(name, content, 0o644); err != nil {
		t.Fatal(err)
	}
	return name
}

// A disk that others fill meanwhile ends a prefetch: it says so and why, and does
// not go on fetching.
func TestPrefetchOnFullDisk(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(400, 50*kib)...) // 20 MB
	srv, url := serve(t, s.image)
	srv.Set(func(c *testserver.Config) { c.Rate = 4 << 20 })
	disk := makeTmpfs(t, "32m")
	p := start(t, cloopfs, withCache(filepath.Join(disk, "cache"), "prefetch", url)...)
	waitFor(t, "something has arrived", func() bool { return srv.Stats().Bytes > 2<<20 })
	run(t, "sh", "-c", `head -c 32M /dev/zero >"$1/file"`, "sh", disk)
	r := p.result(t)
	if r.code != 1 || !strings.Contains(r.stderr, "what is fetched can't be stored") || !strings.Contains(r.stderr, "the cache is full") {
		t.Errorf("prefetch: %v, want exit status 1 and the reason", r)
	}
	if sent := srv.Stats().Bytes; sent > int64(len(s.image))*3/4 {
		t.Errorf("the server sent %d bytes of %d, though they could not be stored", sent, len(s.image))
	}
	must(t, "rm", filepath.Join(disk, "file"))
	prefetched(t, filepath.Join(disk, "cache"), url)
}
