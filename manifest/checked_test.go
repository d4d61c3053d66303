package manifest_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/fetch"
	"github.com/cloopfs/cloopfs/manifest"
)

// index is the index of an image, which may be wrong.
type index struct {
	mu     sync.Mutex
	ends   []int64
	codecs []uint8
	better *index // what it says when somebody has doubted it; nil: the same
	doubts int
}

func (ix *index) Blocks() int64 { return int64(len(ix.ends)) }

func (ix *index) Extent(ctx context.Context, n int64) (blockio.Extent, error) {
	e, _, err := ix.Entry(ctx, n)
	return e, err
}

func (ix *index) Entry(ctx context.Context, n int64) (blockio.Extent, uint8, error) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	e, err := blockiotest.Extents{Ends: ix.ends}.Extent(ctx, n)
	if err != nil {
		return e, 0, err
	}
	return e, ix.codecs[n], nil
}

func (ix *index) Doubt(int64) bool {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	ix.doubts++
	if ix.better == nil {
		return false
	}
	ix.ends, ix.codecs, ix.better = ix.better.ends, ix.better.codecs, nil
	return true
}

// image is a synthetic image with its manifest.
type image struct {
	*index
	src    *blockiotest.Source
	hashes *blockiotest.Source
	m      *manifest.Manifest
	truth  [][]byte // the stored blocks, as they should be
}

// clone is a copy that can be damaged.
func (im *image) clone() *image {
	return &image{
		index: &index{ends: slices.Clone(im.ends), codecs: slices.Clone(im.codecs)},
		src:   &blockiotest.Source{Data: bytes.Clone(im.src.Data)}, hashes: &blockiotest.Source{Data: bytes.Clone(im.hashes.Data)},
		m: im.m, truth: im.truth,
	}
}

// at is the bytes where block n should lie.
func (im *image) at(n int64) []byte { return im.src.Data[im.ends[n-1]:im.ends[n]] }

// newImage returns an image of blocks of 100 to 299 bytes; those with numbers that can be
// divided by 10 have one length, and one codec.
func newImage(t testing.TB, blocks int64) *image {
	t.Helper()
	im := &image{index: new(index), src: new(blockiotest.Source), m: goldenManifest()}
	chacha := rand.NewChaCha8([32]byte{1})
	rnd := rand.New(chacha)
	for n := range blocks {
		p := make([]byte, 100+rnd.IntN(200))
		codec := uint8(rnd.IntN(5))
		if n%10 == 0 {
			p, codec = p[:100], 0
		}
		chacha.Read(p)
		im.src.Data = append(im.src.Data, p...)
		im.ends = append(im.ends, int64(len(im.src.Data)))
		im.truth = append(im.truth, p)
		im.codecs = append(im.codecs, codec)
	}
	im.m.Blocks = blocks
	var f memFile
	root, err := manifest.Build(t.Context(), &f, im.m.Facts, 4, func(_ context.Context, first int64, leaves []manifest.Leaf) error {
		for i := range leaves {
			n := first + int64(i)
			leaves[i] = manifest.LeafOf(n, im.codecs[n], im.truth[n])
		}
		return nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	im.m.Root, im.hashes = root, &blockiotest.Source{Data: f.data}
	return im
}

// open returns the image's blocks, checked.
func (im *image) open(t testing.TB, opt fetch.Options) *manifest.Checked {
	t.Helper()
	tree := open(t, im.hashes, im.m)
	s := fetch.New(im.src, im.index, opt)
	t.Cleanup(s.Close)
	return manifest.NewChecked(s, im.index, tree)
}

// read reads blocks and says which came.
func (im *image) read(t *testing.T, c *manifest.Checked, first, count int64) (came []int64, err error) {
	t.Helper()
	var mu sync.Mutex
	err = c.ReadRun(t.Context(), blockio.Demand, first, count, func(n int64, p []byte) error {
		mu.Lock()
		defer mu.Unlock()
		if !bytes.Equal(p, im.truth[n]) {
			t.Errorf("block %d was delivered with other bytes", n)
		}
		came = append(came, n)
		return nil
	})
	slices.Sort(came)
	return came, err
}

func TestChecked(t *testing.T) {
	im := newImage(t, 1300)
	blockiotest.TestRuns(t, im.open(t, fetch.Options{}), im.index, im.src.Data)
}

// What is wrong is delivered to nobody, and the error says what it is.
func TestCheckedRefuses(t *testing.T) {
	const n = 600
	right := newImage(t, 1300)
	tests := []struct {
		name    string
		damage  func(im *image)
		says    string
		wraps   error
		fetched int // ranges: two for what is bad
	}{
		{"a bit", func(im *image) { im.at(n)[50] ^= 1 }, "its bytes are others", manifest.ErrMismatch, 2},
		{
			"two blocks swapped", func(im *image) {
				a, b := bytes.Clone(im.at(n)), bytes.Clone(im.at(n+10))
				copy(im.at(n), b)
				copy(im.at(n+10), a)
			},
			"these are the bytes of block 610", manifest.ErrMismatch, 2,
		},
		{"codec", func(im *image) { im.codecs[n] ^= 1 }, "its codec is 1 in the index, 0 in the manifest", manifest.ErrMismatch, 1},
		{"index", func(im *image) { im.ends[n] ^= 1 }, " in the index, 100 in the manifest", manifest.ErrMismatch, 1},
		{"a page of hashes", func(im *image) { im.hashes.Data[32*3+40*n] ^= 1 }, "the hashes are not those of the manifest: page 1 of level 0 does not match", manifest.ErrHashes, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			im := right.clone()
			test.damage(im)
			c := im.open(t, fetch.Options{})
			came, err := im.read(t, c, n-5, 30)
			var be *blockio.BlockError
			if !errors.Is(err, test.wraps) || !strings.HasSuffix(err.Error(), test.says) || !errors.As(err, &be) {
				t.Errorf("error %v\nwant one of a block that says %q", err, test.says)
			}
			if slices.Contains(came, n) {
				t.Error("the block was delivered")
			}
			if test.wraps == manifest.ErrMismatch && (be.Block != n || len(came) < 5) {
				t.Errorf("block %d is bad, and %v were delivered; want block %d, and those before it at least", be.Block, came, n)
			}
			if asked := im.src.Asked(); len(asked) != test.fetched {
				t.Errorf("asked for %v, want %d ranges", asked, test.fetched)
			}
		})
	}
}

// What bad blocks are instead is found out for few of them: each costs as much as many that
// are right.
func TestDiagnosesAreBounded(t *testing.T) {
	const blocks, size = 400, 1 << 20
	im := &image{index: &index{codecs: make([]uint8, blocks)}, m: goldenManifest()}
	im.m.Blocks = blocks
	var f memFile
	stored := make([]byte, size) // of each block, but for the first two bytes
	root, err := manifest.Build(t.Context(), &f, im.m.Facts, 1, func(_ context.Context, first int64, leaves []manifest.Leaf) error {
		for i := range leaves {
			stored[0], stored[1] = byte(i), byte(i>>8)
			leaves[i] = manifest.LeafOf(first+int64(i), 0, stored)
			im.ends = append(im.ends, int64(i+1)*size)
		}
		return nil
	}, nil)
	if err != nil {
		t.Fatal(err)
	}
	im.m.Root, im.hashes = root, &blockiotest.Source{Data: f.data}
	// Each block has the bytes of the last but one.
	stored[0], stored[1] = byte((blocks-2)&0xff), byte((blocks-2)>>8)
	c := manifest.NewChecked(same(stored), im.index, open(t, im.hashes, im.m))
	for n := range int64(2) {
		err := c.ReadRun(t.Context(), blockio.Demand, n, 1, func(int64, []byte) error { return nil })
		if !errors.Is(err, manifest.ErrMismatch) || !strings.HasSuffix(err.Error(), "its bytes are others") {
			t.Errorf("block %d: error %v, want none that has taken 398 MiB of hashing", n, err)
		}
	}
}

// same delivers the same bytes for every block.
type same []byte

func (s same) ReadRun(_ context.Context, _ blockio.Class, first, count int64, deliver func(int64, []byte) error) error {
	for n := first; n < first+count; n++ {
		if err := deliver(n, s); err != nil {
			return &blockio.BlockError{Block: n, Err: err}
		}
	}
	return nil
}

// Bytes that are bad are fetched once more, and those that an index has misplaced are, when
// it is right.
func TestCheckedMends(t *testing.T) {
	const n = 600
	right := newImage(t, 1300)
	all := make([]int64, 30)
	for i := range all {
		all[i] = n - 5 + int64(i)
	}
	t.Run("bytes", func(t *testing.T) {
		im := right.clone()
		im.src.Open = func(_ context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
			p, err := io.ReadAll(body)
			if !r.Refetch {
				p[im.ends[n]-1-r.Off] ^= 1
			}
			return bytes.NewReader(p), err
		}
		c := im.open(t, fetch.Options{})
		came, err := im.read(t, c, n-5, 30)
		if diff := cmp.Diff(all, came); diff != "" || err != nil {
			t.Errorf("%v, delivered (-want +got):\n%s", err, diff)
		}
		if diff := cmp.Diff(manifest.CheckedStats{Proven: 30, Refused: 1}, c.Stats()); diff != "" {
			t.Errorf("Stats (-want +got):\n%s", diff)
		}
	})
	for name, damage := range map[string]func(im *image){
		"an offset": func(im *image) { im.ends[n] ^= 1 },
		"a codec":   func(im *image) { im.codecs[n] ^= 3 },
		"many offsets": func(im *image) {
			for i := n; i < n+20; i += 2 {
				im.ends[i] ^= 1
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			im := right.clone()
			damage(im)
			im.better = right.clone().index
			came, err := im.read(t, im.open(t, fetch.Options{}), n-5, 30)
			if diff := cmp.Diff(all, came); diff != "" || err != nil {
				t.Errorf("%v, delivered (-want +got):\n%s", err, diff)
			}
			if im.doubts != 1 {
				t.Errorf("the index was doubted %d times, want once", im.doubts)
			}
		})
	}
}

// The first read of a block costs no more round trips than without hashes; who reads on
// waits for no hashes.
func TestCheckedRoundTrips(t *testing.T) {
	im := newImage(t, 5000)
	synctest.Test(t, func(t *testing.T) {
		im := im.clone()
		slow := func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			time.Sleep(time.Second)
			return body, nil
		}
		im.src.Open, im.hashes.Open = slow, slow
		tree := open(t, im.hashes, im.m)
		s := fetch.New(im.src, im.index, fetch.Options{})
		c := manifest.NewChecked(s, im.index, tree)
		begin := time.Now()
		for i, at := range []int64{1000, 1001, 900, 1030, 4000} {
			if _, err := im.read(t, c, at, 1); err != nil {
				t.Error(err)
			}
			if took := time.Since(begin); took != time.Duration(i+1)*time.Second {
				t.Errorf("after %d reads: %v, want one round trip for each", i+1, took)
			}
		}
		im.hashes.Asked()
		if _, err := im.read(t, c, 2200, 80); err != nil { // to the last quarter of page 4
			t.Error(err)
		}
		time.Sleep(time.Minute)
		_ = im.hashes.Asked()
		if _, err := im.read(t, c, 2400, 60); err != nil {
			t.Error(err)
		}
		time.Sleep(time.Minute)
		if asked := im.hashes.Asked(); len(asked) != 1 {
			t.Errorf("near the end of a page: asked for %v, want the next page", asked)
		}
		if _, err := im.read(t, c, 2560, 60); err != nil {
			t.Error(err)
		}
		if asked := im.hashes.Asked(); len(asked) != 0 {
			t.Errorf("behind the end of a page: asked for %v, want nothing", asked)
		}
		tree.Close()
		s.Close()
	})
}

// The time that a reader has for the hashes is that which he has for the blocks.
func TestCheckedOwnTime(t *testing.T) {
	im := newImage(t, 1300)
	synctest.Test(t, func(t *testing.T) {
		im := im.clone()
		bad, begin := errors.New("gave up"), time.Now()
		im.hashes.Open = func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			if time.Since(begin) > 50*time.Second {
				return body, nil
			}
			time.Sleep(30 * time.Second)
			return nil, bad
		}
		im.src.Open = func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			if time.Since(begin) == 0 {
				time.Sleep(20 * time.Second)
			}
			return body, nil
		}
		tree := open(t, im.hashes, im.m)
		s := fetch.New(im.src, im.index, fetch.Options{})
		c := manifest.NewChecked(s, im.index, tree)
		if _, err := im.read(t, c, 600, 1); !errors.Is(err, bad) || time.Since(begin) != 30*time.Second {
			t.Errorf("error %v after %v, want that of the hashes after 30s: they were asked for with the block", err, time.Since(begin))
		}
		tree.Expect(1200, 1)
		time.Sleep(25 * time.Second)
		if _, err := im.read(t, c, 1200, 1); err != nil {
			t.Errorf("behind a request for the hashes that fails: %v", err)
		}
		tree.Close()
		s.Close()
	})
}

// handy is blocks that can be taken.
type handy struct {
	blockio.Runs
	im  *image
	had atomic.Int64
}

func (h *handy) Take(n int64, deliver func(int64, []byte) error) bool {
	return deliver(n, h.im.src.Data[h.im.ends[n]-int64(len(h.im.truth[n])):h.im.ends[n]]) == nil
}

func (h *handy) Had(n int64) { h.had.Add(n) }

// What is taken is compared, too, and waits for nothing.
func TestCheckedTake(t *testing.T) {
	im := newImage(t, 1300).clone()
	im.at(20)[1] ^= 1
	im.codecs[21] ^= 1
	tree := open(t, im.hashes, im.m)
	below := &handy{im: im}
	c := manifest.NewChecked(below, im.index, tree)
	keep := func(n int64, p []byte) error {
		if !bytes.Equal(p, im.truth[n]) {
			t.Errorf("block %d: other bytes", n)
		}
		return nil
	}
	if _, err := tree.Leaf(t.Context(), 0); err != nil {
		t.Fatal(err)
	}
	for n, want := range map[int64]bool{10: true, 19: true, 20: false, 21: false, 22: true} {
		if got := c.Take(n, keep); got != want {
			t.Errorf("block %d: taken %v, want %v", n, got, want)
		}
	}
	if c.Take(11, func(int64, []byte) error { return errors.New("no room") }) {
		t.Error("a block was taken that nobody had room for")
	}
	hold := make(chan struct{})
	im.hashes.Open = func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
		<-hold
		return body, nil
	}
	if c.Take(600, keep) {
		t.Error("a block was taken that can't be proven yet")
	}
	close(hold)
	if _, err := tree.Leaf(t.Context(), 600); err != nil {
		t.Error(err)
	}
	if !c.Take(600, keep) {
		t.Error("a block can't be taken")
	}
	c.Had(600)
	if below.had.Load() != 600 {
		t.Error("who takes is not told who had it")
	}
	if manifest.NewChecked(struct{ blockio.Runs }{}, im.index, tree).Take(600, keep) {
		t.Error("a block was taken from who has none")
	}
}

// all delivers all blocks of a run.
type all struct{ im *image }

func (a all) ReadRun(_ context.Context, _ blockio.Class, first, count int64, deliver func(int64, []byte) error) error {
	for n := first; n < first+count; n++ {
		if err := deliver(n, a.im.truth[n]); err != nil {
			return err
		}
	}
	return nil
}

func BenchmarkChecked(b *testing.B) {
	im := newImage(b, 512)
	c := manifest.NewChecked(all{im}, im.index, open(b, im.hashes, im.m))
	ignore := func(int64, []byte) error { return nil }
	b.ReportAllocs()
	for b.Loop() {
		if err := c.ReadRun(b.Context(), blockio.Demand, 0, 8, ignore); err != nil {
			b.Fatal(err)
		}
	}
}
