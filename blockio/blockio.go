// Package blockio holds the interfaces between the layers of cloopfs and the
// errors they share. Every other package may import it; it imports only the
// standard library.
//
// Words used throughout: the image is the (compressed) file at the source, the
// disk is what it decodes to. A stored block is a block's bytes in the image,
// of any length, found at its Extent; a block is its decoded bytes. Offsets and
// lengths are bytes, ranges are half open, blocks are numbered from 0.
//
// Package blockiotest has conformance suites for those that several packages implement.
package blockio

import (
	"context"
	"errors"
	"fmt"
	"io"
)

var (
	// ErrShortSource says that a source ended before the bytes it announced.
	ErrShortSource = errors.New("source ended early")
	// ErrEmpty says that a source has no bytes at all.
	ErrEmpty = errors.New("the file is empty")
	// ErrBeyondEnd says that something should lie where the image has ended.
	ErrBeyondEnd = errors.New("beyond the end of the file (cut off?)")
)

// ReaderAt is random access to a disk, or to the bytes of an image.
//
// ReadAtContext keeps io.ReaderAt's contract: it fills p or returns an error,
// io.EOF if and only if the end was met first. It returns soon after ctx ends,
// with an error that wraps ctx's. It is safe for concurrent use. On an error
// other than io.EOF the contents of p are undefined.
type ReaderAt interface {
	ReadAtContext(ctx context.Context, p []byte, off int64) (n int, err error)
	// Size is the number of bytes that can be read; it never changes.
	Size() int64
}

// Extent is a range of bytes of an image: [Off, Off+Len).
type Extent struct {
	Off, Len int64
}

// End is the offset of the first byte after the extent.
func (e Extent) End() int64 { return e.Off + e.Len }

// Inside says whether all of the extent, whose numbers may be any, lies within size bytes.
func (e Extent) Inside(size int64) bool {
	return e.Off >= 0 && e.Len >= 0 && e.Len <= size && e.Off <= size-e.Len
}

// Span is adjacent blocks: [First, First+Count).
type Span struct {
	First, Count int64
}

// Extents locates the stored blocks of an image. It is safe for concurrent use.
type Extents interface {
	// Blocks is the number of blocks; it never changes.
	Blocks() int64
	// Extent locates stored block n, 0 <= n < Blocks(). It may have to read
	// a part of the index first. An extent of length 0 is legal.
	Extent(ctx context.Context, n int64) (Extent, error)
}

// Range is a request for a stretch of an image.
type Range struct {
	Extent
	// Class says who wants it.
	Class Class
	// Refetch says that the bytes sent for this range before were wrong:
	// pass over every cache on the way, and prefer another server.
	Refetch bool
}

// Ranges is the bytes of an image as streams. It is safe for concurrent use.
type Ranges interface {
	// OpenRange starts reading r, which lies within Size. The stream yields
	// exactly r.Len bytes and then io.EOF; passing faults of the line are
	// mended below it. Ending ctx fails the stream's reads. The caller closes
	// the stream.
	OpenRange(ctx context.Context, r Range) (io.ReadCloser, error)
	Size() int64
}

// Rereader is what a Ranges is, too, if it keeps what it has read. ReadAgain reads as a
// [ReaderAt] does, but past what is kept: that made no sense, and what comes takes its place.
type Rereader interface {
	ReadAgain(ctx context.Context, p []byte, off int64) (n int, err error)
}

// Blamer is what a Ranges is, too, if it has the same bytes from several servers. Blame
// says that the bytes of e that were sent first were wrong, and those of a Refetch right. It
// is safe for concurrent use.
type Blamer interface {
	Blame(e Extent)
}

// Class says who wants a block; a smaller value is served first.
type Class uint8

// The classes, in the order in which they are served.
const (
	Demand      Class  = iota // a reader is waiting
	ReadAhead                 // a sequential reader will soon want it
	Trace                     // an earlier run wanted it about now
	Speculation               // it lies near what was wanted
	Fill                      // all the rest, while the line is idle
	Classes     = iota        // the number of classes
)

func (c Class) String() string {
	return [Classes]string{"demand", "read-ahead", "trace", "speculation", "fill"}[c]
}

// Runs reads stored blocks, a run at a time. It is safe for concurrent use.
type Runs interface {
	// ReadRun reads the stored blocks [first, first+count). deliver is called
	// once for each block when its bytes have arrived, in any order, perhaps
	// concurrently; stored is valid during the call only and must not be
	// changed. An error from deliver says that these bytes are bad, and nothing
	// else: the block is fetched once more and delivered again, and if that is an
	// error, too, it is the result, wrapped in a BlockError. (A second copy of
	// the bad bytes that is at hand may be delivered in between.) Who wants to stop
	// for another reason ends ctx. A nil deliver only brings the blocks nearer.
	// ReadRun returns when all calls of deliver have returned.
	//
	// When ctx ends, ReadRun returns soon; what is on its way goes on
	// arriving for other readers.
	ReadRun(ctx context.Context, class Class, first, count int64,
		deliver func(n int64, stored []byte) error) error
}

// Taker is what a Runs is, too, if blocks can be had from it before a reader wants them. It
// is safe for concurrent use.
type Taker interface {
	// Take calls deliver with block n if its bytes are here, and says whether it did and
	// deliver had no error. It waits for no network, and counts as nobody's read.
	Take(n int64, deliver func(n int64, stored []byte) error) bool
	// Had says that a reader wants block n by now, which was taken.
	Had(n int64)
}

// BlockStore keeps stored blocks nearer than their source: on a local disk. It is
// an optimisation; none of its methods fails, they only help less. It is safe for
// concurrent use.
type BlockStore interface {
	// Have says whether block n, at e, seems to be here. Only Get knows.
	Have(n int64, e Extent) bool
	// Get fills p, which is as long as e, with block n, if it is here and still
	// as it was stored.
	Get(n int64, e Extent, p []byte) bool
	// Put stores block n. p must not change meanwhile.
	Put(n int64, e Extent, p []byte)
	// Forget says that what was stored of block n is of no use.
	Forget(n int64, e Extent)
	// Claim tells other processes that share the store that the bytes of e, of
	// one or more blocks, are on their way, and whether a reader waits for them.
	// It fails if one of them has said so; but where a reader waits, only if one
	// waits there, too. release says that the bytes are here, or won't come.
	Claim(e Extent, class Class) (release func(), ok bool)
}

// BlockCache keeps decoded blocks in memory, each loaded by one reader however
// many want it. It is safe for concurrent use.
type BlockCache interface {
	// Peek returns block n if it is loaded.
	Peek(n int64) (b CachedBlock, ok bool)
	// Reserve waits until another block may be filled: it bounds the memory of loads under
	// way. A loader calls it before b.Bytes(), and Unreserve when it has published or
	// discarded that; in between it waits for nothing.
	Reserve()
	// TryReserve is Reserve for who does not wait: false means that there is no room.
	TryReserve() bool
	Unreserve()
	// Acquire returns block n. If load is true the caller has become its
	// loader: it fills b.Bytes(), when it may, and calls b.Publish once. Else it calls
	// b.Wait before it looks at b.Bytes().
	Acquire(n int64) (b CachedBlock, load bool)
}

// CachedBlock is a decoded block, held in memory until Release is called.
type CachedBlock interface {
	// Bytes is the block, as long as every block of the disk. Only the loader
	// may write to it, before Publish; it takes no memory before its first call.
	Bytes() []byte
	// Discard gives back what Bytes has taken, until it is called again: the loader has
	// nothing to fill it with yet.
	Discard()
	// Publish ends loading. With an error the block is forgotten and every
	// waiter gets the error.
	Publish(err error)
	// Wait returns when the block is loaded (at once if it already is), could
	// not be, or ctx ends.
	Wait(ctx context.Context) error
	// Release gives the block back; Bytes is invalid from then on.
	Release()
}

// BlockError is a failure to get at one block.
type BlockError struct {
	Block int64
	Err   error
}

func (e *BlockError) Error() string { return fmt.Sprintf("read block %d: %v", e.Block, e.Err) }

func (e *BlockError) Unwrap() error { return e.Err }
