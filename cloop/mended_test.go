package cloop_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"slices"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/fetch"
)

// inside is the image as a part of the file.
func inside(t *testing.T, file blockio.Source, image blockio.Extent) blockio.Source {
	s, err := blockio.OpenSection(t.Context(), file, []blockio.Extent{image})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

// kept is the file with an on-disk cache before it, the same each time.
func kept(t *testing.T, file blockio.Source) blockio.Source {
	dir, err := cache.OpenDir(t.TempDir(), cache.Options{Size: 1 << 30})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { dir.Close() })
	entry, err := dir.Open(cache.Identity{Key: "a", Validator: "1", Size: file.Size()}, "a", time.Time{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { entry.Close() })
	return entry.Bytes(file)
}

// onceBad is a source of good, from offset at on, that always sends an entry wrong, but to
// who asks for it again.
func onceBad(good []byte, at int64, entry uint64) *blockiotest.Source {
	src := &blockiotest.Source{Data: good}
	src.Open = func(_ context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
		if r.Refetch {
			return body, nil
		}
		p := bytes.Clone(good)
		binary.BigEndian.PutUint64(p[at:], entry)
		return bytes.NewReader(p[r.Off:r.End()]), nil
	}
	return src
}

// askedAgain is how many times the byte at off was asked for past all that keeps it.
func askedAgain(src *blockiotest.Source, off int64) (n int) {
	for _, r := range src.Asked() {
		if r.Refetch && r.Off <= off && off < r.End() {
			n++
		}
	}
	return n
}

// A page of the index that came wrong is read again, wherever it is kept: be it that an entry
// makes no sense, or that a block does not decode where it says. What is kept of it after that
// is right.
func TestIndexIsMended(t *testing.T) {
	const before = 50_000 // bytes of the file before the image
	for layout, good := range map[string][]byte{
		"header first": manyImage(),
		"header last":  clooptest.AssembleLast(512, manyStored()),
	} {
		index := 136
		if layout == "header last" {
			index = len(good) - 136 - 8*(manyBlocks+1)
		}
		file := slices.Concat(make([]byte, before), good, make([]byte, 1000))
		image := blockio.Extent{Off: before, Len: int64(len(good))}
		for _, where := range []struct {
			name         string
			cached, part bool
		}{{"uncached", false, false}, {"cached", true, false}, {"part", false, true}, {"cached part", true, true}} {
			for _, n := range []int64{300, 512, 700, 1090} { // two pages hold the second
				at := int64(index) + 8*n
				right := binary.BigEndian.Uint64(good[at:])
				for what, wrong := range map[string]uint64{"makes no sense": 1 << 62, "is elsewhere": right + 1} {
					content, at := good, at
					if where.part {
						content, at = file, at+before
					}
					origin := onceBad(content, at, wrong)
					var below blockio.Source = origin
					if where.cached {
						below = kept(t, below)
					}
					for mount := range 2 {
						src := below
						if where.part {
							src = inside(t, src, image)
						}
						ix, err := cloop.Open(t.Context(), src)
						if err != nil {
							t.Fatal(err)
						}
						runs := fetch.New(src, ix, fetch.Options{})
						im := cloop.NewImage(ix, runs, cache.NewMemory(512, 512))
						for range 2 { // what does not decode is an error, once
							for _, k := range []int64{n - 1, n} {
								_, _ = im.ReadAtContext(t.Context(), make([]byte, 512), 512*k)
							}
						}
						for _, k := range []int64{n - 1, n} {
							block := make([]byte, 512)
							if _, err := im.ReadAtContext(t.Context(), block, 512*k); err != nil || !bytes.Equal(block, bytes.Repeat([]byte{byte(k)}, 512)) {
								t.Errorf("%s, %s, entry %d %s: block %d at mount %d: %v, or other bytes", layout, where.name, n, what, k, mount, err)
							}
						}
						runs.Close()
						again := askedAgain(origin, at)
						if kept := where.cached && mount > 0; again > 2 || (again == 0) != kept {
							t.Errorf("%s, %s, entry %d %s: asked for %d times again at mount %d", layout, where.name, n, what, again, mount)
						}
					}
				}
			}
		}
	}
}

// A page of the index is read again when somebody else knows that it is wrong, and alone; but
// not on and on, and only where there may be something better. Until that comes it is used.
func TestIndexIsDoubted(t *testing.T) {
	pages := []blockio.Extent{{Off: 136, Len: 8 * 513}, {Off: 136 + 8*512, Len: 8 * 513}, {Off: 136 + 8*1024, Len: 8 * 77}}
	src := &blockiotest.Source{Data: manyImage()}
	ix, err := cloop.Open(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	src.Asked()
	// The second page is not here yet.
	times := 1
	if !ix.Doubt(1090) {
		t.Error("it can't be doubted")
	}
	for n, again := range map[int64]bool{700: false, 1090: true} {
		if _, err := ix.Extent(t.Context(), n); err != nil {
			t.Error(err)
		}
		want := blockio.Range{Extent: pages[n/512], Refetch: again}
		if asked := src.Asked(); !slices.Equal(asked, []blockio.Range{want}) {
			t.Errorf("entry %d: asked for %v, want %v", n, asked, want)
		}
	}
	for n := int64(300); times < 100 && ix.Doubt(n); n = (n + 400) % manyBlocks {
		times++
		for _, down := range []error{errors.New("down"), nil} {
			if down != nil { // what is here is as good as before, and the next doubt has its turn
				src.Open = func(context.Context, blockio.Range, io.Reader) (io.Reader, error) { return nil, down }
			} else if !ix.Doubt(n) {
				t.Errorf("Doubt(%d): not a second time", n)
			}
			for range 2 {
				if _, err := ix.Extent(t.Context(), n); err != nil {
					t.Errorf("Extent(%d), %v: %v", n, down, err)
				}
			}
			src.Open = nil
			want := blockio.Range{Extent: pages[n/512], Refetch: true}
			if asked := src.Asked(); !slices.Equal(asked, []blockio.Range{want}) {
				t.Errorf("entry %d, %v: asked for %v, want %v", n, down, asked, want)
			}
		}
	}
	if times != 16 {
		t.Errorf("doubted %d times, want 16", times)
	}
	if ix, err = cloop.Open(t.Context(), struct{ blockio.ReaderAt }{src}); err != nil {
		t.Fatal(err)
	}
	if ix.Doubt(700) {
		t.Error("an index is said to be read again whose source can't")
	}
}

// Where an entry makes no sense and its page can't be read again, that is said, not that the
// image is corrupt; the page's other entries locate their blocks.
func TestIndexCanNotBeMended(t *testing.T) {
	good := manyImage()
	src := onceBad(good, 136+8*700, 1<<62)
	ix, err := cloop.Open(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ix.Extent(t.Context(), 701); err != nil {
		t.Error(err)
	}
	open, down := src.Open, errors.New("down")
	src.Open = func(context.Context, blockio.Range, io.Reader) (io.Reader, error) { return nil, down }
	for range 20 { // more often than a page is read again
		if _, err := ix.Extent(t.Context(), 700); !errors.Is(err, down) || errors.Is(err, cloop.ErrCorrupt) {
			t.Errorf("Extent(700): %v, want %v", err, down)
		}
		if _, err := ix.Extent(t.Context(), 702); err != nil {
			t.Errorf("Extent(702): %v", err)
		}
	}
	src.Open = open
	if _, err := ix.Extent(t.Context(), 700); err != nil {
		t.Errorf("Extent(700) after that: %v", err)
	}
}

// A page that was read again is one like others from then on.
func TestIndexIsTrustedAgain(t *testing.T) {
	const blocks = 1100 * 512 // more pages than are kept
	src := &blockiotest.Source{Data: clooptest.Assemble(512, make([][]byte, blocks))}
	ix, err := cloop.Open(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	for _, again := range []bool{true, false} {
		if again && !ix.Doubt(5) {
			t.Error("it can't be doubted")
		}
		src.Asked()
		if _, err := ix.Extent(t.Context(), 5); err != nil {
			t.Error(err)
		}
		if asked := src.Asked(); len(asked) != 1 || asked[0].Refetch != again {
			t.Errorf("asked for %v, want one range, again: %v", asked, again)
		}
		for n := int64(512); n < blocks; n += 512 {
			if _, err := ix.Extent(t.Context(), n); err != nil {
				t.Error(err)
			}
		}
	}
}

// That the reader who reads it again goes away says nothing of a page.
func TestDoubtOutlivesReader(t *testing.T) {
	src := &blockiotest.Source{Data: manyImage()}
	ix, err := cloop.Open(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := ix.Extent(t.Context(), 5); err != nil || !ix.Doubt(5) {
		t.Fatalf("%v, or it can't be doubted", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	src.Open = func(context.Context, blockio.Range, io.Reader) (io.Reader, error) {
		cancel()
		return nil, ctx.Err()
	}
	if _, err := ix.Extent(ctx, 5); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that the reader has gone", err)
	}
	src.Open = nil
	src.Asked()
	if _, err := ix.Extent(t.Context(), 5); err != nil {
		t.Error(err)
	}
	if asked := src.Asked(); len(asked) != 1 || !asked[0].Refetch {
		t.Errorf("asked for %v, want one range, again", asked)
	}
}
