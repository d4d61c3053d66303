package cache

import (
	"errors"
	"fmt"
	"io/fs"

	"github.com/cloopfs/cloopfs/blockio"
)

// Blocks is the stored blocks of an image that are kept in an entry, each with a checksum
// of its own. It implements [blockio.BlockStore].
//
// The image is the file that the entry is of, or a part of it, or several: a file
// inside an ISO image.
type Blocks struct {
	files *files
	parts []blockio.Extent // of the file: the image
	sums  table            // nil where every block is made of whole chunks
}

// Blocks returns the store for the blocks of an image made of parts of the file.
// whole says that every block begins and ends with a chunk, or with the file: then
// what is kept of the file as bytes is kept as blocks, and the other way around.
func (f *files) Blocks(parts []blockio.Extent, whole bool) (*Blocks, error) {
	b := &Blocks{files: f, parts: parts}
	if whole || len(parts) == 0 {
		return b, nil
	}
	sums, err := f.dir.open(fmt.Sprint(blocksName, parts[0].Off), f.write)
	if errors.Is(err, fs.ErrNotExist) && !f.write {
		return b, nil // there are none
	}
	if err != nil {
		return nil, err
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.tables = append(f.tables, sums)
	b.sums = table{sums}
	return b, nil
}

// Have says whether block n, at e, seems to be here.
func (b *Blocks) Have(n int64, e blockio.Extent) bool {
	if b.Listed(n) {
		return true
	}
	return b.each(e, func(_ int64, at blockio.Extent) bool { return b.files.haveCovered(at) })
}

// Listed says whether block n has a checksum of its own, wherever it lies.
func (b *Blocks) Listed(n int64) bool { return b.sums.file != nil && b.sums.loadOne(n) != 0 }

// Here is Have, but for what was thrown away. It reads no more than it has to.
func (b *Blocks) Here(n int64, e blockio.Extent) bool {
	if !b.Have(n, e) {
		return false
	}
	allocated := b.each(e, func(_ int64, at blockio.Extent) bool { return b.files.allocatedAt(at) })
	return allocated || b.Get(n, e, make([]byte, e.Len))
}

// Get fills p with block n, at e, if it is here as it was stored.
func (b *Blocks) Get(n int64, e blockio.Extent, p []byte) bool {
	if b.sums.file != nil {
		if sum := b.sums.loadOne(n); sum != 0 {
			if b.do(e, p, b.files.readAt) && matches(p, sum) {
				b.hit(e)
				return true
			}
			b.files.mismatch()
			b.forgetSum(n)
		}
	}
	if !b.do(e, p, b.files.readCovered) {
		return false
	}
	b.hit(e)
	return true
}

// Put stores block n, at e. Failing to do so is no error.
func (b *Blocks) Put(n int64, e blockio.Extent, p []byte) {
	if b.sums.file == nil {
		b.each(e, func(from int64, at blockio.Extent) bool {
			b.files.writeChunks(p[from:from+at.Len], at.Off)
			return true
		})
		return
	}
	if !b.files.may(len(p)) || !b.do(e, p, b.files.writeAt) {
		return
	}
	if b.files.wrote(b.sums.store(n, sumOf(p))) {
		b.files.count.stored.Add(e.Len)
		b.touch(e)
	}
}

// Forget says that what is here of block n, at e, is bad.
func (b *Blocks) Forget(n int64, e blockio.Extent) {
	b.each(e, func(_ int64, at blockio.Extent) bool {
		if own := b.files.own(at); own.Len > 0 {
			at = own // enough: what lies beside the block may be right, and be here as chunks alone
		}
		b.files.forgetChunks(at)
		return true
	})
	if b.sums.file != nil {
		b.forgetSum(n)
	}
}

// Drop is Forget for what will not soon be stored again: it gives back the room, too.
func (b *Blocks) Drop(n int64, e blockio.Extent) {
	b.Forget(n, e)
	if b.files.write {
		b.each(e, func(_ int64, at blockio.Extent) bool { b.files.free(at); return true })
	}
}

// forgetSum clears the entry of block n. Chunks have their own: they stay.
func (b *Blocks) forgetSum(n int64) {
	if b.files.write {
		b.files.wrote(b.sums.store(n, 0))
	}
}

// urgent is added to the place of a claim behind which a reader waits: such a
// claim gives way to another of its kind alone.
const urgent = 1 << 62

// Claim tells other processes that the bytes of e, of any number of blocks, are on
// their way. It fails if another process has said so of any of them; where a reader
// waits (class Demand), only if one waits there, too. Who got the claim calls
// release when they are here; the end of the process does that, too.
func (b *Blocks) Claim(e blockio.Extent, class blockio.Class) (release func(), ok bool) {
	data, base := b.files.data, int64(0)
	if class == blockio.Demand {
		base = urgent
	}
	free := func() {
		b.each(e, func(_ int64, at blockio.Extent) bool { data.unclaim(base+at.Off, at.Len); return true })
	}
	if b.files.write && !b.each(e, func(_ int64, at blockio.Extent) bool {
		return (base == urgent || !data.claimed(urgent+at.Off, at.Len)) && data.claim(base+at.Off, at.Len)
	}) {
		free() // those pieces that could be claimed
		return nil, false
	}
	return free, true
}

// hit counts a read of the block at e.
func (b *Blocks) hit(e blockio.Extent) {
	b.files.count.hits.Add(1)
	b.files.count.hitBytes.Add(e.Len)
	b.touch(e)
}

// touch notes that the block at e is of use.
func (b *Blocks) touch(e blockio.Extent) {
	b.each(e, func(_ int64, at blockio.Extent) bool { b.files.touch(at); return true })
}

// do calls io for each piece of p, the bytes of the image at e, and says whether
// all of that went well.
func (b *Blocks) do(e blockio.Extent, p []byte, io func(p []byte, off int64) bool) bool {
	return b.each(e, func(from int64, at blockio.Extent) bool { return io(p[from:from+at.Len], at.Off) })
}

// each calls f for each piece of e: where it begins in e, and where it lies in the
// file. It stops when f does, or at the image's end, and then says false.
func (b *Blocks) each(e blockio.Extent, f func(from int64, at blockio.Extent) bool) bool {
	from := int64(0)
	for at := range blockio.Within(b.parts, e) {
		if !f(from, at) {
			return false
		}
		from += at.Len
	}
	return from == e.Len
}
