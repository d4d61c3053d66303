package cache

import (
	"context"
	"io"
	"strconv"
	"strings"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/ownfile"
)

// CheckChunks compares all that is kept as chunks with its checksums, and says how
// many chunks are right and how many were bad. The bad ones are forgotten, and so
// are those that were thrown away, which are none of both.
func (f *files) CheckChunks(ctx context.Context) (right, bad int64, err error) {
	buf := make([]byte, regionSize)
	for off := f.nextChunks(0); off < f.size; off = f.nextChunks(off + regionSize) {
		if err := ctx.Err(); err != nil {
			return right, bad, err
		}
		r, b := f.checkRegion(blockio.Extent{Off: off, Len: min(regionSize, f.size-off)}, buf)
		right, bad = right+r, bad+b
	}
	return right, bad, nil
}

// ListedBlocks is how many blocks there are checksums of, for each image in the file:
// by the offset of its first byte. Some of the blocks may have been thrown away.
func (e *Entry) ListedBlocks() (map[int64]int64, error) {
	names, err := ownfile.Names(e.f)
	if err != nil {
		return nil, err
	}
	listed := make(map[int64]int64)
	for _, name := range names {
		digits, ok := strings.CutPrefix(name, blocksName)
		off, err := strconv.ParseInt(digits, 10, 64)
		if !ok || err != nil {
			continue
		}
		t, err := osDir{e.f}.open(name, false)
		if err != nil {
			return nil, err
		}
		listed[off] = table{t}.count()
		t.Close()
	}
	return listed, nil
}

// nextChunks is the first region at or behind off that may have chunks: tables are
// full of holes.
func (f *files) nextChunks(off int64) int64 {
	entry := off / chunkSize * sumSize
	at, err := f.chunks.NextData(entry)
	switch {
	case err == io.EOF:
		return f.size
	case err != nil:
		return off // a file system that does not tell
	}
	return max(off, at/sumSize*chunkSize/regionSize*regionSize)
}

// checkRegion is CheckChunks for the region e. buf has room for it.
func (f *files) checkRegion(e blockio.Extent, buf []byte) (right, bad int64) {
	first := e.Off / chunkSize
	sums := f.chunks.load(first, (e.Len+chunkSize-1)/chunkSize)
	if !hasSum(sums) {
		return 0, 0
	}
	n, _ := f.data.ReadAt(buf[:e.Len], e.Off)
	for i, sum := range sums {
		at := blockio.Extent{Off: int64(i) * chunkSize, Len: min(chunkSize, e.Len-int64(i)*chunkSize)}
		switch {
		case sum == 0:
		case at.End() <= int64(n) && matches(buf[at.Off:at.End()], sum):
			right++
		default:
			r, b := f.checkAgain(blockio.Extent{Off: e.Off + at.Off, Len: at.Len}, buf[at.Off:at.End()])
			right, bad = right+r, bad+b
		}
	}
	return right, bad
}

// checkAgain looks at one chunk that did not match: other processes may have thrown
// it away or stored it since its entry was read.
func (f *files) checkAgain(e blockio.Extent, buf []byte) (right, bad int64) {
	sum := f.chunks.loadOne(e.Off / chunkSize)
	switch {
	case sum == 0:
		return 0, 0
	case f.readAt(buf, e.Off) && matches(buf, sum):
		return 1, 0
	case !f.hasHole(e):
		bad = 1
	}
	f.forgetChunks(e)
	return 0, bad
}
