package cloop

import (
	"context"
	"fmt"
	"io"
	"runtime"

	"github.com/cloopfs/cloopfs/blockio"
)

// Changes is a disk that differs from an image in some blocks.
type Changes struct {
	Base *Index
	Runs blockio.Runs // the stored blocks of Base
	// Disk is the disk with its changes, as large as Base's.
	Disk blockio.ReaderAt
	// Changed says whether block n of Disk differs from the block of Base. It is
	// safe for concurrent use.
	Changed func(n int64) bool
}

// Commit writes the image of a disk that differs from its base in some blocks. The
// others are copied as they are stored, if they decode: an error for one that does not
// is a [blockio.BlockError] that wraps ErrCorrupt. The changed ones are stored by
// method, and level if that is zlib. Blocks of no bytes, which few readers know,
// become zeros that are stored, and a short last block gets its full length.
//
// The header comes first, and the block size is the base's. The version is 2.0 if
// the base has no codec but zlib and method is Zlib, else 4.0. A raw base is no cloop
// image: then everything is stored anew.
//
// out, done and errors are as Create has them.
//
// Memory holds about four chunks for each core: 8 to 48, or fewer, but three, where blocks are
// larger than 4 MiB. A chunk is at most 4 MiB of the disk, or one block. Of what changed
// in it that is held decoded and stored; of the rest as much as the base stores, but
// at most 5 MiB, or one block: a stored block may have 64 KiB more than two decoded ones.
func Commit(ctx context.Context, out io.WriterAt, c Changes, method Method, level int, done func(bytes int64)) (Summary, error) {
	e := Encoding{Layout: V4, Method: method, Level: level, BlockSize: c.Base.blockSize}
	if size := c.Disk.Size(); size != c.Base.disk {
		return Summary{}, fmt.Errorf("the disk has %d bytes, its base %d", size, c.Base.disk)
	}
	if method == Zlib {
		mixed, err := c.Base.mixed(ctx)
		if err != nil {
			return Summary{}, err
		}
		if c.Base.raw || !mixed {
			e.Layout = V2
		}
	}
	if err := e.Check(); err != nil {
		return Summary{}, err
	}
	if c.Base.raw {
		return Create(ctx, out, c.Disk, e, done)
	}
	w, err := newWriter(out, e, c.Base.blocks)
	if err != nil {
		return Summary{}, err
	}
	k := newCommitter(c, newPacker(e))
	chunk := k.perChunk * int64(e.BlockSize)
	workers := max(4, 2*runtime.GOMAXPROCS(0)) // half of them may wait for the network
	work := pipeline{
		workers: min(workers, max(2, int(commitMemory/chunk))),
		chunk:   chunk,
		next:    k.next,
		pack:    k.pack,
	}
	sum, err := w.run(ctx, work, c.Base.disk, done)
	sum.Copied = k.copied.Load()
	return sum, err
}

// mixed says whether an image has blocks in other codecs than zlib.
func (ix *Index) mixed(ctx context.Context) (bool, error) {
	if !ix.codecs || ix.raw {
		return false, nil
	}
	for n := range ix.blocks {
		ext, c, bad, err := ix.locate(ctx, n)
		if err != nil {
			return false, err
		}
		if bad == "" && ext.Len > 0 && c != codecZlib {
			return true, nil
		}
	}
	return false, nil
}
