package main

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"sync/atomic"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cache"
)

// onLine is a handler that calls itself at each line of the log.
type onLine func(message string)

func (onLine) Enabled(context.Context, slog.Level) bool { return true }

func (f onLine) Handle(_ context.Context, r slog.Record) error {
	f(r.Message)
	return nil
}

func (f onLine) WithAttrs([]slog.Attr) slog.Handler { return f }

func (f onLine) WithGroup(string) slog.Handler { return f }

// marked says whether the only image in a cache is complete, and how much of it is there.
func marked(t *testing.T, dir string) (complete bool, allocated int64) {
	t.Helper()
	d, err := cache.OpenDir(dir, cache.Options{Existing: true})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	list, _, err := d.List()
	if err != nil || len(list) != 1 {
		t.Fatalf("%+v in the cache, %v; want one image", list, err)
	}
	return list[0].Complete, list[0].Allocated
}

// What others throw away in the last moment is not said to be here; nor do they when all
// has been found here, until that is written down.
func TestFillWhileOthersEvict(t *testing.T) {
	_, image := smallImage()
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { content(w, r, image) })
	dir := t.TempDir()
	l := openLine(t, []string{"--cache-size=1GiB", "--min-free=0", "--cache-dir", dir}, url)
	others, err := cache.OpenDir(dir, cache.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer others.Close()
	evict := func() {
		t.Helper()
		if _, err := others.Trim(t.Context()); err != nil {
			t.Error(err)
		}
	}
	found := 0
	log := slog.New(onLine(func(string) { found++; evict() }))
	b := &bringing{line: l, class: blockio.Fill, workers: 1}
	if err := b.fill(t.Context(), log); err != nil {
		t.Fatal(err)
	}
	if complete, allocated := marked(t, dir); found != 1 || !complete || allocated != int64(len(image)) {
		t.Errorf("found %d times that all is there; complete %v, and %d bytes are there of %d", found, complete, allocated, len(image))
	}
	evict()
	if complete, allocated := marked(t, dir); complete || allocated != 0 {
		t.Errorf("after it: complete %v, and %d bytes are there", complete, allocated)
	}
}

// An image that is removed from the cache when all of it is there, and that is not yet written
// down, is not filled on and on.
func TestFillOfRemoved(t *testing.T) {
	_, image := smallImage()
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { content(w, r, image) })
	dir := t.TempDir()
	l := openLine(t, []string{"--cache-size=1GiB", "--min-free=0", "--cache-dir", dir}, url)
	ctx, cancel := context.WithCancel(t.Context())
	var said []string
	fill(ctx, l, slog.New(onLine(func(message string) {
		switch said = append(said, message); len(said) {
		case 1:
			list, _, err := l.CacheDir().List()
			if err != nil || len(list) != 1 {
				t.Fatalf("%+v in the cache, %v; want one image", list, err)
			}
			if err := l.CacheDir().Remove(list[0].Name); err != nil {
				t.Fatal(err)
			}
		case 2:
			cancel() // else it may go on
		}
	})))
	if want := []string{"all of the image is in the cache", "no longer filling in the background"}; !slices.Equal(said, want) {
		t.Errorf("it said %q, want %q", said, want)
	}
}

// Where all blocks are here, as it seems, and nobody has said so (who filled was killed),
// they are compared, and then it is said; once that is so nobody looks at them again.
func TestFillGoesOn(t *testing.T) {
	_, image := smallImage()
	var requests atomic.Int64
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		requests.Add(1)
		content(w, r, image)
	})
	dir := t.TempDir()
	flags := []string{"--cache-size=1GiB", "--min-free=0", "--cache-dir", dir}
	for _, c := range []struct {
		name                   string
		unsaid, damaged        bool
		wantAsked, wantChecked bool
	}{
		{name: "empty", wantAsked: true, wantChecked: true},
		{name: "not said", unsaid: true, wantChecked: true},
		{name: "said"},
		{name: "not said and damaged", unsaid: true, damaged: true, wantAsked: true, wantChecked: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if before := openLine(t, flags, url).Entry(); c.unsaid {
				if err := before.Incomplete(); err != nil {
					t.Fatal(err)
				}
				if c.damaged {
					damage(t, before.Path())
				}
			}
			l := openLine(t, flags, url)
			before, checked := requests.Load(), false
			b := &bringing{line: l, class: blockio.Fill, workers: 1}
			if err := b.fill(t.Context(), slog.New(onLine(func(string) { checked = true }))); err != nil {
				t.Fatal(err)
			}
			if asked := requests.Load() > before; asked != c.wantAsked || checked != c.wantChecked {
				t.Errorf("asked the server: %v, compared all: %v; want %v and %v", asked, checked, c.wantAsked, c.wantChecked)
			}
			have, err := os.ReadFile(l.Entry().Path())
			if complete, _ := marked(t, dir); !complete || err != nil || !bytes.Equal(have, image) {
				t.Errorf("complete: %v, and the image is there: %v, %v", complete, bytes.Equal(have, image), err)
			}
		})
	}
}

// damage changes a byte in the middle of a file.
func damage(t *testing.T, path string) {
	t.Helper()
	p, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	p[len(p)/2] ^= 1
	if err := os.WriteFile(path, p, 0); err != nil {
		t.Fatal(err)
	}
}

// Who brings an image first brings the cache within its bounds, whatever is here already.
func TestBringWithinBounds(t *testing.T) {
	_, image := smallImage()
	large := make([]byte, 8<<20)
	rand.NewChaCha8([32]byte{}).Read(large)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { content(w, r, image) })
	other := serve(t, func(w http.ResponseWriter, r *http.Request) { content(w, r, large) })
	dir := t.TempDir()
	bring := func(url, size string, more ...string) {
		t.Helper()
		flags := append([]string{"--min-free=0", "--cache-dir", dir, "--cache-size", size}, more...)
		b := &bringing{line: openLine(t, flags, url), class: blockio.Fill, workers: 1}
		if err := b.run(t.Context()); err != nil {
			t.Fatal(err)
		}
	}
	bring(url, "1GiB")
	bring(other, "1GiB", "--format=raw")
	bring(url, "4MiB")
	d, err := cache.OpenDir(dir, cache.Options{Size: 5 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	if freed, err := d.Trim(t.Context()); freed > 0 || err != nil {
		t.Errorf("there were %d bytes too much, %v", freed, err)
	}
}
