package cloop

import (
	"context"
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/cloopfs/cloopfs/blockio"
)

const (
	entrySize = 8
	// codecBits is how many bits at the top of an entry of version 4.0 name
	// the block's codec.
	codecBits = 4

	// pageEntries is how many entries of the index make a page. The first
	// page, with the header, lies within what a source has read already.
	pageEntries = 512
	// maxPages bounds the index's memory: to 4 MiB, or half a million blocks.
	maxPages = 1024
	// maxLoad is the largest number of pages read at a time: 256 KiB.
	maxLoad = 64
)

// Index is the header and index of an image. It implements [blockio.Extents].
//
// The index is read in pages, when they are needed: that of a disk of 1 TB has
// 134 MB. The first load is of a page and each is twice as large as the one before,
// so that a few blocks cost little and a whole disk few requests. An entry is checked
// when it is used, so that a bad one makes bad no more than its block.
type Index struct {
	header
	src blockio.ReaderAt
	// zeroForm is how a block is stored that was seen to decode to zeros; nil before there
	// was one.
	zeroForm atomic.Pointer[storedForm]

	// proven, unless it is nil, is TrustCodecs's.
	proven func(n int64) (codec uint8, ok bool)

	// loading is held by who reads pages.
	loading chan struct{}
	load    int64 // pages to read next time; guarded by loading
	next    int64 // the page behind those read last; guarded by loading

	// mu guards the fields below.
	mu        sync.Mutex
	forgotten int                             // pages, so far
	doubted   map[int64]bool                  // pages to be read again; they stay until that is done
	pages     *simplelru.LRU[int64, []uint64] // entries of page k and the next one's first
}

// Open reads the header, and compares the index's ends with the image's size.
// The error wraps ErrFormat, ErrUnsupported or ErrCorrupt if the image is at
// fault. src must stay usable as long as the Index. If it is a [blockio.Ranges], pages of the
// index that make no sense are read again, past all that keeps them.
func Open(ctx context.Context, src blockio.ReaderAt) (*Index, error) {
	h, err := readHeader(ctx, src)
	if err != nil {
		return nil, err
	}
	pages, err := simplelru.NewLRU[int64, []uint64](maxPages, nil)
	if err != nil {
		panic("cloop: internal error: " + err.Error()) // only for a size below 1
	}
	ix := &Index{
		header: h, src: src, loading: make(chan struct{}, 1), load: 1,
		doubted: make(map[int64]bool), pages: pages,
	}
	for _, n := range []int64{0, h.blocks - 1} {
		if _, err := ix.Extent(ctx, n); err != nil {
			return nil, err
		}
	}
	ix.tail = nil // what there was of the index in it is in pages
	return ix, nil
}

// rawBlockSize is the size of the blocks into which Raw cuts a disk: what a
// request brings at least.
const rawBlockSize = 64 << 10

// Raw is the index of an image that is no cloop image but the disk itself, of
// size bytes: blocks of 64 KiB, stored as they are; the last may be shorter.
// The error wraps ErrFormat if there is nothing in the image.
func Raw(size int64) (*Index, error) {
	if size <= 0 {
		return nil, fmt.Errorf("%w: the file is empty", ErrFormat)
	}
	return &Index{header: header{
		raw: true, codecs: true, blockSize: rawBlockSize, disk: size,
		blocks: (size-1)/rawBlockSize + 1,
	}}, nil
}

// Raw says that the image is no cloop image, but the disk itself.
func (ix *Index) Raw() bool { return ix.raw }

// Table is where the index lies in the image; empty for a raw one.
func (ix *Index) Table() blockio.Extent {
	if ix.raw {
		return blockio.Extent{}
	}
	return blockio.Extent{Off: ix.index, Len: ix.indexSize()}
}

// DiskSize is the number of bytes of the disk: a whole number of blocks, but
// for a raw image.
func (ix *Index) DiskSize() int64 { return ix.disk }

// BlockSize is the number of bytes of a decoded block, a multiple of 512 up to 64 MiB.
func (ix *Index) BlockSize() int { return ix.blockSize }

// Blocks is the number of blocks, at least 1.
func (ix *Index) Blocks() int64 { return ix.blocks }

// Extent locates stored block n. Length 0 means a block of zeros: FreeBSD's
// mkuzip writes such. An error wraps ErrCorrupt if the index is at fault.
func (ix *Index) Extent(ctx context.Context, n int64) (blockio.Extent, error) {
	ext, _, err := ix.entry(ctx, n)
	return ext, err
}

// Entry locates stored block n, as Extent does, and tells how it is stored: the number
// that version 4.0 has for its codec.
func (ix *Index) Entry(ctx context.Context, n int64) (blockio.Extent, uint8, error) {
	ext, c, err := ix.entry(ctx, n)
	return ext, uint8(c), err
}

// TrustCodecs has blocks decoded by the codecs that proven knows, whatever the index says:
// bytes that were proven decode to something else by another. proven is asked for a block when
// its bytes are here; ok is false if it does not know. Call it before blocks are decoded.
func (ix *Index) TrustCodecs(proven func(n int64) (codec uint8, ok bool)) { ix.proven = proven }

// Doubt says that what the index says of block n is wrong, as somebody knows who does not
// have it from the image. It returns whether that is read again: it may have been damaged on
// its way.
func (ix *Index) Doubt(n int64) bool { return ix.forget(n / pageEntries) }

// entry locates stored block n and tells its codec.
func (ix *Index) entry(ctx context.Context, n int64) (blockio.Extent, codec, error) {
	if n < 0 || n >= ix.blocks {
		return blockio.Extent{}, 0, fmt.Errorf("block %d of %d", n, ix.blocks)
	}
	ext, c, bad, err := ix.locate(ctx, n)
	// Who does not wait could not read the page again.
	if bad != "" && err == nil && ctx.Err() == nil && ix.forget(n/pageEntries) {
		ext, c, bad, err = ix.locate(ctx, n)
	}
	switch {
	case err != nil:
		return blockio.Extent{}, 0, err
	case bad != "":
		return blockio.Extent{}, 0, ix.entryError(n, ext, c, bad)
	}
	return ext, c, nil
}

// maxForget bounds how many pages with bad entries are read again.
const maxForget = 16

// forget has page k read again: it may have been damaged on its way. It says whether the page
// is worth another look.
func (ix *Index) forget(k int64) bool {
	if _, ok := ix.src.(blockio.Ranges); !ok { // so it is with a raw image, too
		return false
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if ix.doubted[k] {
		return true
	}
	if ix.forgotten >= maxForget {
		return false
	}
	ix.forgotten++
	ix.doubted[k] = true
	return true
}

// believe takes a doubt of page k back, which can't be read again: its blocks may be at hand. It
// returns the page, nil if it is not here: then it has to be read again all the same.
func (ix *Index) believe(k int64) []uint64 {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	page, ok := ix.pages.Get(k)
	if ok && ix.doubted[k] {
		delete(ix.doubted, k)
		ix.forgotten--
	}
	return page
}

// What may be wrong with an entry.
const (
	startsEarly  = "starts inside the header or index"
	endsFirst    = "ends before its start"
	endsLate     = "ends behind the end of the blocks (cut off?)"
	tooLarge     = "has too many bytes for a block"
	unknownCodec = "has an unknown codec"
)

// locate is entry for n in range. What is wrong with the entry is one of the
// constants above, and no error yet: Stats may meet millions of them. It is an error if the
// page was to be read again, and could not be.
func (ix *Index) locate(ctx context.Context, n int64) (ext blockio.Extent, c codec, bad string, err error) {
	if ix.raw {
		off := n * rawBlockSize
		return blockio.Extent{Off: off, Len: min(rawBlockSize, ix.disk-off)}, codecStored, "", nil
	}
	page, err := ix.page(ctx, n/pageEntries)
	if page == nil {
		return blockio.Extent{}, 0, "", err
	}
	off, c := ix.split(page[n%pageEntries])
	end, _ := ix.split(page[n%pageEntries+1])
	switch {
	case off < ix.data.Off:
		bad = startsEarly
	case off > end:
		bad = endsFirst
	case end > ix.data.End():
		bad = endsLate
	case end-off > ix.maxStored():
		bad = tooLarge
	case c >= codecs:
		bad = unknownCodec
	default:
		err = nil
	}
	return blockio.Extent{Off: off, Len: end - off}, c, bad, err
}

// EntryError says that an entry of the index locates no block. It wraps
// ErrCorrupt.
type EntryError struct {
	// Reason names no numbers: it is the same for all entries that are wrong in
	// the same way.
	Reason string
	text   string
}

func (e *EntryError) Error() string { return e.text }

func (e *EntryError) Unwrap() error { return ErrCorrupt }

// entryError is the error for block n, which locate found bad.
func (ix *Index) entryError(n int64, ext blockio.Extent, c codec, bad string) error {
	detail := ""
	switch bad {
	case startsEarly:
		detail = fmt.Sprintf("starts at %d, inside the header or index", ext.Off)
	case endsFirst:
		detail = fmt.Sprintf("ends at %d, before its start at %d", ext.End(), ext.Off)
	case endsLate:
		detail = fmt.Sprintf("ends at %d, but the blocks end at %d (cut off?)", ext.End(), ix.data.End())
	case tooLarge:
		detail = fmt.Sprintf("has %d bytes, too many for a block of %d", ext.Len, ix.blockSize)
	case unknownCodec:
		detail = fmt.Sprintf("has the unknown codec %d", c)
	}
	return &EntryError{bad, fmt.Sprintf("%v: block %d %s", ErrCorrupt, n, detail)}
}

// split takes an index entry apart. An offset beyond 63 bits becomes a negative
// one, which no check lets pass.
func (ix *Index) split(entry uint64) (off int64, c codec) {
	if !ix.codecs {
		return int64(entry), codecZlib
	}
	return int64(entry << codecBits >> codecBits), codec(entry >> (64 - codecBits))
}

// maxStored bounds a stored block: deflaters other than zlib may pass zlib's
// own worst case, but not this.
func (ix *Index) maxStored() int64 { return 2*int64(ix.blockSize) + 64<<10 }

// page returns page k: its entries and the one behind them. With an error too if that is the page
// as it was, since it could not be read again.
func (ix *Index) page(ctx context.Context, k int64) ([]uint64, error) {
	if page, ok := ix.cached(k); ok {
		return page, nil
	}
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	select {
	case ix.loading <- struct{}{}:
		defer func() { <-ix.loading }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	if page, ok := ix.cached(k); ok { // another reader has loaded it
		return page, nil
	}
	first := k * pageEntries
	count, again := ix.missing(k)
	last := min(first+count*pageEntries, ix.blocks)
	raw := make([]byte, entrySize*(last-first+1))
	if err := ix.read(ctx, raw, ix.index+entrySize*first, again); err != nil {
		err = fmt.Errorf("read index: %w", err)
		if again && ctx.Err() == nil { // whose reader has gone may be there to be read all the same
			return ix.believe(k), err
		}
		return nil, err
	}
	// Of an index that fits into memory everything is soon wanted; of a larger
	// one what follows, if that is how it is read.
	if ix.blocks <= maxPages*pageEntries || k == ix.next {
		ix.load = min(2*ix.load, maxLoad)
	} else {
		ix.load = 1
	}
	ix.next = (last + pageEntries - 1) / pageEntries
	entries := make([]uint64, len(raw)/entrySize)
	for i := range entries {
		entries[i] = binary.BigEndian.Uint64(raw[entrySize*i:])
	}
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if again {
		delete(ix.doubted, k)
	}
	for at := k; at*pageEntries < last; at++ {
		from := (at - k) * pageEntries
		// A page of its own: it must not keep its neighbours in memory.
		ix.pages.Add(at, append([]uint64(nil), entries[from:min(from+pageEntries+1, int64(len(entries)))]...))
	}
	return entries[:min(pageEntries+1, len(entries))], nil
}

// read fills p from the image at off; again is for what made no sense.
func (ix *Index) read(ctx context.Context, p []byte, off int64, again bool) error {
	if src, ok := ix.src.(blockio.Ranges); ok && again {
		_, err := blockio.ReadAgain(ctx, src, p, off)
		return err
	}
	if from := off - (ix.src.Size() - int64(len(ix.tail))); from >= 0 && from <= int64(len(ix.tail)-len(p)) {
		copy(p, ix.tail[from:])
		return nil
	}
	_, err := ix.src.ReadAtContext(ctx, p, off)
	return err
}

// missing is how many pages from k on are to be read: up to the next that is here. A page
// that is to be read again comes alone.
func (ix *Index) missing(k int64) (n int64, again bool) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if ix.doubted[k] {
		return 1, true
	}
	n = 1
	for n < ix.load && !ix.pages.Contains(k+n) && !ix.doubted[k+n] {
		n++
	}
	return n, false
}

// cached returns page k if it is here, and not to be read again.
func (ix *Index) cached(k int64) ([]uint64, bool) {
	ix.mu.Lock()
	defer ix.mu.Unlock()
	if ix.doubted[k] {
		return nil, false
	}
	return ix.pages.Get(k)
}
