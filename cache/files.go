package cache

import (
	"bytes"
	"encoding/binary"
	"io"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// The granularity of an entry's files; see docs/format.md.
const (
	// chunkSize is how many bytes of the image an entry of the table "chunks"
	// stands for: a page, so that what is thrown away never takes half of one.
	chunkSize = 4 << 10
	// regionSize is how much is thrown away at a time, and how many bytes of the
	// image share a time of last use.
	regionSize = 1 << 20
)

// Names of an entry's files.
const (
	metaName   = "meta"
	dataName   = "data"
	chunksName = "chunks"
	usedName   = "used"
	inUseName  = "inuse"
	pinName    = "pin"
	blocksName = "blocks-" // and the offset of the first block's image in the file
)

// files is the bytes of one image that are kept on disk, under the layout of
// docs/format.md. It is safe for concurrent use, also by several processes.
//
// Nothing that it returns is believed because it was stored: each read compares
// the bytes with their checksum. What does not match is not here. That makes
// crashes, full disks, eviction by another process and bit rot cost a request,
// and nothing else.
type files struct {
	dir    directory
	size   int64
	data   file
	chunks table
	used   file
	// write says that the entry can be written to.
	write bool
	// admit says whether n more bytes may be stored now, and failed is told of
	// the error of a write.
	admit  func(n int64) bool
	failed func(error)
	// spoilt is told, first, that something of the image is to be dropped, or does
	// not match.
	spoilt func()
	now    func() time.Time

	quiet  atomic.Bool         // reads are no use
	recent [1024]atomic.Uint64 // regions touched last: region<<32 | minute
	count  counter

	// mu guards the field below.
	mu     sync.Mutex
	tables []file // of the Blocks
}

// EntryStats is the use that was made of an entry since it was opened.
type EntryStats struct {
	Hits       int64 // reads that were served from it
	HitBytes   int64
	Stored     int64 // bytes that were written to it
	Mismatches int64 // reads of what did not match its checksum: thrown away, or damaged
}

type counter struct{ hits, hitBytes, stored, mismatches atomic.Int64 }

// Stats says what use was made of the entry so far.
func (f *files) Stats() EntryStats {
	return EntryStats{f.count.hits.Load(), f.count.hitBytes.Load(), f.count.stored.Load(), f.count.mismatches.Load()}
}

// openFiles opens the files of an entry for an image of size bytes.
func openFiles(dir directory, size int64, write bool) (_ *files, err error) {
	f := &files{
		dir: dir, size: size, write: write, now: time.Now, spoilt: func() {},
		admit: func(int64) bool { return true }, failed: func(error) {},
	}
	defer func() {
		if err != nil {
			f.closeFiles()
		}
	}()
	if f.data, err = dir.open(dataName, write); err != nil {
		return nil, err
	}
	if f.chunks.file, err = dir.open(chunksName, write); err != nil {
		return nil, err
	}
	if f.used, err = dir.open(usedName, write); err != nil {
		return nil, err
	}
	return f, nil
}

func (f *files) closeFiles() {
	for _, open := range append(f.tables, f.data, f.chunks.file, f.used) {
		if open != nil {
			open.Close()
		}
	}
}

// sync returns when what is here would be after a power cut, too. Where nothing can be
// written it does nothing: a read-only file system may refuse.
func (f *files) sync() error {
	if !f.write {
		return nil
	}
	f.mu.Lock()
	open := append([]file{f.data, f.chunks.file}, f.tables...)
	f.mu.Unlock()
	for _, file := range open {
		if err := file.Sync(); err != nil {
			return err
		}
	}
	return nil
}

// Size is the size of the image in bytes.
func (f *files) Size() int64 { return f.size }

// Allocated is how many bytes of the image are here, in whole pages.
func (f *files) Allocated() int64 {
	n, _ := f.data.Allocated()
	return min(n, f.size)
}

// readAt fills p from data at off. It fails if not all of it is there.
func (f *files) readAt(p []byte, off int64) bool {
	n, _ := f.data.ReadAt(p, off)
	return n == len(p)
}

// writeAt stores p at off.
func (f *files) writeAt(p []byte, off int64) bool {
	_, err := f.data.WriteAt(p, off)
	return f.wrote(err)
}

// wrote looks at the outcome of a write.
func (f *files) wrote(err error) bool {
	if err != nil {
		f.failed(err)
	}
	return err == nil
}

// may says whether n bytes may be stored now. It reckons with whole pages, and with
// one of a table: of a small block they are most of what it takes.
func (f *files) may(n int) bool {
	return f.write && f.admit((int64(n)+chunkSize-1)/chunkSize*chunkSize+chunkSize)
}

// Quiet says that reading from now on is no use of what is here: it gets no younger.
func (f *files) Quiet() { f.quiet.Store(true) }

// touch notes that the bytes of e are of use. Losing that is harmless.
func (f *files) touch(e blockio.Extent) {
	if !f.write || e.Len == 0 || f.quiet.Load() {
		return
	}
	minute := uint32(f.now().Unix() / 60)
	for region := e.Off / regionSize; region <= (e.End()-1)/regionSize; region++ {
		mark := uint64(region)<<32 | uint64(minute)
		if slot := &f.recent[region%int64(len(f.recent))]; slot.Load() != mark {
			slot.Store(mark)
			_, _ = f.used.WriteAt(binary.LittleEndian.AppendUint32(nil, minute), region*4)
		}
	}
}

// cover is the chunks that e touches: the first, and how many bytes they have
// from there on. The last chunk of an image may be shorter than the others.
func (f *files) cover(e blockio.Extent) blockio.Extent {
	from := e.Off / chunkSize * chunkSize
	to := min((e.End()+chunkSize-1)/chunkSize*chunkSize, f.size)
	return blockio.Extent{Off: from, Len: to - from}
}

// readChunks fills p, which covers whole chunks from off on, and returns the
// stretch of p that is not here: empty if all of it is.
func (f *files) readChunks(p []byte, off int64) (missing blockio.Extent) {
	n, _ := f.data.ReadAt(p, off)
	sums := f.chunks.load(off/chunkSize, int64(len(p)+chunkSize-1)/chunkSize)
	first, end := len(p), 0
	for i, sum := range sums {
		from := i * chunkSize
		to := min(from+chunkSize, len(p))
		if to <= n && matches(p[from:to], sum) {
			continue
		}
		if sum != 0 {
			f.mismatch()
		}
		first, end = min(first, from), to
	}
	if end == 0 {
		return blockio.Extent{}
	}
	return blockio.Extent{Off: int64(first), Len: int64(end - first)}
}

// mismatch counts something that does not match its checksum.
func (f *files) mismatch() {
	f.count.mismatches.Add(1)
	f.spoilt()
}

// writeChunks stores p, which covers whole chunks from off on.
func (f *files) writeChunks(p []byte, off int64) {
	if !f.may(len(p)) || !f.writeAt(p, off) {
		return
	}
	var sums []uint64
	for from := 0; from < len(p); from += chunkSize {
		sums = append(sums, sumOf(p[from:min(from+chunkSize, len(p))]))
	}
	if f.wrote(f.chunks.store(off/chunkSize, sums...)) {
		f.count.stored.Add(int64(len(p)))
		f.touch(blockio.Extent{Off: off, Len: int64(len(p))})
	}
}

// forgetChunks says that the bytes of e are not to be used. It returns false if that
// can't be written down: then they are as they were.
func (f *files) forgetChunks(e blockio.Extent) bool {
	if e.Len == 0 {
		return true
	}
	f.spoilt()
	c := f.cover(e)
	return f.write && f.wrote(f.chunks.clear(c.Off/chunkSize, (c.Len+chunkSize-1)/chunkSize))
}

// own is the chunks that e shares with nothing else; empty if there are none.
func (f *files) own(e blockio.Extent) blockio.Extent {
	from, to := (e.Off+chunkSize-1)/chunkSize*chunkSize, e.End()/chunkSize*chunkSize
	if e.End() == f.size {
		to = f.size
	}
	return blockio.Extent{Off: from, Len: max(0, to-from)}
}

// free gives back the room of e, of which nothing is of use, but for pages that e
// shares with others. Without that it would count as being here.
func (f *files) free(e blockio.Extent) {
	if own := f.own(e); own.Len > 0 {
		_ = f.data.Punch(own.Off, (own.Len+chunkSize-1)/chunkSize*chunkSize) // not all file systems can
	}
}

// readCovered fills p at off from chunks, if all of them are here.
func (f *files) readCovered(p []byte, off int64) bool {
	e := blockio.Extent{Off: off, Len: int64(len(p))}
	c := f.cover(e)
	if c == e {
		return f.readChunks(p, off).Len == 0
	}
	buf := make([]byte, c.Len)
	if f.readChunks(buf, c.Off).Len > 0 {
		return false
	}
	copy(p, buf[off-c.Off:])
	return true
}

// haveCovered says whether the chunks of e seem to be here.
func (f *files) haveCovered(e blockio.Extent) bool {
	c := f.cover(e)
	return !slices.Contains(f.chunks.load(c.Off/chunkSize, (c.Len+chunkSize-1)/chunkSize), 0)
}

// Contradicts says whether what is here of the image's first bytes is another than
// p.
func (f *files) Contradicts(p []byte) bool {
	have := make([]byte, f.cover(blockio.Extent{Len: int64(len(p))}).Len)
	sums := f.chunks.load(0, (int64(len(have))+chunkSize-1)/chunkSize)
	f.readAt(have, 0)
	for i, sum := range sums {
		from := i * chunkSize
		to := min(from+chunkSize, len(have))
		if matches(have[from:to], sum) && !bytes.Equal(have[from:min(to, len(p))], p[from:min(to, len(p))]) {
			return true
		}
	}
	return false
}

// allocatedAt says whether all of e takes room on the disk, in pages that e does not
// share with others: who refills these says nothing of e. What is thrown away are
// regions, so one such page in each is enough. There are file systems that store
// zeros as holes, too.
func (f *files) allocatedAt(e blockio.Extent) bool {
	for off := e.Off; off < e.End(); {
		end := min(e.End(), (off/regionSize+1)*regionSize)
		own := (off + chunkSize - 1) / chunkSize * chunkSize
		if own >= end || own+chunkSize > end && end < f.size {
			return false
		}
		off = end
	}
	return !f.hasHole(e)
}

// hasHole says whether some of e takes no room on the disk, as far as the file
// system tells.
func (f *files) hasHole(e blockio.Extent) bool {
	at, err := f.data.NextHole(e.Off)
	return err == io.EOF || err == nil && at < e.End()
}

// HaveBytes says whether the bytes of e, of an image made of parts of the file,
// seem to be here as chunks.
func (f *files) HaveBytes(parts []blockio.Extent, e blockio.Extent) bool {
	for at := range blockio.Within(parts, e) {
		for at.Len > 0 {
			piece := blockio.Extent{Off: at.Off, Len: min(at.Len, regionSize)}
			if !f.haveCovered(piece) || !f.allocatedAt(f.cover(piece)) && !f.readCovered(make([]byte, piece.Len), piece.Off) {
				return false
			}
			at.Off, at.Len = piece.End(), at.Len-piece.Len
		}
	}
	return true
}
