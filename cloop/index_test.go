package cloop_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
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

// letters replaces the version in the preamble.
func letters(version string) func([]byte) []byte {
	return func(p []byte) []byte { copy(p[11:], version); return p }
}

// atEnd moves the header behind everything else.
func atEnd(p []byte) []byte { return append(p[136:], p[:136]...) }

func TestOpenRefuses(t *testing.T) {
	for _, c := range []struct {
		name string
		mess func([]byte) []byte
		want error
		says string
	}{
		{"nothing", func([]byte) []byte { return nil }, cloop.ErrFormat, "0 bytes"},
		{"less than a header", func(p []byte) []byte { return p[:135] }, cloop.ErrFormat, "135 bytes"},
		{"another file", func(p []byte) []byte { return bytes.Repeat([]byte("<!doctype html>"), 100) }, cloop.ErrFormat, ""},
		{"another script", letters("hello"), cloop.ErrFormat, ""},
		{"another version", letters("V1.0"), cloop.ErrUnsupported, "version 1.0"},
		{"version 3", func(p []byte) []byte {
			return append(letters("none")(p), "\nCLOOP3\n"...)
		}, cloop.ErrUnsupported, "version 3"},
		{"32-bit offsets", func(p []byte) []byte {
			return put32(136, 136+4*5)(letters(" old")(p))
		}, cloop.ErrUnsupported, "0.68 or older"},
		{"uzip with xz", letters("L3.0"), cloop.ErrUnsupported, "FreeBSD uzip with xz"},
		{"uzip with xz, shared", letters("l3.0"), cloop.ErrUnsupported, "FreeBSD uzip with xz"},
		{"uzip with zstd", letters("Z4.0"), cloop.ErrUnsupported, "FreeBSD uzip with zstd"},
		{"uzip with zstd, shared", letters("z4.0"), cloop.ErrUnsupported, "FreeBSD uzip with zstd"},
		{"uzip with zlib, shared", letters("v3.0"), cloop.ErrUnsupported, "shared blocks"},
		{"block size 0", put32(128, 0), cloop.ErrCorrupt, "block size 0"},
		{"block size no multiple of 512", put32(128, 1000), cloop.ErrCorrupt, "block size 1000"},
		{"block size too large", put32(128, 64<<20+512), cloop.ErrCorrupt, "block size"},
		{"no blocks", put32(132, 0), cloop.ErrCorrupt, "no blocks"},
		{"more blocks than fit", put32(132, 100), cloop.ErrCorrupt, "100 blocks"},
		{"very many blocks", put32(132, 1<<32-1), cloop.ErrCorrupt, "4294967295 blocks"},
		{"very many blocks, header last", func(p []byte) []byte {
			return atEnd(put32(132, 1<<32-1)(p))
		}, cloop.ErrCorrupt, "4294967295 blocks"},
		{"index cut off", func(p []byte) []byte { return p[:136+8*5-1] }, cloop.ErrCorrupt, "cut off"},
		{"first block in the header", put64(136, 100), cloop.ErrCorrupt, "block 0 starts at 100"},
		{"first block in the index", put64(136, 175), cloop.ErrCorrupt, "block 0 starts at 175"},
		{"last behind the end", put64(136+8*4, 300), cloop.ErrCorrupt, "block 3 ends at 300"},
		{"data cut off", func(p []byte) []byte { return p[:len(p)-1] }, cloop.ErrCorrupt, "cut off"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := cloop.Open(t.Context(), &blockiotest.Source{Data: c.mess(goodImage())})
			if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) {
				t.Errorf("Open: %v; want %v, saying %q", err, c.want, c.says)
			}
		})
	}
}

// A bad entry makes bad the blocks that it bounds, and no others.
func TestBadEntry(t *testing.T) {
	for _, c := range []struct {
		name string
		mess func([]byte) []byte
		bad  []int64
		says string
	}{
		{"none", func(p []byte) []byte { return p }, nil, ""},
		{"runs backwards", put64(136+8*2, 180), []int64{1}, "block 1 ends at 180, before its start"},
		{"negative", put64(136+8*2, 1<<63), []int64{1, 2}, "block 1"},
		{"behind the end", put64(136+8*2, 1000), []int64{1, 2}, "block 1 ends at 1000"},
		{"too long", func(p []byte) []byte {
			p = append(p, make([]byte, 200_000)...)
			return put64(136+8*3, 150_000)(put64(136+8*4, 150_010)(p))
		}, []int64{2}, "block 2 has 1"},
		{"unknown codec", func(p []byte) []byte {
			return put64(136+8*1, 5<<60|186)(letters("V4.0")(p))
		}, []int64{1}, "unknown codec 5"},
		{"codec in version 2.0", put64(136+8*1, 1<<60|186), []int64{0, 1}, "block 0 ends at"},
	} {
		t.Run(c.name, func(t *testing.T) {
			data := c.mess(goodImage())
			if slices.Contains(c.bad, 0) {
				if _, err := cloop.Open(t.Context(), &blockiotest.Source{Data: data}); !errors.Is(err, cloop.ErrCorrupt) {
					t.Errorf("Open: %v, want ErrCorrupt", err)
				}
				return
			}
			ix, err := cloop.Open(t.Context(), &blockiotest.Source{Data: data})
			if err != nil {
				t.Fatal(err)
			}
			says := ""
			for n := range ix.Blocks() {
				_, err := ix.Extent(t.Context(), n)
				if bad := slices.Contains(c.bad, n); bad != errors.Is(err, cloop.ErrCorrupt) {
					t.Errorf("Extent(%d): %v, want ErrCorrupt: %v", n, err, bad)
				}
				if err != nil {
					says += err.Error()
					var bad *cloop.EntryError
					if !errors.As(err, &bad) || bad.Reason == "" || strings.ContainsAny(bad.Reason, "0123456789") {
						t.Errorf("Extent(%d): %v, want an EntryError with a reason without numbers", n, err)
					}
				}
			}
			if !strings.Contains(says, c.says) {
				t.Errorf("errors %q, want %q in them", says, c.says)
			}
		})
	}
}

// Who does not wait learns of a bad entry, and takes nothing from others: its page is not
// thrown away.
func TestBadEntryAtOnce(t *testing.T) {
	src := &blockiotest.Source{Data: put64(136+8*2, 180)(goodImage())}
	ix, err := cloop.Open(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	src.Asked()
	for _, c := range []struct {
		ctx  context.Context
		want int // requests
	}{{blockio.AtOnce, 0}, {blockio.AtOnce, 0}, {t.Context(), 1}} {
		if _, err := ix.Extent(c.ctx, 1); !errors.Is(err, cloop.ErrCorrupt) {
			t.Errorf("Extent(1): %v, want ErrCorrupt", err)
		}
		if n := len(src.Asked()); n != c.want {
			t.Errorf("the page was read again %d times, want %d", n, c.want)
		}
	}
}

// manyBlocks are those of the images of three pages of index, the last of 76 entries.
const manyBlocks = 2*512 + 76

func manyImage() []byte { return clooptest.Assemble(512, manyStored()) }

func manyStored() [][]byte {
	stored := make([][]byte, manyBlocks)
	for i := range stored {
		stored[i] = clooptest.Deflate(bytes.Repeat([]byte{byte(i)}, 512), 1)
	}
	return stored
}

// A page of the index is read once for all who want it, and who goes does not wait for it.
func TestIndexIsReadOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src := &blockiotest.Source{Data: manyImage()}
		ix, err := cloop.Open(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		src.Asked()
		src.Open = func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			time.Sleep(time.Second)
			return body, nil
		}
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				if _, err := ix.Extent(t.Context(), 700); err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/2)
		defer cancel()
		if _, err := ix.Extent(ctx, 700); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("who goes: %v, want the context's error", err)
		}
		wg.Wait()
		if n := len(src.Asked()); n != 1 {
			t.Errorf("%d requests for a page, want 1", n)
		}
	})
}

// An index that can't be read is an error for who needs that part of it.
func TestIndexThatFails(t *testing.T) {
	for _, version := range []string{"V2.0", "V4.0"} {
		src := &blockiotest.Source{Data: letters(version)(manyImage())}
		im := openImage(t, src, 1)
		ix, err := cloop.Open(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		down := errors.New("down")
		src.Open = func(context.Context, blockio.Range, io.Reader) (io.Reader, error) { return nil, down }
		if _, err := ix.Extent(t.Context(), 700); !errors.Is(err, down) {
			t.Errorf("%s: Extent: %v, want %v", version, err, down)
		}
		if _, _, err := ix.Entry(t.Context(), 700); !errors.Is(err, down) {
			t.Errorf("%s: Entry: %v, want %v", version, err, down)
		}
		if _, err := ix.Extent(blockio.AtOnce, 700); !errors.Is(err, context.Canceled) {
			t.Errorf("%s: Extent, for who does not wait: %v", version, err)
		}
		for _, size := range []int{512, 100} {
			var be *blockio.BlockError
			_, err := im.ReadAtContext(t.Context(), make([]byte, size), 512*700)
			if !errors.Is(err, down) || !errors.As(err, &be) || be.Block != 700 {
				t.Errorf("%s: %d bytes: %v, want a BlockError of block 700 with %v", version, size, err, down)
			}
		}
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

// hugeImage is an image of very many blocks, each of one byte stored; it exists
// as far as it is read.
type hugeImage struct {
	blocks int64
	last   bool // the header lies at the end
	reads  int
	bytes  int64
}

// Size is that of header, index and a byte for each block.
func (h *hugeImage) Size() int64 { return 136 + 8*(h.blocks+1) + h.blocks }

func (h *hugeImage) ReadAtContext(_ context.Context, p []byte, off int64) (int, error) {
	h.reads++
	h.bytes += int64(len(p))
	p, eof := blockio.Clip(p, off, h.Size())
	header, index, data := int64(0), int64(136), 136+8*(h.blocks+1)
	if h.last {
		header, index, data = h.Size()-136, h.blocks, 0
	}
	for i := range p {
		switch at := off + int64(i); {
		case at >= header && at < header+136:
			p[i] = clooptest.Header("V4.0", 64<<10, int(h.blocks))[at-header]
		case at >= index && at < index+8*(h.blocks+1):
			n := (at - index) / 8
			p[i] = binary.BigEndian.AppendUint64(nil, 1<<60|uint64(data+n))[(at-index)%8]
		}
	}
	return len(p), eof
}

// Opening an image of 1 TB and locating a block of it costs a few reads and
// little memory, and so does going over all of its index.
func TestHugeIndex(t *testing.T) {
	for _, last := range []bool{false, true} {
		src := &hugeImage{blocks: 1 << 24, last: last}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		ix, err := cloop.Open(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		data := int64(136 + 8*(1<<24+1))
		if last {
			data = 0
		}
		locate := func(n int64) {
			if e, err := ix.Extent(t.Context(), n); err != nil || e != (blockio.Extent{Off: data + n, Len: 1}) {
				t.Fatalf("Extent(%d) = %v, %v", n, e, err)
			}
		}
		for _, n := range []int64{0, 12_345_678, 1<<24 - 1} {
			locate(n)
		}
		if src.reads > 5 || src.bytes > 64<<10 {
			t.Errorf("%d reads, %d bytes; want at most 5 and 64 KiB", src.reads, src.bytes)
		}
		src.reads = 0
		for n := range int64(1 << 20) {
			locate(n)
		}
		if src.reads > 50 {
			t.Errorf("%d reads for a million blocks, want at most 50", src.reads)
		}
		// Blocks here and there cost a page each.
		src.reads, src.bytes = 0, 0
		for n := int64(1 << 21); n < 1<<24; n += 1<<17 + 1 {
			locate(n)
		}
		if most := int64(src.reads)*8*513 + 256<<10; src.bytes > most {
			t.Errorf("%d bytes in %d reads for blocks far apart, want at most %d", src.bytes, src.reads, most)
		}
		runtime.GC()
		runtime.ReadMemStats(&after)
		if d := int64(after.HeapAlloc) - int64(before.HeapAlloc); d > 8<<20 {
			t.Errorf("the index holds %d bytes, want at most 8 MiB", d)
		}
		runtime.KeepAlive(ix)
	}
}

// badEntries is an image of which only the first block and the last are where they
// should be.
func badEntries(blocks int) []byte {
	image := clooptest.Assemble(512, make([][]byte, blocks))
	for n := 2; n < blocks-1; n++ { // each entry bounds two blocks
		put64(136+8*n, 1)(image)
	}
	return image
}

// Going over an index costs nothing for each bad entry.
func TestStatsOfBadEntries(t *testing.T) {
	const blocks = 10_000
	src := &blockiotest.Source{Data: badEntries(blocks)}
	var got []cloop.CodecStats
	allocs := testing.AllocsPerRun(1, func() {
		ix, err := cloop.Open(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		if got, err = ix.Stats(t.Context()); err != nil {
			t.Fatal(err)
		}
	})
	if want := []cloop.CodecStats{{Codec: "zlib", Blocks: 2}, {Codec: "bad", Blocks: blocks - 2}}; !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
	if allocs > blocks/10 {
		t.Errorf("%.0f allocations for %d entries", allocs, blocks)
	}
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
	f.Add(atEnd(goodImage()))
	for _, name := range []string{
		"v2-64k-zlib9.cloop", "v2-128k-7zip.cloop", "v2-64k-odd.cloop",
		"v4-xz.cloop", "v4-lz4.cloop", "v4-lzo.cloop", "v4-mixed-odd.cloop", "v4-last-mixed-odd.cloop",
	} {
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
		for n := range ix.Blocks() {
			e, err := ix.Extent(t.Context(), n)
			if err == nil && (e.Off < 0 || e.Len < 0 || e.End() > src.Size()) || err != nil && !errors.Is(err, cloop.ErrCorrupt) {
				t.Fatalf("Extent(%d) = %v, %v", n, e, err)
			}
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

// FuzzIndexPage has the second page of an index be anything: that is read when it is
// needed, long after the image was opened. What it says makes bad no block of another page.
func FuzzIndexPage(f *testing.F) {
	const (
		blocks, blockSize = 1100, 512
		page              = 512 // entries
		first             = page + 1
	)
	stored := make([][]byte, blocks)
	for i := range stored {
		stored[i] = clooptest.Deflate(bytes.Repeat([]byte{byte(i)}, blockSize), 1)
	}
	good := clooptest.Assemble(blockSize, stored)
	at := 136 + 8*first
	f.Add([]byte{}, false)
	f.Add([]byte{}, true)
	f.Add(good[at:at+80], false)
	f.Add(put64(8, 1<<63|1)(bytes.Clone(good[at:at+80])), false)
	f.Add(put64(8, 1)(bytes.Clone(good[at:at+80])), true)
	f.Add(bytes.Repeat([]byte{0xff}, 80), false)
	f.Add(put64(16, 3<<60|20_000)(bytes.Clone(good[at:at+80])), true)
	f.Fuzz(func(t *testing.T, entries []byte, v4 bool) {
		entries = entries[:min(len(entries), 8*(page-2))]
		image := bytes.Clone(good)
		if v4 {
			letters("V4.0")(image)
		}
		copy(image[at:], entries)
		src := &blockiotest.Source{Data: image}
		im := openImage(t, src, 2)
		ix, err := cloop.Open(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		block, want := make([]byte, blockSize), make([]byte, blockSize)
		last := int64(first + (len(entries)+7)/8)
		for n := range ix.Blocks() {
			e, err := ix.Extent(t.Context(), n)
			touched := n >= first-1 && n < last
			switch {
			case err == nil && (e.Off < 136 || e.Len < 0 || e.End() > src.Size()):
				t.Fatalf("Extent(%d) = %v", n, e)
			case err != nil && (!touched || !errors.Is(err, cloop.ErrCorrupt)):
				t.Fatalf("Extent(%d): %v", n, err)
			}
			if !touched && n%50 > 0 { // a few will do
				continue
			}
			_, err = im.ReadAtContext(t.Context(), block, n*blockSize)
			copy(want, bytes.Repeat([]byte{byte(n)}, blockSize))
			if !touched && (err != nil || !bytes.Equal(block, want)) {
				t.Fatalf("block %d: %v, or other bytes", n, err)
			}
			if err != nil && !errors.Is(err, cloop.ErrCorrupt) {
				t.Fatalf("block %d: %v", n, err)
			}
		}
	})
}
