package main

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
)

// An image is an overlay's base wherever it lies and however it is reached, and
// another version of it is not.
func TestBase(t *testing.T) {
	disk := bytes.Repeat([]byte("disk "), 40_000)
	image := clooptest.Build(disk, 4096)
	other := bytes.Clone(disk)
	other[len(other)/2]++
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)

	var date time.Time
	var etag string
	host := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if etag != "" {
			w.Header().Set("ETag", etag)
		}
		http.ServeContent(w, r, "", date, bytes.NewReader(image))
	})
	identity := func(at line.Location, opt line.Options) string {
		t.Helper()
		opt.Connections = 1
		l, err := line.Open(t.Context(), at, opt, 0, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		base, err := baseOf(t.Context(), l)
		if err != nil {
			t.Fatal(err)
		}
		if base.Size != l.Disk().Size() || base.Source != at.String() {
			t.Errorf("the base is %+v", base)
		}
		return base.Identity
	}
	local := func(image []byte, date time.Time) string {
		t.Helper()
		path := filepath.Join(t.TempDir(), "image")
		if err := os.WriteFile(path, image, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, date, date); err != nil {
			t.Fatal(err)
		}
		return identity(line.Location{Path: path}, line.Options{})
	}
	web := line.Location{URL: host + "/image"}
	cached := func(trust bool) line.Options {
		return line.Options{Cache: line.CacheOptions{Dir: cli.Name(t.TempDir() + "/cache"), Size: 1 << 30, TrustSize: trust}}
	}

	date = now
	want := local(image, now)
	for name, got := range map[string]string{
		"a server":             identity(web, line.Options{}),
		"another path there":   identity(line.Location{URL: host + "/mirror?key=1"}, line.Options{}),
		"a server, with cache": identity(web, cached(false)),
	} {
		if got != want {
			t.Errorf("at %s it is another", name)
		}
	}
	for name, got := range map[string]string{
		"blocks":       local(clooptest.Build(other, 4096), now),
		"date":         local(image, now.Add(time.Second)),
		"block size":   local(clooptest.Build(disk, 8192), now),
		"ETag":         func() string { date, etag = time.Time{}, `"1"`; return identity(web, line.Options{}) }(),
		"a later ETag": func() string { etag = `"2"`; return identity(web, line.Options{}) }(),
	} {
		if got == want {
			t.Errorf("with another %s it is the same", name)
		}
	}

	// Without a date, what the server says of the version counts, with a cache and
	// without, online and not.
	etag = `"1"`
	first, keep := identity(web, line.Options{}), cached(false)
	if identity(web, keep) != first {
		t.Error("the cache makes it another")
	}
	keep.Cache.Offline = true
	if identity(web, keep) != first {
		t.Error("offline it is another")
	}
	if etag = `"2"`; identity(web, line.Options{}) == first {
		t.Error("another ETag makes no difference")
	}
	etag = ""
	if identity(web, cached(true)) != identity(web, line.Options{}) {
		t.Error("--trust-size makes it another")
	}
}

// What was made for a mount that fails is gone again before anybody else can have it; what
// was there stays.
func TestGiveUp(t *testing.T) {
	image := filepath.Join(t.TempDir(), "image")
	if err := os.WriteFile(image, clooptest.Build(make([]byte, 1<<20), 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err := line.Open(t.Context(), line.Location{Path: image}, line.Options{}, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	path := filepath.Join(t.TempDir(), "overlay")
	meta := filepath.Join(path, "meta")
	o := writeOptions{Overlay: cli.Name(path)}
	open := func() *writes {
		t.Helper()
		w, err := o.open(t.Context(), l, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	for _, c := range []struct {
		name   string
		before func() error
		left   string // that and no more of directory and overlay
	}{
		{"nothing there", func() error { return nil }, ""},
		{"a directory", func() error { return os.Mkdir(path, 0o700) }, path},
		{"an overlay", func() error { return open().Close() }, meta},
	} {
		if err := c.before(); err != nil {
			t.Fatal(err)
		}
		w := open()
		state, err := os.Open(filepath.Join(path, "state"))
		if err != nil {
			t.Fatal(err)
		}
		defer state.Close()
		w.giveUp()
		// Who closes it writes that down, and lets others have it.
		said, err := io.ReadAll(state)
		if closed := string(said) == "clean\n"; err != nil || closed != (c.left == meta) {
			t.Errorf("%s: it was closed: %v, %v", c.name, closed, err)
		}
		left := ""
		for _, at := range []string{path, meta} {
			if _, err := os.Stat(at); err == nil {
				left = at
			} else if !errors.Is(err, fs.ErrNotExist) {
				t.Error(err)
			}
		}
		if left != c.left {
			t.Errorf("%s: left is %q, want %q", c.name, left, c.left)
		}
		if err := os.RemoveAll(path); err != nil {
			t.Fatal(err)
		}
	}
}
