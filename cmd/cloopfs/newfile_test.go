package main

import (
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
)

// kindsOfPending are the ways to make a file that is not complete yet.
var kindsOfPending = map[string]func(path string) (*pendingFile, error){"named": newNamed, "unnamed": newUnnamed}

// A file is there when it is complete, and nothing else is, with and without the help
// of the file system.
func TestPendingFile(t *testing.T) {
	for kind, open := range kindsOfPending {
		for name, c := range map[string]struct {
			there   string
			replace bool
			fail    error
			taken   string // what somebody else makes meanwhile
			want    string
			wantErr error
		}{
			"new":               {want: "new"},
			"new or replaced":   {replace: true, want: "new"},
			"replaced":          {there: "old", replace: true, want: "new"},
			"there":             {there: "old", want: "old", wantErr: os.ErrExist},
			"taken":             {taken: "theirs", want: "theirs", wantErr: os.ErrExist},
			"taken, replaced":   {taken: "theirs", replace: true, want: "new"},
			"fails":             {fail: io.ErrNoProgress, wantErr: io.ErrNoProgress},
			"fails, old one":    {there: "old", replace: true, fail: io.ErrNoProgress, want: "old", wantErr: io.ErrNoProgress},
			"name can't be had": {there: "directory", replace: true, want: "directory", wantErr: errAny},
		} {
			t.Run(kind+" "+name, func(t *testing.T) {
				dir := t.TempDir()
				path := filepath.Join(dir, "file")
				put := func(content string) {
					if content == "directory" {
						if err := os.Mkdir(path, 0o700); err != nil {
							t.Fatal(err)
						}
					} else if content != "" {
						if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
							t.Fatal(err)
						}
					}
				}
				put(c.there)
				p, err := open(path)
				if err != nil {
					t.Fatal(err)
				}
				during := 0
				err = p.fill(0o640, c.replace, func(f *os.File) error {
					list, err := os.ReadDir(dir)
					if err != nil {
						t.Fatal(err)
					}
					during = len(list)
					put(c.taken)
					_, err = f.WriteString("new")
					return errors.Join(err, c.fail)
				})
				if !errors.Is(err, c.wantErr) && !(c.wantErr == errAny && err != nil) {
					t.Errorf("got %v, want %v", err, c.wantErr)
				}
				checkOnly(t, dir, c.want)
				var want int
				if c.there != "" {
					want++
				}
				if kind == "named" {
					want++
				}
				if during != want {
					t.Errorf("there were %d files while it was written, want %d", during, want)
				}
			})
		}
	}
}

// errAny stands for any error.
var errAny = errors.New("any")

// checkOnly checks that dir holds one file and what is in it; empty: no file.
func checkOnly(t *testing.T, dir, want string) {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	if want == "" && len(list) == 0 {
		return
	}
	if len(list) != 1 || list[0].Name() != "file" {
		t.Fatalf("there is %v", list)
	}
	info, err := os.Stat(filepath.Join(dir, "file"))
	if err != nil {
		t.Fatal(err)
	}
	if want == "directory" {
		if !info.IsDir() {
			t.Error("the directory is gone")
		}
		return
	}
	got, err := os.ReadFile(filepath.Join(dir, "file"))
	if err != nil || string(got) != want {
		t.Errorf("the file has %q, %v; want %q", got, err, want)
	}
	if want == "new" && info.Mode() != 0o640 {
		t.Errorf("its mode is %v", info.Mode())
	}
}

// Names in a directory that can't be read, or that can't be synced, are no error.
func TestSyncDir(t *testing.T) {
	for _, dir := range []string{t.TempDir(), "missing", "/proc", "/dev/pts"} {
		if err := syncDir(dir); err != nil {
			t.Errorf("%s: %v", dir, err)
		}
	}
}
