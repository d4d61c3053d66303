package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// What was used last comes first, by the later of two times. Of several places with one
// validator it is there once; what stands for a server that gave none is not.
func TestListOrder(t *testing.T) {
	d := newDir(t, roomy)
	for name, minutes := range map[string][2]int{"a": {10, 0}, "b": {1, 30}, "c": {20, 5}} {
		id := image(name, 1000)
		e := openEntry(t, d, id)
		for _, other := range []Identity{{Key: "mirror of " + name, Validator: id.Validator, Size: id.Size}, {Key: "bare", Validator: Trusted + name, Size: id.Size}} {
			if err := e.Saw(other); err != nil {
				t.Fatal(err)
			}
		}
		e.Close()
		for i, file := range []string{inUseName, usedName} {
			at := someTime.Add(time.Duration(minutes[i]) * time.Minute)
			if err := os.Chtimes(filepath.Join(filepath.Dir(e.Path()), file), at, at); err != nil {
				t.Fatal(err)
			}
		}
	}
	list, _, err := d.List()
	if err != nil {
		t.Fatal(err)
	}
	type row struct {
		Key        string
		Used       time.Duration
		Validators []string
	}
	var got []row
	for _, s := range list {
		got = append(got, row{s.Keys[0], s.Used.Sub(someTime), s.Validators})
	}
	same := []string{`"1"`}
	want := []row{{image("b", 0).Key, 30 * time.Minute, same}, {image("c", 0).Key, 20 * time.Minute, same}, {image("a", 0).Key, 10 * time.Minute, same}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("List (-want +got):\n%s", diff)
	}
}

// Who only looks at a cache takes no other directory for one.
func TestExisting(t *testing.T) {
	for _, tt := range []struct {
		names []string
		want  error
	}{
		{nil, nil},
		{[]string{"lost+found"}, nil},
		{[]string{"letters"}, ErrNoCache},
		{[]string{"letters", "lost+found"}, ErrNoCache},
		{[]string{"letters", lockName}, nil},
		{[]string{"letters", boundsName}, nil},
		{[]string{"letters", seenPrefix + "x"}, nil},
		{[]string{"letters", newPrefix + "x"}, nil},
		{[]string{"letters", image("a", 1000).name()}, nil},
	} {
		dir := t.TempDir()
		for _, name := range tt.names {
			if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
				t.Fatal(err)
			}
		}
		d, err := OpenDir(dir, Options{Existing: true})
		if !errors.Is(err, tt.want) {
			t.Errorf("%q: error %v, want %v", tt.names, err, tt.want)
		}
		if err == nil {
			d.Close()
		}
	}
	missing := filepath.Join(t.TempDir(), "cache")
	if _, err := OpenDir(missing, Options{Existing: true}); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("nothing there: error %v", err)
	}
	if _, err := os.Lstat(missing); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("it was made: %v", err)
	}
}

// A file, or a link to a directory, is none.
func TestNoDirectory(t *testing.T) {
	dir := t.TempDir()
	file, link := filepath.Join(dir, "file"), filepath.Join(dir, "link")
	if err := errors.Join(os.WriteFile(file, nil, 0o600), os.Symlink(t.TempDir(), link)); err != nil {
		t.Fatal(err)
	}
	const want = "not a directory (links are not followed)"
	for _, path := range []string{file, link} {
		if _, err := OpenDir(path, roomy); err == nil || err.Error() != want {
			t.Errorf("%s: error %v, want %s", filepath.Base(path), err, want)
		}
	}
	if _, err := OpenDir(filepath.Join(file, "cache"), roomy); err == nil {
		t.Error("a directory below a file: no error")
	}
}
