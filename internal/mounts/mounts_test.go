package mounts

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"github.com/moby/sys/mountinfo"
)

func TestResolve(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	real := filepath.Join(dir, "real")
	err = errors.Join(
		os.MkdirAll(filepath.Join(real, "mnt"), 0o755),
		os.Symlink("real", filepath.Join(dir, "dirlink")),
		os.Symlink(filepath.Join(real, "mnt"), filepath.Join(dir, "abslink")),
		os.Symlink("real/mnt", filepath.Join(dir, "rellink")),
	)
	if err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
	want := filepath.Join(real, "mnt")
	for _, path := range []string{
		want, want + "/", real + "/./x/../mnt", "real/mnt", "dirlink/mnt", "abslink", "rellink",
	} {
		if got, err := Resolve(path); err != nil || got != want {
			t.Errorf("Resolve(%q) = %q, %v; want %q", path, got, err, want)
		}
	}
	// The last element need not exist: it is not looked at.
	if got, err := Resolve("real/gone"); err != nil || got != filepath.Join(real, "gone") {
		t.Errorf("Resolve(real/gone) = %q, %v", got, err)
	}
	if got, err := Resolve("/"); err != nil || got != "/" {
		t.Errorf("Resolve(/) = %q, %v", got, err)
	}
	if _, err := Resolve("gone/mnt"); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("Resolve(gone/mnt): %v, want ErrNotExist", err)
	}
}

func TestResolveLoopEnds(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := errors.Join(os.Symlink("b", "a"), os.Symlink("a", "b")); err != nil {
		t.Fatal(err)
	}
	if got, err := Resolve("a"); err == nil {
		t.Errorf("Resolve of a loop of links = %q, no error", got)
	}
}

func TestAtFindsNothingWhereNothingIsMounted(t *testing.T) {
	if m, found, err := At(t.TempDir()); found || err != nil {
		t.Errorf("At = %v, %v, %v", m, found, err)
	}
}

func TestUsersOfAPath(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	f, err := os.Create(filepath.Join(dir, "held"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	users := Mount{Point: dir}.Users()
	if len(users) != 1 || users[0].Path != f.Name() {
		t.Errorf("Users() = %v, want this process with %s", users, f.Name())
	}
	if users := (Mount{Point: dir + "/hel"}).Users(); len(users) != 0 {
		t.Errorf("Users() of a name that only starts alike = %v", users)
	}
}

func TestDescribe(t *testing.T) {
	tests := []struct {
		options string
		owner   int
	}{
		{"rw,user_id=0,group_id=0,default_permissions", 0},
		{"rw,user_id=1000,group_id=100,default_permissions,allow_other", 1000},
		{"rw,group_id=1000,user_id=65534", 65534},
		{"rw", 0},
	}
	for _, test := range tests {
		info := &mountinfo.Info{ID: 7, Mountpoint: "/media/image", Major: 0, Minor: 42, FSType: FSType, VFSOptions: test.options}
		want := Mount{Point: "/media/image", Device: 42, Owner: test.owner, id: 7}
		if got := describe(info); got != want {
			t.Errorf("describe of a mount with %s = %+v, want %+v", test.options, got, want)
		}
	}
}
