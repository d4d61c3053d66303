//go:build integration

package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// What a server gives nothing to recognize by is kept if the user says so, and
// then for each user of the server apart.
func TestTrustedSize(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(32, 20*kib)...)
	srv, url := serve(t, s.image)
	srv.Set(func(c *testserver.Config) { c.NoETag, c.NoLastModified = true, true })
	as := func(user string) string { return strings.Replace(url, "http://", "http://"+user+"@", 1) }
	cache, flags := newCache(t)
	trusting := slices.Concat(flags, []string{"--trust-size"})
	steps := []struct {
		name, url string
		flags     []string
		cached    bool
		entries   int
	}{
		{"not trusted", url, flags, false, 0},
		{"not trusted again", url, flags, false, 0},
		{"trusted", url, trusting, false, 1},
		{"trusted again", url, trusting, true, 1},
		{"no longer trusted", url, flags, false, 1},
		{"another user", as("a:1"), trusting, false, 2},
		{"another user again", as("a:1"), trusting, true, 2},
		{"another password", as("a:2"), trusting, false, 3},
		{"a header", url, append(trusting, "--header", "X-Token: 1"), false, 4},
		{"a query", url + "?token=1", trusting, false, 5},
		{"the first again", url, trusting, true, 5},
	}
	dir := makeDir(t)
	for _, step := range steps {
		srv.Reset()
		mountAt(t, step.url, dir, step.flags...)
		checkBytes(t, step.name, must(t, "cat", diskOf(dir)), s.disk)
		umount(t, dir)
		if st := srv.Stats(); st.Requests == 1 != step.cached {
			t.Errorf("%s: %d requests; is it cached? want %v", step.name, st.Requests, step.cached)
		}
		if n := len(entries(t, cache)); n != step.entries {
			t.Errorf("%s: the cache has %d entries, want %d", step.name, n, step.entries)
		}
	}
	if r := run(t, "grep", "--recursive", "--binary-files=text", "-e", "token=", "-e", "a:1", "-e", "X-Token", cache); r.code != 1 {
		t.Errorf("secrets in the cache: %v", r)
	}
}

// With something to recognize an image by, it is the same whoever asks for it; and
// wherever, with a key.
func TestCacheKey(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(32, 20*kib)...)
	srv, url := serve(t, s.image)
	srv.AddBytes("other.cloop", s.image)
	cache, flags := newCache(t)
	keyed := slices.Concat(flags, []string{"--cache-key", "the image"})
	steps := []struct {
		name, url string
		flags     []string
		cached    bool
	}{
		{"first", url, flags, false},
		{"user and query", secretURL(url), flags, true},
		{"host in capitals", strings.Replace(url, "http:", "HTTP:", 1), flags, true},
		{"other URL", srv.URL("other.cloop"), flags, false},
		{"key", url, keyed, false},
		{"key, other URL", srv.URL("other.cloop"), keyed, true},
	}
	dir := makeDir(t)
	for _, step := range steps {
		srv.Reset()
		mountAt(t, step.url, dir, step.flags...)
		checkBytes(t, step.name, must(t, "cat", diskOf(dir)), s.disk)
		umount(t, dir)
		if st := srv.Stats(); st.Requests == 1 != step.cached {
			t.Errorf("%s: %d requests; is it cached? want %v", step.name, st.Requests, step.cached)
		}
	}
	if r := run(t, "grep", "--recursive", "--binary-files=text", "geheim", cache); r.code != 1 {
		t.Errorf("secrets in the cache: %v", r)
	}
}

// An image inside an ISO file is kept like any other, and what was read of the ISO
// file as a disk serves the image inside.
func TestCacheInsideISO(t *testing.T) {
	d := needDisc(t)
	srv, _ := serve(t, nil)
	if err := srv.AddFile("k.iso", d.iso); err != nil {
		t.Fatal(err)
	}
	url := srv.URL("k.iso")
	inside := url + "#KNOPPIX/KNOPPIX"
	dir := makeDir(t)
	read := func(t *testing.T, source, disk string, flags []string) testserver.Stats {
		t.Helper()
		srv.Reset()
		mountAt(t, source, dir, flags...)
		must(t, "cmp", diskOf(dir), disk)
		umount(t, dir)
		return srv.Stats()
	}
	t.Run("twice", func(t *testing.T) {
		_, flags := newCache(t)
		if st := read(t, inside, d.raw, flags); st.Bytes < sizeOf(t, d.inner) {
			t.Errorf("%d bytes were sent, want all of the image", st.Bytes)
		}
		for range 2 {
			if st := read(t, inside, d.raw, flags); st.Requests != 1 {
				t.Errorf("the requests are %v, want one", st.Ranges)
			}
		}
	})
	t.Run("the whole first", func(t *testing.T) {
		cache, flags := newCache(t)
		read(t, url, d.iso, flags)
		for _, source := range []string{inside, url, inside} {
			disk := d.raw
			if source == url {
				disk = d.iso
			}
			if st := read(t, source, disk, flags); st.Requests != 1 {
				t.Errorf("%s: the requests are %v, want one", source, st.Ranges)
			}
		}
		must(t, "cmp", filepath.Join(oneEntry(t, cache), "data"), d.iso)
	})
	t.Run("the inside first", func(t *testing.T) {
		_, flags := newCache(t)
		read(t, inside, d.raw, flags)
		read(t, url, d.iso, flags)
		for source, disk := range map[string]string{inside: d.raw, url: d.iso} {
			if st := read(t, source, disk, flags); st.Requests != 1 {
				t.Errorf("%s: the requests are %v, want one", source, st.Ranges)
			}
		}
	})
}

// A user without rights has a cache at home, for nobody else.
func TestUserCache(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	srv, url := serve(t, s.image)
	dir := userDir(t)
	home := filepath.Join(filepath.Dir(dir), "home")
	must(t, "install", "-d", "-o", "nobody", "-g", "nogroup", home)
	t.Cleanup(func() { _ = os.RemoveAll(home) })
	tests := []struct{ variable, value, cache string }{
		{"XDG_CACHE_HOME", home + "/xdg", home + "/xdg/cloopfs"},
		{"HOME", home, home + "/.cache/cloopfs"},
	}
	for _, test := range tests {
		t.Run(test.variable, func(t *testing.T) {
			for again := range 2 {
				srv.Reset()
				cmd := asNobody(cloopfs, "mount", "--profile", "none", "--speculate", "off", "--cache-size", "1GiB", "--min-free", "0", url, dir)
				cmd.Env = append(cmd.Env, test.variable+"="+test.value)
				if r := startCmd(t, cmd).result(t); r.code != 0 || r.stderr != "" {
					t.Fatalf("mount: %v, want success without a word", r)
				}
				checkBytes(t, "disk", asUser(t, "cat", diskOf(dir)).stdout, s.disk)
				if st := srv.Stats(); again > 0 && st.Requests != 1 {
					t.Errorf("mounted again: %d requests, want one", st.Requests)
				}
				if r := asUser(t, cloopfs, "umount", dir); r.code != 0 {
					t.Errorf("umount: %v", r)
				}
			}
			if got := must(t, "stat", "--format=%a %U", test.cache); got != "700 nobody\n" {
				t.Errorf("%s: %q, want the user's alone", test.cache, got)
			}
			if got := must(t, "find", test.cache, "-perm", "/077", "-o", "-not", "-user", "nobody"); got != "" {
				t.Errorf("others may use %q, want nothing", got)
			}
		})
	}
	t.Run("no home", func(t *testing.T) {
		checkWarned(t, asUser(t, cloopfs, "mount", "--cache-size", "1GiB", url, dir), "HOME")
		asUser(t, cloopfs, "umount", dir)
	})
	t.Run("relative", func(t *testing.T) {
		cmd := asNobody(cloopfs, "mount", "--cache-size", "1GiB", url, dir)
		cmd.Env = append(cmd.Env, "HOME="+home, "XDG_CACHE_HOME=xdg")
		checkWarned(t, startCmd(t, cmd).result(t), "$XDG_CACHE_HOME is no absolute path")
		asUser(t, cloopfs, "umount", dir)
	})
	t.Run("of root", func(t *testing.T) {
		cache := filepath.Join(home, "root")
		must(t, "mkdir", "--mode=755", cache)
		r := asUser(t, cloopfs, "mount", "--cache-size", "1GiB", "--cache-dir", cache, url, dir)
		checkWarned(t, r, "it belongs to user 0")
		asUser(t, cloopfs, "umount", dir)
	})
}
