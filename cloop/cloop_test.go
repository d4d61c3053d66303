package cloop_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/fetch"
)

// openImage opens image through a whole line with memory for the given number
// of blocks.
func openImage(t testing.TB, src *blockiotest.Source, blocks int64) *cloop.Image {
	t.Helper()
	ix, err := cloop.Open(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	runs := fetch.New(src, ix, fetch.Options{})
	t.Cleanup(runs.Close)
	return cloop.NewImage(ix, runs, cache.NewMemory(blocks*int64(ix.BlockSize()), ix.BlockSize()))
}

// mixed returns n bytes as disks have them: text-like, random, and zeros.
func mixed(n int) []byte {
	rnd := rand.NewChaCha8([32]byte{7})
	p := make([]byte, n)
	for off := 0; off < n; off += 5000 {
		part := p[off:min(off+5000, n)]
		switch off / 5000 % 3 {
		case 0:
			rnd.Read(part)
		case 1:
			for i := range part {
				part[i] = "cloop blocks "[i%13]
			}
		}
	}
	return p
}

func TestImageConforms(t *testing.T) {
	for _, c := range []struct {
		size, blockSize int
	}{
		{1, 512},
		{100_000, 512},
		{512 << 10, 64 << 10},
		{512<<10 - 1, 64 << 10},
		{3_000_000, 1 << 20},
	} {
		t.Run(fmt.Sprintf("%d in blocks of %d", c.size, c.blockSize), func(t *testing.T) {
			disk := mixed(c.size)
			src := &blockiotest.Source{Data: clooptest.Build(disk, c.blockSize)}
			padded := make([]byte, (c.size+c.blockSize-1)/c.blockSize*c.blockSize)
			copy(padded, disk)
			blockiotest.TestReaderAt(t, openImage(t, src, 2), padded)
		})
	}
}

func TestRealImages(t *testing.T) {
	for line := range strings.Lines(string(testdata(t, "disks.sha256"))) {
		want, file, _ := strings.Cut(strings.TrimSpace(line), "  ")
		t.Run(file, func(t *testing.T) {
			im := openImage(t, &blockiotest.Source{Data: testdata(t, file)}, 2)
			disk := make([]byte, im.Size())
			if n, err := im.ReadAtContext(t.Context(), disk, 0); n != len(disk) || err != nil {
				t.Fatalf("read %d of %d bytes: %v", n, len(disk), err)
			}
			sum := sha256.Sum256(disk)
			if got := hex.EncodeToString(sum[:]); got != want {
				t.Errorf("SHA-256 %s, want %s", got, want)
			}
			blockiotest.TestReaderAt(t, im, disk)
		})
	}
}

func testdata(t testing.TB, name string) []byte {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("../testdata/cloop", name))
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// What the layers below are asked for: adjacent blocks together, and nothing
// that is in memory.
func TestReadsAreRuns(t *testing.T) {
	const bs = 4096
	disk := mixed(10 * bs)
	src := &blockiotest.Source{Data: clooptest.Build(disk, bs)}
	ix, err := cloop.Open(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	log := &loggedRuns{Runs: fetch.New(src, ix, fetch.Options{})}
	im := cloop.NewImage(ix, log, cache.NewMemory(4*bs, bs))
	for _, c := range []struct {
		off, n int64
		want   string
	}{
		{0, bs, "[0+1]"},
		{bs / 2, 4 * bs, "[0+5]"},     // blocks 0 and 4 in part: kept
		{0, 5 * bs, "[1+3]"},          // the kept ones are not asked for
		{4*bs + 1, 2*bs - 1, "[5+1]"}, // 4 is kept
		{7 * bs, 1, "[7+1]"},
		{7*bs + 100, 1, "[]"},
		{6 * bs, 4 * bs, "[6+1 8+2]"}, // around the kept 7
	} {
		p := make([]byte, c.n)
		if _, err := im.ReadAtContext(t.Context(), p, c.off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p, disk[c.off:c.off+c.n]) {
			t.Errorf("%d bytes at %d: other bytes", c.n, c.off)
		}
		if got := fmt.Sprint(log.take()); got != c.want {
			t.Errorf("%d bytes at %d: runs %s, want %s", c.n, c.off, got, c.want)
		}
	}
}

// loggedRuns records the runs asked for, as first+count.
type loggedRuns struct {
	blockio.Runs
	runs []string
}

func (l *loggedRuns) ReadRun(ctx context.Context, class blockio.Class, first, count int64,
	deliver func(int64, []byte) error,
) error {
	l.runs = append(l.runs, fmt.Sprintf("%d+%d", first, count))
	return l.Runs.ReadRun(ctx, class, first, count, deliver)
}

func (l *loggedRuns) take() []string {
	runs := l.runs
	l.runs = nil
	return runs
}

// A block that a reader abandons while others wait for it is loaded by one of them.
func TestAbandonedLoad(t *testing.T) {
	t.Run("cancelled", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		testAbandonedLoad(t, ctx, cancel)
	})
	t.Run("out of time", func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		testAbandonedLoad(t, ctx, func() {})
	})
}

func testAbandonedLoad(t *testing.T, ctx context.Context, cancel func()) {
	t.Helper()
	const bs = 4096
	disk := mixed(2 * bs)
	src := &blockiotest.Source{Data: clooptest.Build(disk, bs)}
	ix, err := cloop.Open(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	first := make(chan struct{})
	var once sync.Once
	src.Open = func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
		once.Do(func() { close(first) })
		return body, nil
	}
	runs := fetch.New(src, ix, fetch.Options{})
	defer runs.Close()
	gate := &gatedRuns{Runs: runs, entered: make(chan struct{}, 10)}
	im := cloop.NewImage(ix, gate, cache.NewMemory(bs, bs))

	loader, waiter := make(chan error, 1), make(chan error, 1)
	go func() {
		_, err := im.ReadAtContext(ctx, make([]byte, 10), 0)
		loader <- err
	}()
	<-gate.entered
	p := make([]byte, 10)
	go func() {
		_, err := im.ReadAtContext(t.Context(), p, 20)
		waiter <- err
	}()
	cancel()
	if err := <-loader; err == nil || !errors.Is(err, ctx.Err()) {
		t.Errorf("loader: %v", err)
	}
	if err := <-waiter; err != nil || !bytes.Equal(p, disk[20:30]) {
		t.Errorf("waiter: %v, %q", err, p)
	}
}

// heldRuns delivers a block, or fails, when it is told to.
type heldRuns struct {
	calls  atomic.Int64
	now    chan struct{}
	stored []byte
	why    error
}

func (h *heldRuns) ReadRun(_ context.Context, _ blockio.Class, first, _ int64, deliver func(int64, []byte) error) error {
	h.calls.Add(1)
	<-h.now
	if h.why != nil {
		return h.why
	}
	return deliver(first, h.stored)
}

// What comes of a block is the same for all who wait for it, after one try.
func TestReadersShareALoad(t *testing.T) {
	const bs = 4096
	full := bytes.Repeat([]byte{7}, bs)
	for name, c := range map[string]struct {
		stored, want []byte
		why          error
	}{
		"data":    {stored: clooptest.Deflate(full, 6), want: full[:10]},
		"zeros":   {stored: clooptest.Deflate(make([]byte, bs), 6), want: make([]byte, 10)},
		"failure": {why: errors.New("down")},
	} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ix, err := cloop.Open(t.Context(), &blockiotest.Source{Data: clooptest.Build(mixed(2*bs), bs)})
				if err != nil {
					t.Fatal(err)
				}
				runs := &heldRuns{now: make(chan struct{}), stored: c.stored, why: c.why}
				im := cloop.NewImage(ix, runs, cache.NewMemory(bs, bs))
				var wg sync.WaitGroup
				for range 3 {
					wg.Go(func() {
						p := bytes.Repeat([]byte{1}, 10)
						_, err := im.ReadAtContext(t.Context(), p, 20)
						if !errors.Is(err, c.why) || c.want != nil && !bytes.Equal(p, c.want) {
							t.Errorf("got %v, error %v; want %v, %v", p, err, c.want, c.why)
						}
					})
					synctest.Wait()
				}
				close(runs.now)
				wg.Wait()
				if n := runs.calls.Load(); n != 1 {
					t.Errorf("%d tries, want 1", n)
				}
			})
		})
	}
}

// A bad block is an error also where a block in memory comes between it and the rest of a
// read.
func TestCorruptBeforeMemory(t *testing.T) {
	const bs = 4096
	good := clooptest.Deflate(mixed(bs), zlib.BestSpeed)
	im := openImage(t, &blockiotest.Source{Data: clooptest.Assemble(bs, [][]byte{{1, 2, 3}, good, good})}, 2)
	if _, err := im.ReadAtContext(t.Context(), make([]byte, 10), bs); err != nil {
		t.Fatal(err)
	}
	var be *blockio.BlockError
	if _, err := im.ReadAtContext(t.Context(), make([]byte, 3*bs), 0); !errors.Is(err, cloop.ErrCorrupt) || !errors.As(err, &be) || be.Block != 0 {
		t.Errorf("error %v, want a BlockError of block 0 with ErrCorrupt", err)
	}
}

// gatedRuns lets the first run wait for its context's end.
type gatedRuns struct {
	blockio.Runs
	entered chan struct{}
	once    sync.Once
}

func (g *gatedRuns) ReadRun(ctx context.Context, class blockio.Class, first, count int64,
	deliver func(int64, []byte) error,
) error {
	wait := false
	g.once.Do(func() { wait = true })
	g.entered <- struct{}{}
	if wait {
		<-ctx.Done()
		return ctx.Err()
	}
	return g.Runs.ReadRun(ctx, class, first, count, deliver)
}

// Each mutation of an image with blocks of 4096 bytes breaks one block, or all.
func TestCorruptBlocks(t *testing.T) {
	const bs = 4096
	whole := mixed(bs)
	for name, bad := range map[string][]byte{
		"bit flipped":    flip(clooptest.Deflate(whole, zlib.BestSpeed), 100),
		"bad checksum":   flip(clooptest.Deflate(whole, zlib.BestSpeed), -1),
		"bad header":     flip(clooptest.Deflate(whole, zlib.BestSpeed), 0),
		"cut off":        clooptest.Deflate(whole, zlib.BestSpeed)[:1000],
		"no checksum":    cut(clooptest.Deflate(whole, zlib.BestSpeed), 4),
		"too long":       clooptest.Deflate(append(whole, 0), zlib.BestSpeed),
		"too short":      clooptest.Deflate(whole[:bs-1], zlib.BestSpeed),
		"nothing inside": clooptest.Deflate(nil, zlib.BestSpeed),
		"no stream":      {1, 2, 3},
	} {
		t.Run(name, func(t *testing.T) {
			good := clooptest.Deflate(whole, zlib.DefaultCompression)
			src := &blockiotest.Source{Data: clooptest.Assemble(bs, [][]byte{good, bad, good})}
			im := openImage(t, src, 2)
			for n, want := range []bool{true, false, true} {
				for _, size := range []int{bs, 100} { // in whole and in part
					p := make([]byte, size)
					_, err := im.ReadAtContext(t.Context(), p, int64(n*bs))
					var be *blockio.BlockError
					switch {
					case want && (err != nil || !bytes.Equal(p, whole[:size])):
						t.Errorf("block %d: %v", n, err)
					case !want && (!errors.Is(err, cloop.ErrCorrupt) || !errors.As(err, &be) || be.Block != int64(n)):
						t.Errorf("block %d: %v, want a BlockError with ErrCorrupt", n, err)
					}
				}
			}
		})
	}
}

func flip(p []byte, at int) []byte {
	p[(at+len(p))%len(p)] ^= 1
	return p
}

func cut(p []byte, n int) []byte { return p[:len(p)-n] }

// A stored block of no bytes is a block of zeros.
func TestEmptyStoredBlock(t *testing.T) {
	const bs = 512
	full := clooptest.Deflate(bytes.Repeat([]byte{1}, bs), zlib.BestSpeed)
	im := openImage(t, &blockiotest.Source{Data: clooptest.Assemble(bs, [][]byte{full, nil, full, nil})}, 1)
	want := bytes.Repeat(append(bytes.Repeat([]byte{1}, bs), make([]byte, bs)...), 2)
	blockiotest.TestReaderAt(t, im, want)
}

func BenchmarkImage(b *testing.B) {
	const bs = 64 << 10
	src := &blockiotest.Source{Data: clooptest.Build(mixed(64*bs), bs)}
	for _, c := range []struct {
		name      string
		size, off int64
		memory    int64
	}{
		{"whole blocks", 2 * bs, 0, 1},
		{"part of a block", 4096, 4096, 1},
		{"part of a block in memory", 4096, 4096, 100},
	} {
		b.Run(c.name, func(b *testing.B) {
			im := openImage(b, src, c.memory)
			p := make([]byte, c.size)
			b.SetBytes(c.size)
			b.ReportAllocs()
			off := int64(0)
			for b.Loop() {
				if _, err := im.ReadAtContext(b.Context(), p, c.off+off); err != nil {
					b.Fatal(err)
				}
				off = (off + 2*bs) % im.Size()
			}
			src.Asked()
		})
	}
}
