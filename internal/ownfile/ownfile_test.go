package ownfile_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/ownfile"
)

// opened opens the directory or file at path until the test ends.
func opened(t *testing.T, path string) *os.File {
	t.Helper()
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	return f
}

func TestOpenAt(t *testing.T) {
	path := t.TempDir()
	at := func(name string) string { return filepath.Join(path, name) }
	if err := errors.Join(
		os.WriteFile(at("file"), nil, 0o600),
		os.Mkdir(at("directory"), 0o700),
		os.Symlink("file", at("link")),
		os.Symlink("nowhere", at("dangling")),
		os.Symlink("directory", at("link to a directory")),
		unix.Mkfifo(at("pipe"), 0o600),
	); err != nil {
		t.Fatal(err)
	}
	dir := opened(t, path)
	defer unix.Umask(unix.Umask(0))
	for _, c := range []struct {
		name  string
		flags int
		want  error
	}{
		{"file", unix.O_RDWR, nil},
		{"new", unix.O_RDWR | unix.O_CREAT, nil},
		{"missing", unix.O_RDWR, fs.ErrNotExist},
		{"directory", unix.O_RDONLY | unix.O_DIRECTORY, nil},
		{".", unix.O_RDONLY | unix.O_DIRECTORY, nil},
		{"file", unix.O_RDONLY | unix.O_DIRECTORY, unix.ENOTDIR},
		{"link", unix.O_RDONLY, unix.ELOOP},
		{"dangling", unix.O_RDWR | unix.O_CREAT, unix.ELOOP},
		{"link to a directory", unix.O_RDONLY, unix.ELOOP},
		{"link to a directory", unix.O_RDONLY | unix.O_DIRECTORY, unix.ENOTDIR},
		{"pipe", unix.O_RDONLY, nil},
		{"pipe", unix.O_WRONLY, unix.ENXIO},
	} {
		hangs := time.AfterFunc(10*time.Second, func() { panic(c.name + " hangs") })
		f, err := ownfile.OpenAt(dir, c.name, c.flags)
		hangs.Stop()
		if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.name) {
			t.Errorf("OpenAt(%s, %#x): %v, want %v", c.name, c.flags, err, c.want)
		}
		if err != nil {
			continue
		}
		if flags, err := unix.FcntlInt(f.Fd(), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("%s would be inherited by other programs: %#x, %v", c.name, flags, err)
		}
		f.Close()
	}
	if _, err := os.Lstat(at("nowhere")); err == nil {
		t.Error("a file was made where a link leads")
	}
	if info, err := os.Lstat(at("new")); err != nil || info.Mode() != 0o600 {
		t.Errorf("a new file has mode %v, %v", info.Mode(), err)
	}
}

func TestNames(t *testing.T) {
	path := t.TempDir()
	dir := opened(t, path)
	for range 2 { // from the start each time
		if names, err := ownfile.Names(dir); len(names) != 0 || err != nil {
			t.Errorf("in an empty directory: %q, %v", names, err)
		}
	}
	if err := errors.Join(os.Mkdir(filepath.Join(path, "b"), 0o700), os.WriteFile(filepath.Join(path, "a"), nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	for range 2 {
		names, err := ownfile.Names(dir)
		if slices.Sort(names); !slices.Equal(names, []string{"a", "b"}) || err != nil {
			t.Errorf("%q, %v; want a and b", names, err)
		}
	}
	if names, err := ownfile.Names(opened(t, filepath.Join(path, "a"))); !errors.Is(err, unix.ENOTDIR) {
		t.Errorf("in a file: %q, %v", names, err)
	}
}

func TestCheck(t *testing.T) {
	errUnsafe := errors.New("unsafe")
	type test struct {
		mode fs.FileMode
		uid  int
		want string // in the error
	}
	cases := []test{
		{0o700, -1, ""},
		{0o755, -1, ""},
		{0o720, -1, "0720"},
		{0o702, -1, "0702"},
		{0o777 | fs.ModeSticky, -1, "1777"},
	}
	if os.Geteuid() == 0 {
		cases = append(cases, test{0o700, 12345, "user 12345"})
	} else if err := ownfile.Check(opened(t, "/"), errUnsafe); !errors.Is(err, errUnsafe) { // who can't give one away has this one
		t.Errorf("root's directory: %v", err)
	}
	for _, c := range cases {
		dir := t.TempDir()
		file := filepath.Join(dir, "file")
		if err := os.WriteFile(file, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		for _, path := range []string{file, dir} {
			f := opened(t, path)
			if err := errors.Join(os.Chmod(path, c.mode), os.Chown(path, c.uid, -1)); err != nil {
				t.Fatal(err)
			}
			err := ownfile.Check(f, errUnsafe)
			if c.want == "" && err != nil || c.want != "" && (!errors.Is(err, errUnsafe) || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("mode %v, user %d: %v, want %q", c.mode, c.uid, err, c.want)
			}
		}
	}
	closed := opened(t, t.TempDir())
	closed.Close()
	if err := ownfile.Check(closed, errUnsafe); err == nil || errors.Is(err, errUnsafe) {
		t.Errorf("a closed file: %v", err)
	}
}

func TestIsAt(t *testing.T) {
	path := t.TempDir()
	dir, name := opened(t, path), filepath.Join(path, "name")
	if err := os.WriteFile(name, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f := opened(t, name)
	is := func(want bool) {
		t.Helper()
		if got, err := ownfile.IsAt(dir, "name", f); got != want || err != nil {
			t.Errorf("it is there: %v, %v; want %v", got, err, want)
		}
	}
	is(true)
	if err := os.Rename(name, name+".old"); err != nil {
		t.Fatal(err)
	}
	is(false)
	if err := os.Symlink("name.old", name); err != nil {
		t.Fatal(err)
	}
	is(false)
	if err := errors.Join(os.Remove(name), os.WriteFile(name, nil, 0o600)); err != nil {
		t.Fatal(err)
	}
	is(false)
	if err := os.Rename(name+".old", name); err != nil {
		t.Fatal(err)
	}
	is(true)
	if here, err := ownfile.IsAt(f, "name", f); err == nil {
		t.Errorf("in a file: %v, and no error", here)
	}
	f.Close()
	if here, err := ownfile.IsAt(dir, "name", f); err == nil {
		t.Errorf("a closed file: %v, and no error", here)
	}
}
