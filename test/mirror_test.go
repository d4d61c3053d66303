//go:build integration

package test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// awaitServer waits until a mount's server of a number is in a state, and returns what is
// said of it.
func awaitServer(t *testing.T, dir string, n int, state string) serverStatus {
	t.Helper()
	var now serverStatus
	waitFor(t, "server is "+state, func() bool {
		now = parseStatus(t, must(t, cloopfs, "status", "--json", dir))[0].Servers[n]
		return now.State == state
	})
	return now
}

// A mirror takes over when the server of SOURCE hangs, and readers hardly notice. When
// it is well it is used again, without a word of anybody.
func TestMirrorTakesOver(t *testing.T) {
	const slack = 3 * time.Second
	for _, h := range hangs {
		t.Run(h.name, func(t *testing.T) {
			t.Parallel()
			s := makeImage(t, 64*kib, blocks(64, 20*kib)...)
			srv, url := serve(t, s.image)
			other, mirror := serve(t, s.image)
			dir := mount(t, url, "--timeout", "20s", "--mirror", mirror)
			awaitServer(t, dir, 1, "ok")
			other.Set(func(c *testserver.Config) { c.RTT = 200 * time.Millisecond }) // so that the other one is the better
			for n := range 8 {
				args := directRead(diskOf(dir), (4*n+1)*64*kib, pageSize)
				must(t, args[0], args[1:]...)
			}
			other.Reset()
			hang(t, srv, h.kind)
			for n := range 16 {
				args := directRead(diskOf(dir), 4*n*64*kib, pageSize)
				p := start(t, args[0], args[1:]...)
				if !p.endsWithin(slack) {
					t.Fatalf("still there after %v: %s", slack, p.name)
				}
				checkBytes(t, p.name, p.result(t).stdout, s.block(4 * n)[:pageSize])
			}
			if now := awaitServer(t, dir, 1, "ok"); now.AnswerTime < 0.2 || now.AnswerTime > 5 {
				t.Errorf("the mirror is said to answer in %v s", now.AnswerTime)
			}
			if n := other.Stats().Requests; n < 15 {
				t.Errorf("the mirror had %d requests, want most of 16", n)
			}
			awaitServer(t, dir, 0, "left")
			unhang(srv)
			awaitServer(t, dir, 0, "ok")
			umount(t, dir)
		})
	}
}

// A server that flips a bit of a block is found out by the block's own checksum: the
// readers get the right bytes from another, and it is not asked again.
func TestMirrorAndBadServer(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(1000, 2*kib)...)
	bad := bytes.Clone(s.image)
	off, size := s.stored(500)
	bad[off+size/2] ^= 1
	_, url := serve(t, bad)
	other, mirror := serve(t, s.image)
	log := filepath.Join(t.TempDir(), "log")
	dir := mount(t, url, "--mirror", mirror, "--log-file", log)
	awaitServer(t, dir, 1, "ok")
	other.Set(func(c *testserver.Config) { c.RTT = 50 * time.Millisecond }) // so that the bad one is the better
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
	now := awaitServer(t, dir, 0, "banned")
	if !strings.Contains(now.LastError, "wrong bytes") {
		t.Errorf("the server is %+v", now)
	}
	text, err := os.ReadFile(log)
	if err != nil || !strings.Contains(string(text), "it has sent wrong bytes") || !strings.Contains(string(text), url) {
		t.Errorf("log: %v\n%s", err, text)
	}
	umount(t, dir)
}

// Blocks that have no checksum of their own are proven by the manifest: a server that flips
// a bit in one of many is found out, too.
func TestMirrorAndBadServerWithManifest(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(200, 2*kib)...)
	dir := t.TempDir()
	disk, image := filepath.Join(dir, "disk"), filepath.Join(dir, "image")
	if err := os.WriteFile(disk, s.disk, 0o600); err != nil {
		t.Fatal(err)
	}
	must(t, cloopfs, "create", "--codec", "none", disk, image)
	var err error
	if s.image, err = os.ReadFile(image); err != nil {
		t.Fatal(err)
	}
	srv, url, flags := signedImage(t, s)
	bad := bytes.Clone(s.image)
	bad[bytes.Index(bad, s.block(100)[:kib])+100] ^= 1
	srv.AddBytes("disk.cloop", bad)
	other, mirror := serve(t, s.image)
	mnt := mount(t, url, append(flags, "--mirror", mirror)...)
	awaitServer(t, mnt, 1, "ok")
	other.Set(func(c *testserver.Config) { c.RTT = 50 * time.Millisecond }) // so that the bad one is the better
	checkBytes(t, "disk", must(t, "cat", diskOf(mnt)), s.disk)
	awaitServer(t, mnt, 0, "banned")
	umount(t, mnt)
}

// Where SOURCE does not answer a mirror opens the image; all of them share one place in
// the cache.
func TestMirrorsShareTheCache(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(32, 20*kib)...)
	a, urlA := serve(t, s.image)
	b, urlB := serve(t, s.image)
	b.Set(func(c *testserver.Config) { c.ETag = `"b"` })
	cache, flags := newCache(t)
	flags = append(flags, "--timeout", "10s", "--mirror", urlB)
	dir := makeDir(t)
	refuse := func(srv *testserver.Server, yes bool) {
		srv.Set(func(c *testserver.Config) {
			c.Reset = 0
			if yes {
				c.Reset = -1
			}
		})
	}
	mountAt(t, urlA, dir, flags...)
	awaitServer(t, dir, 1, "ok")
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
	umount(t, dir)

	refuse(a, true)
	b.Reset()
	mountAt(t, urlA, dir, flags...)
	checkBytes(t, "disk by the mirror", must(t, "cat", diskOf(dir)), s.disk)
	umount(t, dir)
	if st := b.Stats(); st.Bytes > 100*kib {
		t.Errorf("%d bytes from the mirror of what is in the cache: %v", st.Bytes, st.Ranges)
	}
	if n := len(entries(t, cache)); n != 1 {
		t.Errorf("the cache has %d entries, want 1", n)
	}

	// What was never compared with SOURCE is not taken for it.
	_, flags = newCache(t)
	flags = append(flags, "--timeout", "10s")
	mountAt(t, urlA, dir, append(flags, "--mirror", urlB)...)
	checkBytes(t, "disk by the mirror", must(t, "cat", diskOf(dir)), s.disk)
	umount(t, dir)
	checkFailure(t, run(t, cloopfs, append([]string{"verify", "--offline", urlA}, flags...)...), 4, "not cached (offline)")
	must(t, cloopfs, append([]string{"verify", "--offline", urlB}, flags...)...)
}
