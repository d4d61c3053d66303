package cloop_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/cloop"
)

// memFile is a file in memory. Its holes are not zeros: who leaves one shows.
type memFile struct {
	mu   sync.Mutex
	data []byte
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if more := off + int64(len(p)) - int64(len(f.data)); more > 0 {
		f.data = append(f.data, bytes.Repeat([]byte{0xcc}, int(more))...)
	}
	return copy(f.data[off:], p), nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bytes.NewReader(f.data).ReadAt(p, off)
}

// decode returns the disk of an image.
func decode(t *testing.T, image []byte) []byte {
	t.Helper()
	im := openImage(t, &blockiotest.Source{Data: image}, 2)
	disk := make([]byte, im.Size())
	if _, err := im.ReadAtContext(t.Context(), disk, 0); err != nil {
		t.Fatal(err)
	}
	return disk
}

// padded returns disk with zeros up to a whole number of blocks.
func padded(disk []byte, blockSize int) []byte {
	p := make([]byte, (len(disk)+blockSize-1)/blockSize*blockSize)
	copy(p, disk)
	return p
}

// create makes an image of disk in memory.
func create(t testing.TB, disk []byte, e cloop.Encoding) []byte {
	t.Helper()
	var out memFile
	sum, err := cloop.Create(t.Context(), &out, &blockiotest.Source{Data: disk}, e, nil)
	if err != nil {
		t.Fatal(err)
	}
	checkSummary(t, sum, len(disk), e.BlockSize, len(out.data))
	return out.data
}

func checkSummary(t testing.TB, sum cloop.Summary, disk, blockSize, image int) {
	t.Helper()
	blocks := (disk-1)/blockSize + 1
	want := cloop.Summary{
		DiskSize: int64(blocks * blockSize), Padding: int64(blocks*blockSize - disk),
		ImageSize: int64(image), Blocks: int64(blocks),
	}
	if sum != want {
		t.Errorf("got %+v, want %+v", sum, want)
	}
}

// encodings are all that there can be, at one level.
func encodings(level int) []cloop.Encoding {
	list := []cloop.Encoding{{Layout: cloop.V2, Level: level}}
	for _, layout := range []cloop.Layout{cloop.V4, cloop.V4Footer} {
		for _, method := range []cloop.Method{cloop.Zlib, cloop.XZ, cloop.LZ4, cloop.Stored, cloop.Best} {
			list = append(list, cloop.Encoding{Layout: layout, Method: method, Level: level})
		}
	}
	return list
}

// What was packed comes out again, from a file and from a stream alike, in every
// encoding and of every size.
func TestCreate(t *testing.T) {
	random := make([]byte, 100_000)
	rand.NewChaCha8([32]byte{1}).Read(random)
	disks := map[string][]byte{
		"a byte": {1}, "a block": mixed(64 << 10), "mixed": mixed(133_333), "zeros": make([]byte, 300_001), "random": random,
		"text": []byte(strings.Repeat("what is in block n? ", 20_000)),
	}
	for _, e := range encodings(6) {
		for name, disk := range disks {
			for _, e.BlockSize = range []int{512, 4096 + 512, 64 << 10, 1 << 20} {
				// xz takes long, most of all with the race detector.
				slow := e.Method == cloop.XZ || e.Method == cloop.Best
				if slow && len(disk) > 1000 && (e.BlockSize == 512 || name != "mixed") {
					continue
				}
				// One layout has all sizes.
				if len(disk) > 1000 && e.BlockSize != 64<<10 && (slow && e.Layout == cloop.V4Footer || !slow && e.Layout == cloop.V4) {
					continue
				}
				t.Run(fmt.Sprintf("%+v %s", e, name), func(t *testing.T) {
					t.Parallel()
					image := create(t, disk, e)
					if !bytes.Equal(decode(t, image), padded(disk, e.BlockSize)) {
						t.Error("decodes to something else")
					}
					checkKind(t, image, e)
					var out memFile
					sum, err := cloop.CreateStream(t.Context(), &out, iotest.HalfReader(bytes.NewReader(disk)), e, nil)
					if err != nil {
						t.Fatal(err)
					}
					checkSummary(t, sum, len(disk), e.BlockSize, len(out.data))
					if !bytes.Equal(out.data, image) {
						t.Error("other bytes from a stream than from a file")
					}
				})
			}
		}
	}
}

// checkKind compares what an image is with what it should be.
func checkKind(t *testing.T, image []byte, e cloop.Encoding) {
	t.Helper()
	ix, err := cloop.Open(t.Context(), &blockiotest.Source{Data: image})
	if err != nil {
		t.Fatal(err)
	}
	format := "V4.0"
	if e.Layout == cloop.V2 {
		format = "V2.0"
	}
	if ix.Format() != format || ix.HeaderLast() != (e.Layout == cloop.V4Footer) {
		t.Errorf("the format is %s, header last %v", ix.Format(), ix.HeaderLast())
	}
	stats, err := ix.Stats(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	may := map[cloop.Method]string{
		cloop.Zlib: "zlib", cloop.XZ: "xz", cloop.Stored: "stored", cloop.LZ4: "lz4 stored", cloop.Best: "zlib xz lz4 stored",
	}[e.Method]
	for _, s := range stats {
		if !strings.Contains(may, s.Codec) {
			t.Errorf("%d blocks in %s", s.Blocks, s.Codec)
		}
	}
}

// The largest blocks there are.
func TestCreateLargeBlocks(t *testing.T) {
	disk := make([]byte, 65<<20)
	copy(disk[63<<20:], mixed(2<<20))
	e := cloop.Encoding{BlockSize: 64 << 20, Level: 1}
	if !bytes.Equal(decode(t, create(t, disk, e)), padded(disk, e.BlockSize)) {
		t.Error("decodes to something else")
	}
}

// No choice is longer than the best one.
func TestBestIsShortest(t *testing.T) {
	disk := mixed(200_000)
	size := func(m cloop.Method) int {
		return len(create(t, disk, cloop.Encoding{Layout: cloop.V4, Method: m, Level: 9, BlockSize: 16 << 10}))
	}
	best := size(cloop.Best)
	for _, m := range []cloop.Method{cloop.Zlib, cloop.XZ, cloop.LZ4, cloop.Stored} {
		if s := size(m); s <= best {
			t.Errorf("%d bytes by method %d, %d by the best of all", s, m, best)
		}
	}
}

// The number of cores changes nothing.
func TestCreateIsDeterministic(t *testing.T) {
	disk := make([]byte, 2_200_000) // three chunks
	for i := range 3 {
		copy(disk[i<<20:], mixed(150_000))
	}
	for _, e := range []cloop.Encoding{{Layout: cloop.V2, Level: 9}, {Layout: cloop.V4Footer, Method: cloop.Best, Level: 9}} {
		e.BlockSize = 64 << 10
		var first []byte
		for _, cores := range []int{1, 2, 7} {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(cores))
			image := create(t, disk, e)
			if first == nil {
				first = image
			} else if !bytes.Equal(image, first) {
				t.Errorf("%+v: other bytes on %d cores", e, cores)
			}
		}
	}
}

// Who looks for a header at the start finds none where it is last, even if the disk
// begins with one.
func TestFooterIsFound(t *testing.T) {
	inner := create(t, mixed(10_000), cloop.Encoding{BlockSize: 4096, Level: 9})
	e := cloop.Encoding{Layout: cloop.V4Footer, BlockSize: 4096}
	for _, e.Method = range []cloop.Method{cloop.Stored, cloop.Zlib} { // zlib of level 0 copies, too
		for shift := range 16 { // V2.0 at every place that might be looked at
			disk := inner[shift:]
			if !bytes.Equal(decode(t, create(t, disk, e)), padded(disk, 4096)) {
				t.Errorf("%+v: an image of the image from byte %d on decodes to something else", e, shift)
			}
		}
	}
}

// holes is a disk that knows its zeros and can't be read there.
type holes struct {
	*blockiotest.Source
	t testing.TB
}

func (h *holes) MapAt(_ context.Context, off int64) (int64, bool, error) {
	zero := h.Data[off] == 0
	n := int64(1)
	for off+n < int64(len(h.Data)) && (h.Data[off+n] == 0) == zero {
		n++
	}
	return n, zero, nil
}

func (h *holes) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := h.Source.ReadAtContext(ctx, p, off)
	if bytes.IndexByte(p[:n], 0) >= 0 {
		h.t.Error("zeros were read that were known")
	}
	return n, err
}

func TestHolesAreNotRead(t *testing.T) {
	disk := make([]byte, 5_000_000)
	for _, at := range []int{10, 3_000_000, 3_100_000} {
		copy(disk[at:], bytes.Repeat([]byte{1}, 5000))
	}
	var out memFile
	e := cloop.Encoding{BlockSize: 4096, Level: 9}
	src := &holes{&blockiotest.Source{Data: disk}, t}
	if _, err := cloop.Create(t.Context(), &out, src, e, nil); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(out.data, create(t, disk, e)) {
		t.Error("holes are not zeros")
	}
}

// failing is a disk, or an output, that fails after so many bytes.
type failing struct {
	*blockiotest.Source
	after int64
	err   error
}

func (f *failing) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.after {
		return 0, f.err
	}
	return f.Source.ReadAtContext(ctx, p, off)
}

func (f *failing) WriteAt(p []byte, off int64) (int, error) {
	if off+int64(len(p)) > f.after {
		return 0, f.err
	}
	return len(p), nil
}

var errTest = errors.New("test")

func TestCreateFails(t *testing.T) {
	disk := mixed(10 << 20)
	source := &blockiotest.Source{Data: disk}
	e := cloop.Encoding{Layout: cloop.V4, Method: cloop.Stored, BlockSize: 64 << 10}
	footer := e
	footer.Layout = cloop.V4Footer
	for name, c := range map[string]struct {
		create func() (cloop.Summary, error)
		want   error
	}{
		"read": {func() (cloop.Summary, error) {
			return cloop.Create(t.Context(), &memFile{}, &failing{source, 3 << 20, errTest}, e, nil)
		}, errTest},
		"a disk that shrank": {func() (cloop.Summary, error) {
			return cloop.Create(t.Context(), &memFile{}, &failing{source, 3 << 20, io.EOF}, e, nil)
		}, blockio.ErrShortSource},
		"read a stream": {func() (cloop.Summary, error) {
			r := io.MultiReader(bytes.NewReader(disk), iotest.ErrReader(errTest))
			return cloop.CreateStream(t.Context(), &memFile{}, r, e, nil)
		}, errTest},
		"write": {func() (cloop.Summary, error) {
			return cloop.Create(t.Context(), &failing{after: 3 << 20, err: errTest}, source, e, nil)
		}, errTest},
		"write the end": {func() (cloop.Summary, error) {
			return cloop.Create(t.Context(), &failing{after: 10<<20 + 500, err: errTest}, source, footer, nil)
		}, errTest},
		"write to a pipe": {func() (cloop.Summary, error) {
			return cloop.Create(t.Context(), cloop.Sequential(badWriter{}), source, footer, nil)
		}, errTest},
		"an empty disk": {func() (cloop.Summary, error) {
			return cloop.Create(t.Context(), &memFile{}, &blockiotest.Source{}, e, nil)
		}, cloop.ErrEmptyDisk},
		"an empty stream": {func() (cloop.Summary, error) {
			return cloop.CreateStream(t.Context(), &memFile{}, strings.NewReader(""), e, nil)
		}, cloop.ErrEmptyDisk},
		"a stream that hangs": {func() (cloop.Summary, error) {
			ctx, cancel := context.WithCancel(t.Context())
			return cloop.CreateStream(ctx, &memFile{}, hanging(cancel), e, nil)
		}, context.Canceled},
	} {
		t.Run(name, func(t *testing.T) {
			if _, err := c.create(); !errors.Is(err, c.want) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// badWriter fails with its first byte.
type badWriter struct{}

func (badWriter) Write([]byte) (int, error) { return 0, errTest }

// hanging is a reader that calls cancel and never returns.
type hanging func()

func (h hanging) Read([]byte) (int, error) {
	h()
	select {}
}

func TestSequential(t *testing.T) {
	var buf bytes.Buffer
	w := cloop.Sequential(&buf)
	for _, s := range []struct {
		p   string
		off int64
		ok  bool
	}{{"ab", 0, true}, {"c", 2, true}, {"x", 0, false}, {"x", 4, false}, {"d", 3, true}} {
		if _, err := w.WriteAt([]byte(s.p), s.off); (err == nil) != s.ok {
			t.Errorf("write %q at %d: %v", s.p, s.off, err)
		}
	}
	if buf.String() != "abcd" {
		t.Errorf("got %q", &buf)
	}
}

func TestEncodingCheck(t *testing.T) {
	good := cloop.Encoding{BlockSize: 64 << 10, Level: 9}
	if err := good.Check(); err != nil {
		t.Error(err)
	}
	for _, change := range []func(*cloop.Encoding){
		func(e *cloop.Encoding) { e.BlockSize = 0 },
		func(e *cloop.Encoding) { e.BlockSize = -512 },
		func(e *cloop.Encoding) { e.BlockSize = 1000 },
		func(e *cloop.Encoding) { e.BlockSize = 64<<20 + 512 },
		func(e *cloop.Encoding) { e.Level = 10 },
		func(e *cloop.Encoding) { e.Level = -1 },
		func(e *cloop.Encoding) { e.Method = cloop.XZ },
		func(e *cloop.Encoding) { e.Layout, e.Method = cloop.V4, 9 },
		func(e *cloop.Encoding) { e.Layout = 9 },
	} {
		e := good
		change(&e)
		if err := e.Check(); !errors.Is(err, cloop.ErrEncoding) {
			t.Errorf("%+v: %v", e, err)
		}
	}
}

// A disk of any size takes as much memory as another.
func TestCreateMemoryIsBounded(t *testing.T) {
	defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(2))
	out, err := os.Create(filepath.Join(t.TempDir(), "image"))
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	heap, count := newHeapWatch(), 0
	watch := func(int64) {
		if count++; count%8 == 0 {
			heap.look()
		}
	}
	e := cloop.Encoding{BlockSize: 64 << 10, Level: 1}
	if _, err := cloop.CreateStream(t.Context(), out, io.LimitReader(rand.NewChaCha8([32]byte{}), 48<<20), e, watch); err != nil {
		t.Fatal(err)
	}
	if heap.most > 32<<20 {
		t.Errorf("%d bytes were in use", heap.most)
	}
	t.Logf("%d KiB", heap.most>>10)
}

// heapWatch measures what is alive on the heap, beside what was in the beginning.
type heapWatch struct{ before, most int64 }

func newHeapWatch() *heapWatch {
	w := &heapWatch{}
	w.look()
	return &heapWatch{before: w.most}
}

func (w *heapWatch) look() {
	runtime.GC()
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	w.most = max(w.most, int64(m.HeapAlloc)-w.before)
}
