package cache_test

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/cloopfs/cloopfs/cache"
)

// larger says whether the number n is larger than an old one.
func larger(n int) func([]byte) bool {
	return func(old []byte) bool {
		was, err := strconv.Atoi(string(old))
		return err == nil && n > was
	}
}

// What is remembered is what is better, however many write at once, and nothing but its own
// kind makes it go.
func TestRemember(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	open := func(existing bool) *cache.Dir {
		d, err := cache.OpenDir(path, cache.Options{Size: 1 << 20, Existing: existing})
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { d.Close() })
		return d
	}
	d := open(false)
	if _, err := d.Recall("x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("before anything: error %v, want fs.ErrNotExist", err)
	}
	var all sync.WaitGroup
	for n := range 20 {
		all.Go(func() {
			if err := open(false).Remember("x", []byte(strconv.Itoa(n)), larger(n)); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	other := open(true) // a directory with nothing else in it is a cache, too
	if got, err := other.Recall("x"); err != nil || string(got) != "19" {
		t.Errorf("got %q, %v; want 19", got, err)
	}
	if _, err := d.Trim(t.Context()); err != nil {
		t.Error(err)
	}
	if list, _, err := d.List(); err != nil || len(list) > 0 {
		t.Errorf("listed %v, %v; want nothing", list, err)
	}
	if err := d.Remember("x", bytes.Repeat([]byte("x"), 4097), larger(100)); err == nil {
		t.Error("no error for what is too long")
	}
	if err := os.Remove(filepath.Join(path, "seen-x")); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(path, "seen-x")); err != nil {
		t.Fatal(err)
	}
	if got, err := d.Recall("x"); err == nil {
		t.Errorf("followed a link to %.10q", got)
	}
	if err := d.Remember("x", []byte("5"), larger(5)); err == nil {
		t.Error("no error for a link in its place")
	}
}

func TestRememberIsBounded(t *testing.T) {
	path := filepath.Join(t.TempDir(), "cache")
	d, err := cache.OpenDir(path, cache.Options{Size: 1 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	for n := range 1020 {
		if err := os.WriteFile(filepath.Join(path, fmt.Sprint("seen-", n)), []byte("1"), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for n := 1020; n < 1030; n++ {
		if err := d.Remember(fmt.Sprint(n), []byte("1"), larger(1)); err != nil {
			t.Fatal(err)
		}
	}
	if err := d.Remember("1029", []byte("2"), larger(2)); err != nil { // in place of another
		t.Fatal(err)
	}
	names, err := os.ReadDir(path)
	if err != nil {
		t.Fatal(err)
	}
	seen := 0
	for _, f := range names {
		if strings.HasPrefix(f.Name(), "seen-") {
			seen++
		}
	}
	if seen != 1024 {
		t.Errorf("%d files are kept, want 1024", seen)
	}
	if _, err := d.Recall("1029"); err != nil {
		t.Errorf("the last: %v", err)
	}
	if _, err := d.Recall("0"); err == nil {
		t.Error("the first is kept")
	}
}
