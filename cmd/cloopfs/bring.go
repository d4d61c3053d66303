package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/cloop"
)

// bringing is the way of an image into the cache.
type bringing struct {
	line    *line
	class   blockio.Class
	workers int
	done    atomic.Int64   // bytes of the image that are here and right
	next    atomic.Int64   // the block behind the last segment that came, with one worker
	only    []blockio.Span // if not nil: the blocks that are wanted, in order

	// mu guards the fields below.
	mu  sync.Mutex
	bad int64 // blocks that are not right at the source either
	why error // for one of them
}

const (
	// segmentBytes and segmentBlocks bound what one worker brings at a time: one
	// request, and not too many blocks of zeros to decode.
	segmentBytes  = 1 << 20
	segmentBlocks = 16384
)

// segment is adjacent blocks.
type segment struct{ first, count, bytes int64 }

// segments cuts blocks of an index into segments. bad is told of blocks that the index
// does not locate; an error from it is the end.
func segments(ctx context.Context, ix *cloop.Index, of blockio.Span, bad func(*blockio.BlockError) error, yield func(segment) error) error {
	s := segment{first: of.First}
	flush := func() error {
		if s.count == 0 {
			return nil
		}
		return yield(s)
	}
	for n := of.First; n < of.First+of.Count; n++ {
		e, err := ix.Extent(ctx, n)
		if err != nil || s.bytes+e.Len > segmentBytes || s.count == segmentBlocks {
			if err := flush(); err != nil {
				return err
			}
			s = segment{first: n}
		}
		if err != nil {
			if err := bad(&blockio.BlockError{Block: n, Err: err}); err != nil {
				return err
			}
			s.first = n + 1
			continue
		}
		s.count++
		s.bytes += e.Len
	}
	return flush()
}

// onlyCorrupt lets blocks pass that a corrupt index does not locate.
func onlyCorrupt(err *blockio.BlockError) error {
	if errors.Is(err, cloop.ErrCorrupt) {
		return nil
	}
	return err.Err
}

// missing is how many bytes of the image are not in the cache, as it seems.
func (l *line) missing(ctx context.Context) (int64, error) {
	// In large pieces: of its own accord the index is read page by page.
	if err := l.read(ctx, []blockio.Extent{l.index.Table()}, func(int) {}); err != nil {
		return 0, err
	}
	_, missing, err := l.measure(ctx, []blockio.Span{{Count: l.index.Blocks()}})
	return missing, err
}

// measure adds up the stored bytes of some blocks and of all that is no block, and those of
// them that are not in the cache, as it seems. Blocks that the index does not locate have none.
func (l *line) measure(ctx context.Context, spans []blockio.Span) (size, missing int64, err error) {
	rest, err := l.rest(ctx)
	if err != nil {
		return 0, 0, err
	}
	for _, e := range rest {
		size += e.Len
		if !l.hasBytes(e) {
			missing += e.Len
		}
	}
	for _, span := range spans {
		err := segments(ctx, l.index, span, onlyCorrupt, func(s segment) error {
			size += s.bytes
			for n := s.first; n < s.first+s.count; n++ {
				e, err := l.index.Extent(ctx, n)
				if err != nil {
					return err
				}
				if e.Len > 0 && !l.store.Here(n, e) {
					missing += e.Len
				}
			}
			return ctx.Err()
		})
		if err != nil {
			return 0, 0, err
		}
	}
	return size, missing, nil
}

// hasBytes says whether an extent of the image that is no block is in the cache.
func (l *line) hasBytes(e blockio.Extent) bool {
	return l.file.cached.entry.HaveBytes(l.parts, e)
}

// rest is what of the image lies before its first and behind its last block:
// header, index, padding.
func (l *line) rest(ctx context.Context) ([]blockio.Extent, error) {
	ends := [2]blockio.Extent{}
	for i, n := range []int64{0, l.index.Blocks() - 1} {
		e, err := l.index.Extent(ctx, n)
		if err != nil {
			return nil, err
		}
		ends[i] = e
	}
	return []blockio.Extent{{Len: ends[0].Off}, {Off: ends[1].End(), Len: l.source.Size() - ends[1].End()}}, nil
}

// run brings what is wanted, and all that is no block, and compares what was here already: every block that has
// a checksum is decoded. An error is one that is not the image's fault; what can't
// be stored ends it, as fetching the rest would be no use.
func (b *bringing) run(ctx context.Context) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(b.workers + 1)
	g.Go(func() error {
		for _, span := range b.wanted() {
			err := segments(ctx, b.line.index, span, b.notLocated, func(s segment) error {
				g.Go(func() error { return b.bring(ctx, s) })
				return ctx.Err()
			})
			if err != nil {
				return err
			}
		}
		rest, err := b.line.rest(ctx)
		if err != nil {
			return err
		}
		if err := b.line.read(ctx, rest, func(n int) { b.done.Add(int64(n)) }); err != nil {
			return err
		}
		for _, e := range rest {
			if !b.line.hasBytes(e) {
				return b.line.notStored()
			}
		}
		return nil
	})
	return g.Wait()
}

// wanted is the blocks that are to be brought.
func (b *bringing) wanted() []blockio.Span {
	if b.only != nil {
		return b.only
	}
	from := b.next.Load()
	return []blockio.Span{{First: from, Count: b.line.index.Blocks() - from}}
}

// notLocated notes a block that the index does not locate.
func (b *bringing) notLocated(err *blockio.BlockError) error {
	if err := onlyCorrupt(err); err != nil {
		return err
	}
	b.isBad(err)
	return nil
}

func (b *bringing) isBad(err error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.bad++
	b.why = err
}

// bring brings a segment. A block that is bad is no reason to leave out the others.
func (b *bringing) bring(ctx context.Context, s segment) error {
	end := s.first + s.count
	check, err := b.line.index.Checker(ctx, s.first, s.count)
	if err != nil {
		return err
	}
	deliver := func(n int64, stored []byte) error {
		if err := check(n, stored); err != nil {
			return err
		}
		b.done.Add(int64(len(stored)))
		return nil
	}
	bad := false
	for next := s.first; next < end; {
		err := b.line.runs.ReadRun(ctx, b.class, next, end-next, deliver)
		var be *blockio.BlockError
		switch {
		case err == nil:
			next = end
		case badBlock(err) && errors.As(err, &be):
			b.isBad(err)
			bad = true
			if e, err := b.line.index.Extent(ctx, be.Block); err == nil {
				b.line.store.Drop(be.Block, e)
			}
			next = be.Block + 1 // the blocks before it have been delivered
		default:
			return err
		}
	}
	b.next.Store(end)
	if b.line.file.cached.entry.Removed() {
		return b.line.notStored()
	}
	for n := s.first; n < end; n++ {
		// With a bad block a small one beside it may be forgotten.
		if err := b.line.isStored(ctx, n); err != nil && !bad {
			return err
		}
	}
	return nil
}

// errNotStored says that what was fetched could not be kept.
var errNotStored = errors.New("what is fetched can't be stored")

// isStored says whether a block that has been fetched was stored.
func (l *line) isStored(ctx context.Context, n int64) error {
	e, err := l.index.Extent(ctx, n)
	if err == nil && e.Len > 0 && !l.store.Have(n, e) {
		err = l.notStored()
	}
	return err
}

func (l *line) notStored() error {
	if l.file.cached.entry.Removed() {
		return fmt.Errorf("%w in %s: the image was removed from there", errNotStored, l.file.cached.dir.Path())
	}
	return fmt.Errorf("%w in %s", errNotStored, l.file.cached.dir.Path())
}

// restPiece is how much of what is no block is read at a time.
const restPiece = 1 << 20

// read reads extents of the image that are no blocks, and so brings them into the
// cache.
func (l *line) read(ctx context.Context, list []blockio.Extent, tell func(n int)) error {
	for _, e := range list {
		for e.Len > 0 {
			p := make([]byte, min(e.Len, restPiece))
			if _, err := l.source.ReadAtContext(ctx, p, e.Off); err != nil && err != io.EOF {
				return fmt.Errorf("read %d bytes at %d: %w", len(p), e.Off, err)
			}
			tell(len(p))
			e.Off, e.Len = e.Off+int64(len(p)), e.Len-int64(len(p))
		}
	}
	return nil
}

// lineError is what is wrong with one of several images.
type lineError struct {
	line *line
	err  error
}

func (e *lineError) Error() string { return fmt.Sprintf("%s: %v", e.line.at, e.err) }

func (e *lineError) Unwrap() error { return e.err }

// fit says whether images fit into the cache that they share. The error is a
// *roomError if they do not, and a *lineError if it is about one of them.
func fit(ctx context.Context, lines []*line) error {
	lines = slices.DeleteFunc(slices.Clone(lines), func(l *line) bool { return l.file.remote == nil }) // nothing can come
	if len(lines) == 0 {
		return nil
	}
	err := fits(lines, sum(lines, func(l *line) int64 { return l.source.Size() }))
	if err == nil {
		return nil // even if nothing of them were here: nobody needs to look
	}
	missing := make(map[*line]int64)
	for _, l := range lines {
		if missing[l], err = l.missing(ctx); err != nil {
			return &lineError{l, err}
		}
	}
	total := sum(lines, func(l *line) int64 { return missing[l] })
	if total == 0 {
		return nil // then no bound matters
	}
	return fits(lines, total)
}

// sum adds up what images take. Several in one file take no more than the file.
func sum(lines []*line, size func(*line) int64) (total int64) {
	files := make(map[string]int64)
	for _, l := range lines {
		path := l.file.cached.entry.Path()
		n := min(files[path]+size(l), l.file.Size())
		total += n - files[path]
		files[path] = n
	}
	return total
}

// fits says whether so many more bytes of images fit into the cache.
func fits(lines []*line, missing int64) error {
	var entries []*cache.Entry
	for _, l := range lines {
		entries = append(entries, l.file.cached.entry)
	}
	dir := lines[0].file.cached.dir
	room, err := dir.Fits(entries...)
	if err != nil {
		return err
	}
	// The tables take a 512th of what they stand for, and whole pages.
	if need := missing + missing/256 + int64(len(lines))*64<<10; need > room {
		return &roomError{missing: missing, room: max(0, room), dir: dir.Path()}
	}
	return nil
}

// roomError says that images do not fit into the cache.
type roomError struct {
	missing, room int64
	dir           string
}

func (e *roomError) Error() string {
	return fmt.Sprintf("%s are missing, and the cache in %s has room for %s", formatSize(e.missing), e.dir, formatSize(e.room))
}
