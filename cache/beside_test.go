package cache

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// What lies beside an image is kept under its name, as long as the entry is.
func TestBeside(t *testing.T) {
	d := newDir(t, Options{Size: 1 << 30})
	id := Identity{Key: "http://h/x", Validator: "v", Size: 100}
	e := openEntry(t, d, id)
	if _, _, err := e.Beside("a"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("what was never kept: %v", err)
	}
	for name, content := range map[string]string{"a": "first", "../b": "", "c\x00": strings.Repeat("long", 10_000)} {
		for _, content := range []string{"another", content} {
			if err := e.SetBeside(name, []byte(content)); err != nil {
				t.Fatal(err)
			}
		}
		got, old, err := e.Beside(name)
		if string(got) != content || old < 0 || old > time.Minute || err != nil {
			t.Errorf("%q: got %d bytes %v old, %v; want %d", name, len(got), old, err, len(content))
		}
	}
	path := filepath.Dir(e.Path())
	found, err := filepath.Glob(filepath.Join(path, besidePrefix+"*"))
	if err != nil || len(found) != 3 {
		t.Errorf("the entry has %q, %v; want three", found, err)
	}
	day := time.Now().Add(-24 * time.Hour)
	if err := os.Chtimes(filepath.Join(path, besideName("a")), day, day); err != nil {
		t.Fatal(err)
	}
	if got, old, err := openEntry(t, d, id).Beside("a"); string(got) != "first" || old < 23*time.Hour || err != nil {
		t.Errorf("a day later: %q, %v, %v", got, old, err)
	}
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
	if err := e.SetBeside("a", []byte("x")); err == nil {
		t.Error("kept in an entry that was removed")
	}
}
