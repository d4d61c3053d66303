//go:build integration

package test

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// makeTmpfs mounts a tmpfs of some size, until the test's end.
func makeTmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "tmpfs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	must(t, "mount", "-t", "tmpfs", "-o", "size="+size, "tmpfs", dir)
	t.Cleanup(func() {
		if !try("umount", dir) {
			t.Errorf("cleaning up: %s can't be unmounted", dir)
			try("umount", "--lazy", dir)
		}
	})
	return dir
}

// readDirect compares the disk with what it should be, past the page cache.
func readDirect(t *testing.T, dir, disk string) {
	t.Helper()
	must(t, "sh", "-c", `dd if="$1" iflag=direct bs=1M status=none | cmp - "$2"`, "sh", diskOf(dir), disk)
}

// A disk that is full costs speed, and one warning. What the cache has itself on
// it makes room for more.
func TestCacheOnFullDisk(t *testing.T) {
	tests := []struct {
		name  string
		fill  string // before the mount; $1 is the disk
		later string // when half was read
		full  bool   // there is no room that the cache could make
	}{
		{"full of the cache", "true", "true", false},
		{"full from the start", `head -c 64M /dev/zero >"$1/file" || true`, "true", true},
		{"a little room", `rm -rf "$1"/*; head -c "$((63 * 1048576 + 500000))" /dev/zero >"$1/file"`, "true", false},
		{"filled by others", `rm -rf "$1"/*`, `head -c 64M /dev/zero >"$1/file" || true`, false},
		{"room again", `rm "$1/file"`, "true", false},
	}
	for _, l := range needLarge(t) {
		disk := makeTmpfs(t, "64m")
		for _, test := range tests {
			t.Run(l.name+", "+test.name, func(t *testing.T) {
				run(t, "sh", "-c", test.fill, "sh", disk)
				_, url := serve(t, l.image)
				log := filepath.Join(t.TempDir(), "log")
				flags := slices.Concat(cacheFlags(filepath.Join(disk, "cache"), "2GiB"), l.flags, []string{"--log-file", log})
				dir := mount(t, url, flags...)
				must(t, "cmp", "--bytes=64M", diskOf(dir), l.disk)
				run(t, "sh", "-c", test.later, "sh", disk)
				readDirect(t, dir, l.disk)
				umount(t, dir)
				text, err := os.ReadFile(log)
				if err != nil {
					t.Fatal(err)
				}
				n := strings.Count(string(text), "level=WARN")
				if n > 1 || test.full && n == 0 || strings.Contains(string(text), "level=ERROR") {
					t.Errorf("the log has %d warnings, want one at most, and one if nothing could be kept: %s", n, text)
				}
			})
		}
	}
}

// Whatever happens to the cache's files under a mount, reads go on and are right.
func TestCacheDamagedUnderMount(t *testing.T) {
	const onEach = `find "$1" -type f | while read -r file; do `
	tests := []struct {
		name, script string // $1 is the cache directory
	}{
		{"tables cut off", `truncate --size=0 "$1"/*/chunks "$1"/*/used; for f in "$1"/*/blocks-*; do test ! -e "$f" || truncate --size=0 "$f"; done`},
		{"tables cut off in an entry", `truncate --size=1001 "$1"/*/chunks; for f in "$1"/*/blocks-*; do test ! -e "$f" || truncate --size=1001 "$f"; done`},
		{"tables of noise", `for f in "$1"/*/chunks "$1"/*/blocks-*; do test ! -e "$f" || head -c "$(stat -c %s "$f")" /dev/urandom | dd of="$f" conv=notrunc status=none; done`},
		{"data cut off", `truncate --size=0 "$1"/*/data`},
		{"all cut off", onEach + `truncate --size=0 "$file"; done`},
		{"all longer", onEach + `truncate --size=1G "$file"; done`},
		{"removed", `rm -rf "$1"`},
		{"entry removed", `rm -rf "$1"/*/`},
		{"another in its place", `mv "$1" "$1.old"; mkdir "$1"`},
	}
	for _, l := range makeLarge(t, filepath.Join(t.TempDir(), "disk"), 256) {
		for _, test := range tests {
			t.Run(l.name+", "+test.name, func(t *testing.T) {
				srv, url := serve(t, l.image)
				cache, flags := newCache(t, append(l.flags, "--memory", "1MiB")...)
				dir := mount(t, url, flags...)
				must(t, "sh", "-c", `head -c 5M "$1" | cmp --bytes=5M - "$2"`, "sh", diskOf(dir), l.disk)

				must(t, "sh", "-e", "-c", test.script, "sh", cache)
				for range 2 {
					readDirect(t, dir, l.disk)
				}
				umount(t, dir)
				// The next mount finds, or makes, what it can use.
				mountAt(t, url, dir, flags...)
				readDirect(t, dir, l.disk)
				umount(t, dir)
				srv.Reset()
				mountAt(t, url, dir, flags...)
				readDirect(t, dir, l.disk)
				if st := srv.Stats(); st.Requests != 1 {
					t.Errorf("the last mount cost %d requests, want one", st.Requests)
				}
				umount(t, dir)
			})
		}
	}
}

// What was stored is of use where nothing can be stored any more.
func TestReadOnlyCache(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(64, 20*kib)...)
	srv, url := serve(t, s.image)
	disk := makeTmpfs(t, "64m")
	flags := cacheFlags(filepath.Join(disk, "cache"), "2GiB")
	dir := mount(t, url, flags...)
	const half = 32 * 64 * kib
	must(t, "dd", "if="+diskOf(dir), "of=/dev/null", "bs=64K", "count=32", "iflag=direct", "status=none")
	umount(t, dir)
	must(t, "mount", "-o", "remount,ro", disk)

	for range 2 {
		srv.Reset()
		mountAt(t, url, dir, flags...)
		args := directRead(diskOf(dir), 0, half)
		checkBytes(t, "stored", must(t, args[0], args[1:]...), s.disk[:half])
		if st := srv.Stats(); st.Requests != 1 {
			t.Errorf("what is stored cost the requests %v, want one", st.Ranges)
		}
		checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
		umount(t, dir)
	}

	// Nor does a directory that can't be made keep anybody from reading.
	r := run(t, cloopfs, append([]string{"mount"}, append(cacheFlags(filepath.Join(disk, "other"), "2GiB"), url, dir)...)...)
	checkWarned(t, r, "read-only file system")
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
	umount(t, dir)
}

// checkWarned checks that a mount has succeeded with one line about the cache that
// has want in it.
func checkWarned(t *testing.T, r result, want string) {
	t.Helper()
	const prefix = "cloopfs: nothing is kept in the cache: "
	if r.code != 0 || !strings.HasPrefix(r.stderr, prefix) || strings.Count(r.stderr, "\n") != 1 || !strings.Contains(r.stderr, want) {
		t.Errorf("mount: %v, want success and the line %q with %q in it", r, prefix, want)
	}
}

// A cache directory that can't be used, or not be believed, is said and left
// alone. The mount works.
func TestUnusableCache(t *testing.T) {
	tests := []struct{ name, script, want string }{ // $1 is the cache directory
		{"a file", `echo hello >"$1"`, "not a directory"},
		{"below a file", `echo hello >"${1%/*}"`, "not a directory"},
		{"a link", `mkdir "$1.other"; ln -s "$1.other" "$1"`, "not a directory (links are not followed)"},
		{"for all", `mkdir "$1"; chmod 777 "$1"`, "its mode is 0777"},
		{"for a group", `mkdir "$1"; chmod 770 "$1"`, "its mode is 0770"},
		{"of another user", `mkdir "$1"; chown nobody "$1"`, "it belongs to user 65534"},
		{"on a file system without room for names", `mkdir "$1"; mount -t sysfs none "$1"`, ""},
	}
	s := makeImage(t, 64*kib, blocks(16, 20*kib)...)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			srv, url := serve(t, s.image)
			parent := filepath.Join(t.TempDir(), "parent")
			if test.name != "below a file" {
				must(t, "mkdir", parent)
			}
			cache := filepath.Join(parent, "cache")
			must(t, "sh", "-e", "-c", test.script, "sh", cache)
			if mounted(cache) {
				t.Cleanup(func() { try("umount", cache) })
			}
			before := run(t, "find", parent, "-maxdepth", "2", "-printf", "%p %s %m %U %T@\n").stdout
			dir := makeDir(t)
			for range 2 {
				srv.Reset()
				checkWarned(t, run(t, cloopfs, append([]string{"mount"}, append(cacheFlags(cache, "2GiB"), url, dir)...)...), test.want)
				checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
				if st := srv.Stats(); st.Requests < 2 {
					t.Errorf("the requests are %v, want some for what can't have been kept", st.Ranges)
				}
				umount(t, dir)
			}
			if after := run(t, "find", parent, "-maxdepth", "2", "-printf", "%p %s %m %U %T@\n").stdout; after != before {
				t.Errorf("the directory was %q and is %q", before, after)
			}
		})
	}
}
