package cloop_test

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"strings"
	"testing"

	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/cloop/clooptest"
)

// A good image of 4 blocks of 512 bytes; entry i of its index is at 136+8i.
func goodImage() []byte {
	return clooptest.Assemble(512, [][]byte{make([]byte, 10), make([]byte, 20), make([]byte, 0), make([]byte, 30)})
}

func put32(off int, v uint32) func([]byte) []byte {
	return func(p []byte) []byte { binary.BigEndian.PutUint32(p[off:], v); return p }
}

func put64(off int, v uint64) func([]byte) []byte {
	return func(p []byte) []byte { binary.BigEndian.PutUint64(p[off:], v); return p }
}

func TestOpenRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		mess func([]byte) []byte
		want error
		says string
	}{
		{"nothing", func([]byte) []byte { return nil }, cloop.ErrFormat, "0 bytes"},
		{"less than a header", func(p []byte) []byte { return p[:135] }, cloop.ErrFormat, "135 bytes"},
		{"another file", func(p []byte) []byte { copy(p, "<!doctype html>"); return p }, cloop.ErrFormat, ""},
		{"version 4.0", func(p []byte) []byte { p[12] = '4'; return p }, cloop.ErrUnsupported, "version 4.0"},
		{"block size 0", put32(128, 0), cloop.ErrCorrupt, "block size 0"},
		{"block size no multiple of 512", put32(128, 1000), cloop.ErrCorrupt, "block size 1000"},
		{"block size too large", put32(128, 64<<20+512), cloop.ErrCorrupt, "block size"},
		{"no blocks", put32(132, 0), cloop.ErrCorrupt, "no blocks"},
		{"more blocks than fit", put32(132, 100), cloop.ErrCorrupt, "100 blocks"},
		{"very many blocks", put32(132, 1<<32-1), cloop.ErrCorrupt, "4294967295 blocks"},
		{"index cut off", func(p []byte) []byte { return p[:136+8*5-1] }, cloop.ErrCorrupt, "cut off"},
		{"first block in the header", put64(136, 100), cloop.ErrCorrupt, "block 0 starts at 100"},
		{"first block in the index", put64(136, 175), cloop.ErrCorrupt, "block 0 starts at 175"},
		{"offsets run backwards", put64(136+8*2, 180), cloop.ErrCorrupt, "block 1 ends at 180"},
		{"negative offset", put64(136+8*2, 1<<63), cloop.ErrCorrupt, "block 1"},
		{"behind the end", put64(136+8*4, 1000), cloop.ErrCorrupt, "block 3 ends at 1000"},
		{"first behind the end", put64(136, 1<<40), cloop.ErrCorrupt, "block 0"},
		{"data cut off", func(p []byte) []byte { return p[:len(p)-1] }, cloop.ErrCorrupt, "cut off"},
		{"block too long", func(p []byte) []byte {
			return put64(136+8*4, 100_000)(append(p, make([]byte, 200_000)...))
		}, cloop.ErrCorrupt, "block 3"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := cloop.Open(t.Context(), &blockiotest.Source{Data: c.mess(goodImage())})
			if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("Open: %v; want %v, saying %q", err, c.want, c.says)
			}
		})
	}
}

// Bytes behind the last block are legal: writers pad.
func TestOpenAcceptsPadding(t *testing.T) {
	ix, err := cloop.Open(t.Context(), &blockiotest.Source{Data: append(goodImage(), make([]byte, 2048)...)})
	if err != nil {
		t.Fatal(err)
	}
	e, err := ix.Extent(t.Context(), 3)
	if err != nil || e.Off != 136+8*5+30 || e.Len != 30 {
		t.Errorf("Extent(3) = %v, %v", e, err)
	}
	for _, n := range []int64{-1, 4} {
		if _, err := ix.Extent(t.Context(), n); err == nil {
			t.Errorf("Extent(%d) of 4 blocks: no error", n)
		}
	}
}

// An index too large to be held is refused before it is read.
func TestOpenRefusesAHugeIndex(t *testing.T) {
	const blocks = 9 << 20
	src := &hugeSource{header: put32(132, blocks)(goodImage())[:136], size: 136 + 8*(blocks+1) + 1<<20}
	_, err := cloop.Open(t.Context(), src)
	if !errors.Is(err, cloop.ErrUnsupported) || src.read > 136 {
		t.Errorf("Open: %v after %d bytes; want ErrUnsupported after the header", err, src.read)
	}
}

// hugeSource claims to be of any size, and has a header alone.
type hugeSource struct {
	header []byte
	size   int64
	read   int
}

func (s *hugeSource) Size() int64 { return s.size }

func (s *hugeSource) ReadAtContext(_ context.Context, p []byte, off int64) (int, error) {
	s.read += len(p)
	return copy(p, s.header[min(off, int64(len(s.header))):]), nil
}

// A header that claims very much costs no memory.
func TestOpenIsBounded(t *testing.T) {
	image := put32(132, 1<<32-1)(goodImage())
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	if _, err := cloop.Open(t.Context(), &blockiotest.Source{Data: image}); err == nil {
		t.Error("no error")
	}
	runtime.ReadMemStats(&after)
	if d := after.TotalAlloc - before.TotalAlloc; d > 1<<20 {
		t.Errorf("%d bytes allocated for an image of %d", d, len(image))
	}
}

// FuzzOpen opens anything as an image and reads it from end to end if it is small.
func FuzzOpen(f *testing.F) {
	f.Add(goodImage())
	for _, name := range []string{"v2-64k-zlib9.cloop", "v2-128k-7zip.cloop", "v2-64k-odd.cloop"} {
		f.Add(testdata(f, name))
	}
	f.Fuzz(func(t *testing.T, image []byte) {
		src := &blockiotest.Source{Data: image}
		ix, err := cloop.Open(t.Context(), src)
		if err != nil {
			if !errors.Is(err, cloop.ErrFormat) && !errors.Is(err, cloop.ErrUnsupported) && !errors.Is(err, cloop.ErrCorrupt) {
				t.Errorf("error of no kind: %v", err)
			}
			return
		}
		prev := int64(0)
		for n := range ix.Blocks() {
			e, err := ix.Extent(t.Context(), n)
			if err != nil || e.Off < prev || e.Len < 0 || e.End() > src.Size() {
				t.Fatalf("Extent(%d) = %v, %v", n, e, err)
			}
			prev = e.End()
		}
		im := openImage(t, src, 2)
		if im.Size() > 16<<20 {
			return
		}
		p := make([]byte, 100_000)
		for off := int64(0); off < im.Size(); off += int64(len(p)) {
			n, err := im.ReadAtContext(t.Context(), p, off)
			if err != nil && err != io.EOF && !errors.Is(err, cloop.ErrCorrupt) || n == 0 && err == nil {
				t.Errorf("read at %d: %d, %v", off, n, err)
			}
		}
	})
}
