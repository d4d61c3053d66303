package fetch

import (
	"slices"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// policy decides which blocks to bring before a reader waits for them. It is told what
// readers want, and whenever there is room on the line it is asked for the next block.
// In this order it offers:
//
//   - what a sequential reader will want next, up to what fills the line;
//   - what the trace of an earlier run says, as long as readers keep to it, and if it has
//     holes only some way ahead of them;
//   - what lies near the last reads: a disk's blocks are wanted in clusters, and
//     the one around the last read is the one that is being read;
//   - what the trace says although readers have left it.
//
// A reader who keeps to the trace is followed by nothing else. It asks nobody, not even
// the clock, and is not safe for concurrent use. Its figures come from TestSimulate.
type policy struct {
	blocks int64 // of the image
	ahead  bool  // something is to be brought beside the trace
	// room says that there is room for more than what sequential readers will want, quiet
	// that there is room also beside what readers wait for, and neighbours that blocks near
	// the last reads may be brought at all.
	room, quiet, neighbours bool
	// window is how many bytes fill the line.
	window int64

	asked   bitset    // blocks that somebody has asked for
	streams []*stream // the last read first
	centres []*centre // likewise
	trace   *trace    // nil: none
	last    time.Time // of the last read
	vain    int       // blocks in a row, since then, that were here already
	reader  *stream   // for whom next has named the last block; nil if for none
	named   int64     // which that was, if for somebody
}

const (
	// maxStreams is how many sequential readers are told apart.
	maxStreams = 16
	// streamSlack is by how many blocks one may go back or skip: the kernel's own
	// read-ahead sends its requests out of order.
	streamSlack = 4
	// minStream is how many blocks one must have read to be sequential.
	minStream = 64
	// freeAhead is how many bytes are brought even for one who has read less: whole
	// stretches of zeros.
	freeAhead = 64 << 10
	// maxStreamAhead bounds the blocks that are brought for one.
	maxStreamAhead = 8192

	// maxCentres is around how many of the last reads to look.
	maxCentres = 16
	// maxDistance is how many blocks far.
	maxDistance = 64
	// backward and age say what comes first: the block at the least distance,
	// which counts backward times if it lies before the read, and is age more for each
	// later read elsewhere.
	backward = 8
	age      = 16
	// idleTime without a read is the end of that.
	idleTime = 5 * time.Second
	// maxVain is how many blocks to look at that turn out to be here already,
	// until the next read.
	maxVain = 1024
)

// stream is a sequential reader.
type stream struct {
	next   int64 // the block behind what it has read
	length int64 // how many blocks that are
	ahead  int64 // the block behind what was brought for it, at least next

	brought []int64 // the bytes of each block from next to ahead; 0 if it was here already
	bytes   int64   // all of them
}

// centre is a place where somebody has read.
type centre struct {
	from, to      int64 // what was read
	before, after int64 // how many blocks beside that were looked at
}

// idle says that there is nothing to bring, whatever readers want.
func (p *policy) idle() bool { return !p.ahead && p.trace == nil }

// wanted tells of a reader who wants the blocks [first, first+count).
func (p *policy) wanted(now time.Time, first, count int64) {
	p.last, p.vain = now, 0
	traced := p.trace.wanted(first, p.asked.has(first))
	for n := first; n < first+count; n++ {
		p.asked.add(n)
	}
	if !traced || p.trace.stale() {
		p.follow(first, count)
		p.look(first, count)
	}
}

// follow notes a read of a sequential reader, or of one who may become one.
func (p *policy) follow(first, count int64) {
	i := slices.IndexFunc(p.streams, func(s *stream) bool {
		return first >= s.next-streamSlack && first <= s.next+streamSlack
	})
	end := first + count
	s := &stream{next: end, length: count, ahead: end}
	if i >= 0 {
		s = p.streams[i]
		p.streams = slices.Delete(p.streams, i, i+1)
		s.length += max(0, min(count, end-s.next))
		s.move(max(s.next, end))
	}
	p.streams = slices.Insert(p.streams, 0, s)
	p.streams = p.streams[:min(len(p.streams), maxStreams)]
}

// move says that the reader is at a block, no earlier one than before.
func (s *stream) move(next int64) {
	read := min(next-s.next, int64(len(s.brought)))
	for _, n := range s.brought[:read] {
		s.bytes -= n
	}
	s.brought = s.brought[read:]
	s.next, s.ahead = next, max(s.ahead, next)
}

// look notes the place of a read.
func (p *policy) look(first, count int64) {
	end := first + count
	i := slices.IndexFunc(p.centres, func(c *centre) bool { return first <= c.to && end >= c.from })
	c := &centre{from: first, to: end}
	if i >= 0 {
		c = p.centres[i]
		p.centres = slices.Delete(p.centres, i, i+1)
		c.after = max(0, c.after-max(0, end-c.to))
		c.before = max(0, c.before-max(0, c.from-first))
		c.from, c.to = min(c.from, first), max(c.to, end)
	}
	p.centres = slices.Insert(p.centres, 0, c)
	p.centres = p.centres[:min(len(p.centres), maxCentres)]
}

// maxSkip is how many blocks next looks at.
const maxSkip = 1000

// next is the next block to bring, and for which class. It is never named again. -1 means
// that it was not found yet.
func (p *policy) next(now time.Time) (n int64, class blockio.Class, ok bool) {
	for range maxSkip {
		n, class, ok = p.choose(now)
		if !ok || !p.asked.has(n) {
			if ok {
				p.asked.add(n)
			}
			if ok && class == blockio.Trace {
				p.trace.brought.add(n)
			}
			return n, class, ok
		}
	}
	return -1, class, true
}

// choose is next, but may name a block that somebody has asked for.
func (p *policy) choose(now time.Time) (n int64, class blockio.Class, ok bool) {
	p.reader = nil
	if n, ok = p.readAhead(); ok {
		return n, blockio.ReadAhead, true
	}
	if !p.room {
		return 0, 0, false
	}
	if !p.trace.stale() && !p.trace.leads() {
		if n, ok = p.trace.next(); ok {
			return n, blockio.Trace, true
		}
	}
	if !p.quiet {
		return 0, 0, false
	}
	if p.neighbours && now.Sub(p.last) <= idleTime && p.vain < maxVain {
		if n, ok = p.neighbour(); ok {
			return n, blockio.Speculation, true
		}
	}
	n, ok = p.trace.next()
	return n, blockio.Trace, ok
}

// here says that the block that next has named was here already.
func (p *policy) here() {
	if p.reader == nil {
		p.vain++
	}
}

// long says how many bytes the block has that next has named, which was not here.
func (p *policy) long(n int64) {
	if s := p.reader; s != nil && p.named >= s.next { // who has not come to it since
		s.brought[p.named-s.next] = n
		s.bytes += n
	}
}

// readAhead is the next block for a sequential reader: as many bytes are brought ahead
// as fill the line, but for one who has read k blocks no more than k, or freeAhead.
func (p *policy) readAhead() (n int64, ok bool) {
	if !p.ahead {
		return 0, false
	}
	for _, s := range p.streams {
		more := s.length >= minStream && s.bytes < p.window && s.ahead < min(s.next+maxStreamAhead, p.blocks)
		if more && (s.ahead < s.next+s.length || s.bytes < freeAhead) {
			p.reader, p.named = s, s.ahead
			s.brought = append(s.brought, 0)
			s.ahead++
			return p.named, true
		}
	}
	return 0, false
}

// neighbour is the next block near the last reads.
func (p *policy) neighbour() (n int64, ok bool) {
	var best *centre
	var back bool
	least := int64(0)
	for i, c := range p.centres {
		cost := c.after + 1 + age*int64(i)
		if c.after < maxDistance && c.to+c.after < p.blocks && (best == nil || cost < least) {
			best, back, least = c, false, cost
		}
		cost = backward*(c.before+1) + age*int64(i)
		if c.before < maxDistance && c.from-c.before > 0 && (best == nil || cost < least) {
			best, back, least = c, true, cost
		}
	}
	switch {
	case best == nil:
		return 0, false
	case back:
		best.before++
		return best.from - best.before, true
	default:
		best.after++
		return best.to + best.after - 1, true
	}
}
