package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"

	"golang.org/x/sync/errgroup"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/internal/units"
)

// bringing is the way of an image into the cache.
type bringing struct {
	line    *line.Line
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

// bytesMissing is how many bytes of the image are not in the cache, as it seems.
func bytesMissing(ctx context.Context, l *line.Line) (int64, error) {
	// In large pieces: of its own accord the index is read page by page.
	if err := l.ReadBytes(ctx, []blockio.Extent{l.Index().Table()}, func(int) {}); err != nil {
		return 0, err
	}
	size, missing, err := measure(ctx, l, []blockio.Span{{Count: l.Index().Blocks()}})
	return l.ImageSize() - (size - missing), err // also what the index does not locate
}

// measure adds up the stored bytes of some blocks and of all that is no block, and those of
// them that are not in the cache, as it seems. Blocks that the index does not locate have none.
func measure(ctx context.Context, l *line.Line, spans []blockio.Span) (size, missing int64, err error) {
	rest, err := restOf(ctx, l)
	if err != nil {
		return 0, 0, err
	}
	for _, e := range rest {
		size += e.Len
		if !l.HasBytes(e) {
			missing += e.Len
		}
	}
	for _, span := range spans {
		err := segments(ctx, l.Index(), span, onlyCorrupt, func(s segment) error {
			size += s.bytes
			for n := s.first; n < s.first+s.count; n++ {
				e, err := l.Index().Extent(ctx, n)
				if err != nil {
					return err
				}
				if e.Len > 0 && !l.Store().Here(n, e) {
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

// restOf is what of the image lies before its first and behind its last block:
// header, index, padding.
func restOf(ctx context.Context, l *line.Line) ([]blockio.Extent, error) {
	ends := [2]blockio.Extent{}
	for i, n := range []int64{0, l.Index().Blocks() - 1} {
		e, err := l.Index().Extent(ctx, n)
		if err != nil {
			return nil, err
		}
		ends[i] = e
	}
	return []blockio.Extent{{Len: ends[0].Off}, {Off: ends[1].End(), Len: l.ImageSize() - ends[1].End()}}, nil
}

// run brings what is wanted, and all that is no block, and compares what was here already: every block that has
// a checksum is decoded. An error is one that is not the image's fault; what can't
// be stored ends it, as fetching the rest would be no use.
func (b *bringing) run(ctx context.Context) error {
	// Else the first block to be stored has to make all the room, and gives up at some
	// time. Where there is none, blocks are not stored, and that says why.
	_ = b.line.CacheDir().Enforce(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(b.workers + 1)
	g.Go(func() error {
		for _, span := range b.wanted() {
			err := segments(ctx, b.line.Index(), span, b.notLocated, func(s segment) error {
				g.Go(func() error { return b.bring(ctx, s) })
				return ctx.Err()
			})
			if err != nil {
				return err
			}
		}
		rest, err := restOf(ctx, b.line)
		if err != nil {
			return err
		}
		if err := b.line.ReadBytes(ctx, rest, func(n int) { b.done.Add(int64(n)) }); err != nil {
			return err
		}
		for _, e := range rest {
			if !b.line.HasBytes(e) {
				return b.line.NotStored()
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
	return []blockio.Span{{First: from, Count: b.line.Index().Blocks() - from}}
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
	check, err := b.line.Index().Checker(ctx, s.first, s.count)
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
		err := b.line.Runs().ReadRun(ctx, b.class, next, end-next, deliver)
		var be *blockio.BlockError
		switch {
		case err == nil:
			next = end
		case line.BadBlock(err) && errors.As(err, &be):
			b.isBad(err)
			bad = true
			if e, err := b.line.Index().Extent(ctx, be.Block); err == nil {
				b.line.Store().Drop(be.Block, e)
			}
			next = be.Block + 1 // the blocks before it have been delivered
		default:
			return err
		}
	}
	b.next.Store(end)
	if b.line.Entry().Removed() {
		return b.line.NotStored()
	}
	for n := s.first; n < end; n++ {
		// With a bad block a small one beside it may be forgotten.
		if err := isStored(ctx, b.line, n); err != nil && !bad {
			return err
		}
	}
	return nil
}

// isStored says whether a block that has been fetched was stored.
func isStored(ctx context.Context, l *line.Line, n int64) error {
	e, err := l.Index().Extent(ctx, n)
	if err == nil && e.Len > 0 && !l.Store().Have(n, e) {
		err = l.NotStored()
	}
	return err
}

// lineError is what is wrong with one of several images.
type lineError struct {
	line *line.Line
	err  error
}

func (e *lineError) Error() string { return fmt.Sprintf("%s: %v", e.line.At(), e.err) }

func (e *lineError) Unwrap() error { return e.err }

// fit says whether images fit into the cache that they share. The error is a
// *roomError if they do not, and a *lineError if it is about one of them.
func fit(ctx context.Context, lines []*line.Line) error {
	lines = slices.DeleteFunc(slices.Clone(lines), func(l *line.Line) bool { return !l.Remote() }) // nothing can come
	if len(lines) == 0 {
		return nil
	}
	err := fits(lines, sum(lines, func(l *line.Line) int64 { return l.ImageSize() }))
	if err == nil {
		return nil // even if nothing of them were here: nobody needs to look
	}
	missing := make(map[*line.Line]int64)
	for _, l := range lines {
		if missing[l], err = bytesMissing(ctx, l); err != nil {
			return &lineError{l, err}
		}
	}
	total := sum(lines, func(l *line.Line) int64 { return missing[l] })
	if total == 0 {
		return nil // then no bound matters
	}
	return fits(lines, total)
}

// sum adds up what images take. Several in one file take no more than the file.
func sum(lines []*line.Line, size func(*line.Line) int64) (total int64) {
	files := make(map[string]int64)
	for _, l := range lines {
		path := l.Entry().Path()
		n := min(files[path]+size(l), l.FileSize())
		total += n - files[path]
		files[path] = n
	}
	return total
}

// fits says whether so many more bytes of images fit into the cache.
func fits(lines []*line.Line, missing int64) error {
	var entries []*cache.Entry
	for _, l := range lines {
		entries = append(entries, l.Entry())
	}
	dir := lines[0].CacheDir()
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
	return fmt.Sprintf("%s are missing, and the cache in %s has room for %s", units.FormatSize(e.missing), e.dir, units.FormatSize(e.room))
}
