package cloop_test

import (
	"bytes"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/fetch"
)

// base is an image with changes to it.
type base struct {
	image   []byte
	ix      *cloop.Index
	runs    blockio.Runs
	disk    []byte // with the changes
	changed map[int64]bool
}

// newBase opens an image.
func newBase(t *testing.T, image []byte) *base {
	t.Helper()
	src := &blockiotest.Source{Data: image}
	ix, err := cloop.Open(t.Context(), src)
	if errors.Is(err, cloop.ErrFormat) {
		ix, err = cloop.Raw(int64(len(image)))
	}
	if err != nil {
		t.Fatal(err)
	}
	runs := fetch.New(src, ix, fetch.Options{})
	t.Cleanup(runs.Close)
	b := &base{image: image, ix: ix, runs: runs, changed: make(map[int64]bool)}
	if ix.Raw() {
		b.disk = bytes.Clone(image)
	} else {
		b.disk = decode(t, image)
	}
	return b
}

// change writes into block n.
func (b *base) change(n int64) {
	b.changed[n] = true
	copy(b.disk[n*int64(b.ix.BlockSize())+100:], fmt.Sprintf("something else in block %d", n))
}

func (b *base) changes() cloop.Changes {
	return cloop.Changes{
		Base: b.ix, Runs: b.runs, Disk: &blockiotest.Source{Data: b.disk},
		Changed: func(n int64) bool { return b.changed[n] },
	}
}

// stored returns the stored bytes of block n of an image.
func stored(t *testing.T, image []byte, n int64) []byte {
	t.Helper()
	ix, err := cloop.Open(t.Context(), &blockiotest.Source{Data: image})
	if err != nil {
		t.Fatal(err)
	}
	ext, err := ix.Extent(t.Context(), n)
	if err != nil {
		t.Fatal(err)
	}
	return image[ext.Off:ext.End()]
}

// bases are images of every version, layout and codec, and disks that are none.
func bases(t *testing.T) map[string][]byte {
	list := make(map[string][]byte)
	paths, err := filepath.Glob("../testdata/cloop/*.cloop")
	if err != nil || len(paths) == 0 {
		t.Fatal(paths, err)
	}
	for _, path := range paths {
		list[filepath.Base(path)] = testdata(t, filepath.Base(path))
	}
	const size = 4096
	disk := mixed(20*size - 99)
	list["short last block"] = clooptest.Build(disk, size)
	zlib := [][]byte{}
	for off := 0; off < len(disk); off += size {
		block := padded(disk[off:min(off+size, len(disk))], size)
		if len(bytes.Trim(block, "\x00")) == 0 {
			zlib = append(zlib, nil) // as mkuzip does it
		} else {
			zlib = append(zlib, clooptest.Deflate(block, 6))
		}
	}
	list["uzip"] = clooptest.Assemble(size, zlib)
	list["v2 with a footer"] = clooptest.AssembleLast(size, zlib)
	for _, e := range encodings(6) {
		e.BlockSize = size
		list[fmt.Sprintf("made here: %+v", e)] = create(t, disk, e)
	}
	list["raw"] = mixed(200_000)
	return list
}

// The blocks that did not change are stored as they were, and the image is what the
// disk is.
func TestCommit(t *testing.T) {
	for name, image := range bases(t) {
		t.Run(name, func(t *testing.T) {
			last := newBase(t, image).ix.Blocks() - 1
			for _, changed := range [][]int64{{}, {0}, {1, last / 2, last - 1}, {last}} {
				b := newBase(t, image)
				for _, n := range changed {
					b.change(n)
				}
				b.checkCommit(t)
			}
		})
	}
}

// checkCommit makes an image of b, and compares.
func (b *base) checkCommit(t *testing.T) {
	t.Helper()
	var out memFile
	sum, err := cloop.Commit(t.Context(), &out, b.changes(), cloop.Zlib, 9, nil)
	if err != nil {
		t.Fatal(err)
	}
	disk := padded(b.disk, b.ix.BlockSize())
	if !bytes.Equal(decode(t, out.data), disk) {
		t.Error("decodes to something else")
	}
	ix, err := cloop.Open(t.Context(), &blockiotest.Source{Data: out.data})
	if err != nil {
		t.Fatal(err)
	}
	if want := b.format(t); ix.Format() != want || ix.HeaderLast() || ix.BlockSize() != b.ix.BlockSize() {
		t.Errorf("the format is %s with blocks of %d, want %s", ix.Format(), ix.BlockSize(), want)
	}
	copied := int64(0)
	for n := range b.ix.Blocks() {
		now := stored(t, out.data, n)
		if ix.Format() == "V2.0" {
			checkZlib(t, n, now, b.ix.BlockSize())
		}
		if b.ix.Raw() || b.changed[n] {
			continue
		}
		was := stored(t, b.image, n)
		if bytes.Equal(was, now) {
			copied++
		} else if len(was) > 0 && n != b.ix.Blocks()-1 {
			t.Errorf("block %d was stored anew", n)
		}
	}
	if sum.Copied != copied || sum.DiskSize != int64(len(disk)) || sum.ImageSize != int64(len(out.data)) {
		t.Errorf("got %+v; %d blocks were copied, the image has %d bytes", sum, copied, len(out.data))
	}
}

// checkZlib checks that block n is a zlib stream of size bytes, as strict readers
// want it.
func checkZlib(t *testing.T, n int64, stored []byte, size int) {
	t.Helper()
	zr, err := zlib.NewReader(bytes.NewReader(stored))
	if err != nil {
		t.Errorf("block %d: %v", n, err)
		return
	}
	if got, err := io.Copy(io.Discard, zr); got != int64(size) || err != nil {
		t.Errorf("block %d has %d bytes, and then: %v", n, got, err)
	}
}

// format is what an image with b as its base has to be.
func (b *base) format(t *testing.T) string {
	t.Helper()
	stats, err := b.ix.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(stats) == 1 && stats[0].Codec == "zlib" || b.ix.Raw() {
		return "V2.0"
	}
	return "V4.0"
}

// Another method than zlib needs version 4.0.
func TestCommitByOtherMethods(t *testing.T) {
	b := newBase(t, clooptest.Build(mixed(1_000_000), 16<<10))
	b.change(3)
	for _, m := range []cloop.Method{cloop.XZ, cloop.LZ4, cloop.Stored, cloop.Best} {
		var out memFile
		if _, err := cloop.Commit(t.Context(), &out, b.changes(), m, 9, nil); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(decode(t, out.data), b.disk) {
			t.Errorf("method %d: decodes to something else", m)
		}
	}
}

// A block that is bad is not copied, nor is it missed when it changed.
func TestCommitOfCorruptBase(t *testing.T) {
	const size = 4096
	disk := mixed(100 * size)
	good := clooptest.Build(disk, size)
	for name, spoil := range map[string]func(image []byte){
		"stored bytes": func(image []byte) {
			s := stored(t, good, 7)
			copy(image[bytes.Index(good, s)+len(s)/2:], "damage")
		},
		"entry": func(image []byte) { image[136+8*7] = 0xff },
	} {
		t.Run(name, func(t *testing.T) {
			image := bytes.Clone(good)
			spoil(image)
			src := &blockiotest.Source{Data: image}
			ix, err := cloop.Open(t.Context(), src)
			if err != nil {
				t.Fatal(err)
			}
			runs := fetch.New(src, ix, fetch.Options{})
			defer runs.Close()
			b := &base{image: image, ix: ix, runs: runs, disk: bytes.Clone(disk), changed: map[int64]bool{}}
			_, err = cloop.Commit(t.Context(), &memFile{}, b.changes(), cloop.Zlib, 9, nil)
			var bad *blockio.BlockError
			if !errors.Is(err, cloop.ErrCorrupt) || !errors.As(err, &bad) || bad.Block != 6 && bad.Block != 7 {
				t.Errorf("got %v", err)
			}
			b.change(6) // whose end is the bad entry
			b.change(7)
			var out memFile
			if _, err = cloop.Commit(t.Context(), &out, b.changes(), cloop.Zlib, 9, nil); err != nil {
				t.Fatal(err)
			}
			if !bytes.Equal(decode(t, out.data), b.disk) {
				t.Error("decodes to something else")
			}
		})
	}
}

// Stored blocks are asked for in long runs.
func TestCommitReadsRuns(t *testing.T) {
	disk := make([]byte, 20<<20) // 320 blocks
	copy(disk[10<<20:], mixed(1<<20))
	b := newBase(t, clooptest.Build(disk, 64<<10))
	b.change(100)
	log := &lockedRuns{Runs: b.runs}
	b.runs = log
	if _, err := cloop.Commit(t.Context(), &memFile{}, b.changes(), cloop.Zlib, 1, nil); err != nil {
		t.Fatal(err)
	}
	if got := len(log.runs); got != 6 {
		t.Errorf("%d runs: %s; want 6", got, strings.Join(log.runs, " "))
	}
}

// wasteful is an image of blocks of 512 bytes, each the same and stored in 64 KiB
// more than it needs. Of its bytes there is one block in memory.
type wasteful struct {
	*blockiotest.Source // header and index
	size                int64
	block               []byte
	most                atomic.Int64 // bytes of the longest run
}

func newWasteful(blocks int64) *wasteful {
	const size = 512
	w := &wasteful{block: append(clooptest.Deflate(mixed(size), 9), make([]byte, 64<<10)...)}
	data := clooptest.Header("V2.0", size, int(blocks))
	start := int64(len(data)) + 8*(blocks+1)
	for n := range blocks + 1 {
		data = binary.BigEndian.AppendUint64(data, uint64(start+n*int64(len(w.block))))
	}
	w.Source = &blockiotest.Source{Data: data}
	w.size = start + blocks*int64(len(w.block))
	return w
}

func (w *wasteful) Size() int64 { return w.size }

func (w *wasteful) ReadRun(_ context.Context, _ blockio.Class, first, count int64, deliver func(int64, []byte) error) error {
	for size := count * int64(len(w.block)); ; {
		if most := w.most.Load(); most >= size || w.most.CompareAndSwap(most, size) {
			break
		}
	}
	for n := first; n < first+count; n++ {
		if err := deliver(n, w.block); err != nil {
			return err
		}
	}
	return nil
}

// A base takes as much memory as another, whatever its blocks are stored in.
func TestCommitMemoryIsBounded(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	const blocks = 3000 // 1.5 MB in 200 MB
	w := newWasteful(blocks)
	ix, err := cloop.Open(t.Context(), w)
	if err != nil {
		t.Fatal(err)
	}
	disk := bytes.Repeat(mixed(512), blocks)
	c := cloop.Changes{Base: ix, Runs: w, Disk: &blockiotest.Source{Data: disk}, Changed: func(n int64) bool { return n%1000 == 0 }}
	heap := newHeapWatch()
	sum, err := cloop.Commit(t.Context(), discard{}, c, cloop.Zlib, 9, func(int64) { heap.look() })
	if err != nil || sum.Copied != blocks-3 {
		t.Fatalf("got %+v, %v", sum, err)
	}
	if most := w.most.Load(); most > 5<<20 {
		t.Errorf("a run of %d bytes", most)
	}
	if heap.most > 64<<20 { // eight chunks of 5 MiB and the buffers of Commit
		t.Errorf("%d bytes were in use", heap.most)
	}
	t.Logf("%d KiB", heap.most>>10)
}

// discard is an output that nobody wants.
type discard struct{}

func (discard) WriteAt(p []byte, _ int64) (int, error) { return len(p), nil }

// lockedRuns records the runs asked for by several readers.
type lockedRuns struct {
	blockio.Runs
	mu   sync.Mutex
	runs []string
}

func (l *lockedRuns) ReadRun(ctx context.Context, class blockio.Class, first, count int64,
	deliver func(int64, []byte) error,
) error {
	l.mu.Lock()
	l.runs = append(l.runs, fmt.Sprintf("%d+%d", first, count))
	l.mu.Unlock()
	return l.Runs.ReadRun(ctx, class, first, count, deliver)
}

func TestCommitFails(t *testing.T) {
	b := newBase(t, clooptest.Build(mixed(1_000_000), 64<<10))
	b.change(3)
	c := b.changes()
	c.Disk = &blockiotest.Source{Data: b.disk[1:]}
	if _, err := cloop.Commit(t.Context(), &memFile{}, c, cloop.Zlib, 9, nil); err == nil {
		t.Error("a disk of another size: no error")
	}
	c.Disk = &failing{&blockiotest.Source{Data: b.disk}, 3 << 16, errTest}
	if _, err := cloop.Commit(t.Context(), &memFile{}, c, cloop.Zlib, 9, nil); !errors.Is(err, errTest) {
		t.Errorf("the disk fails: %v", err)
	}
	if _, err := cloop.Commit(t.Context(), &memFile{}, b.changes(), cloop.Zlib, 10, nil); !errors.Is(err, cloop.ErrEncoding) {
		t.Errorf("level 10: %v", err)
	}
	if _, err := cloop.Commit(t.Context(), &failing{after: 5000, err: os.ErrClosed}, b.changes(), cloop.Zlib, 9, nil); !errors.Is(err, os.ErrClosed) {
		t.Errorf("the output fails: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := cloop.Commit(ctx, &memFile{}, b.changes(), cloop.Zlib, 9, nil); !errors.Is(err, context.Canceled) {
		t.Errorf("cancelled: %v", err)
	}
}
