package manifest

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"hash"
	"sync"

	"github.com/cloopfs/cloopfs/blockio"
)

const (
	// fanOut is how many blocks a page of level 0 stands for, and nodeFanOut how many pages
	// of the level below one of another level: the top page has at most 8 KiB, which come when a file is opened.
	fanOut     = 512
	nodeFanOut = 256
	// leafSize is the bytes of a block's entry in a page of level 0: its codec, the length
	// of its stored bytes in 7 bytes, and its hash.
	leafSize = 8 + sha256.Size
	// nodeSize is that of a page's entry in a page of a level above.
	nodeSize = sha256.Size
	// maxLength bounds the length of a stored block: 7 bytes hold it.
	maxLength = 1<<56 - 1
)

// What is hashed begins with a byte that says what it is.
const (
	blockHash = iota // a stored block
	pageHash         // a page
	rootHash         // the facts and the top page
)

// Leaf is what the tree says of a stored block.
type Leaf struct {
	Codec  uint8 // how the block is stored, as its container numbers it
	Length int64 // of the stored bytes
	Hash   Hash  // of number, codec, length and stored bytes
}

// put writes the leaf as it lies in a page.
func (l Leaf) put(p []byte) {
	binary.BigEndian.PutUint64(p, uint64(l.Codec)<<56|uint64(l.Length))
	copy(p[8:], l.Hash[:])
}

// leafAt is the leaf at the start of p.
func leafAt(p []byte) (l Leaf) {
	n := binary.BigEndian.Uint64(p)
	l.Codec, l.Length = uint8(n>>56), int64(n&maxLength)
	copy(l.Hash[:], p[8:])
	return l
}

// hasher is a state of SHA-256 that is used again and again.
type hasher struct {
	state hash.Hash
	head  [18]byte
	sum   Hash
}

var hashers = sync.Pool{New: func() any { return &hasher{state: sha256.New()} }}

// block is the hash of stored block n.
func (h *hasher) block(n int64, codec uint8, stored []byte) Hash {
	h.head[0] = blockHash
	binary.BigEndian.PutUint64(h.head[1:], uint64(n))
	h.head[9] = codec
	binary.BigEndian.PutUint64(h.head[10:], uint64(len(stored)))
	return h.of(h.head[:18], stored)
}

// page is the hash of page k of a level.
func (h *hasher) page(level int, k int64, page []byte) Hash {
	h.head[0], h.head[1] = pageHash, byte(level)
	binary.BigEndian.PutUint64(h.head[2:], uint64(k))
	return h.of(h.head[:10], page)
}

func (h *hasher) of(head, body []byte) Hash {
	h.state.Reset()
	h.state.Write(head) // these two never fail
	h.state.Write(body)
	h.state.Sum(h.sum[:0])
	return h.sum
}

// LeafOf is what the tree has to say of stored block n. It is safe for concurrent use.
func LeafOf(n int64, codec uint8, stored []byte) Leaf {
	h := hashers.Get().(*hasher)
	defer hashers.Put(h)
	return Leaf{codec, int64(len(stored)), h.block(n, codec, stored)}
}

// hashPage is the hash of page k of a level.
func hashPage(level int, k int64, page []byte) Hash {
	h := hashers.Get().(*hasher)
	defer hashers.Put(h)
	return h.page(level, k, page)
}

// root is the root of the tree of an image whose top page has that hash.
func (f Facts) root(top Hash) Hash {
	h := sha256.New()
	h.Write([]byte{rootHash})
	h.Write(f.text())
	h.Write(top[:])
	return Hash(h.Sum(nil))
}

// shape is where the pages of a tree lie in its file. Level 0, the last in the file, has
// an entry for each block, and each level above one for each page of the level below. The
// top level, the first in the file, is one page.
type shape struct {
	levels []level // from 0 up
}

// level is one level of a tree.
type level struct {
	off     int64 // of its first page in the file
	entries int64
	size    int64 // bytes of an entry
	fanOut  int64 // entries of a page
}

// shapeOf is the shape of the tree of so many blocks.
func shapeOf(blocks int64) shape {
	s := shape{levels: []level{{entries: blocks, size: leafSize, fanOut: fanOut}}}
	for s.top().pages() > 1 {
		s.levels = append(s.levels, level{entries: s.top().pages(), size: nodeSize, fanOut: nodeFanOut})
	}
	off := int64(0)
	for i := len(s.levels) - 1; i >= 0; i-- {
		s.levels[i].off = off
		off += s.levels[i].bytes()
	}
	return s
}

func (s shape) top() level { return s.levels[len(s.levels)-1] }

// size is the bytes of the file.
func (s shape) size() int64 { return s.levels[0].off + s.levels[0].bytes() }

// page is where page k of a level lies.
func (s shape) page(at int, k int64) blockio.Extent {
	l := s.levels[at]
	from, to := k*l.fanOut, min((k+1)*l.fanOut, l.entries)
	return blockio.Extent{Off: l.off + from*l.size, Len: (to - from) * l.size}
}

func (l level) bytes() int64 { return l.entries * l.size }

// pages is how many pages the level has: at least one, which may be empty.
func (l level) pages() int64 { return max(1, (l.entries+l.fanOut-1)/l.fanOut) }

// pageError says that a page of hashes is not what the root says.
type pageError struct {
	level int
	page  int64
}

func (e *pageError) Error() string {
	return fmt.Sprintf("%v: page %d of level %d does not match", ErrHashes, e.page, e.level)
}

func (e *pageError) Unwrap() error { return ErrHashes }
