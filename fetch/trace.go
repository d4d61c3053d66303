package fetch

import (
	"cmp"
	"math/bits"
	"slices"
	"sort"

	"github.com/cloopfs/cloopfs/blockio"
)

// trace is what an earlier run wanted, in its order. A nil trace is empty.
type trace struct {
	runs    []blockio.Span
	byBlock []int32 // indices of runs, in the order of their first blocks
	starts  []int64 // how many blocks lie before each run
	brought bitset  // for its sake
	part            // which is being brought
	off     int64   // of the next block in its run
	left    []part  // what was left out, the last first
	// vain has a bit for each of the last reads, the last one's in bit 0, that is set
	// if the trace was of no help.
	vain   uint32
	reader int // the run that somebody has wanted a block of last
}

// part is runs [at, end).
type part struct{ at, end int }

const (
	// maxInVain is for how many of the last 32 reads the trace may have been of no
	// help, until readers have left it.
	maxInVain = 12
	// maxNear is how many blocks before its turn a block may be wanted.
	maxNear = 64
	// maxJump is by how many runs a reader may be ahead of what is being brought,
	// until what lies between is left for later.
	maxJump = 128
	// minLead is how many blocks ahead of its readers a trace with holes leaves the line
	// to others.
	minLead = 128
	// maxLeft bounds left.
	maxLeft = 64
)

// newTrace returns the trace of runs, which do not overlap.
func newTrace(runs []blockio.Span) *trace {
	t := &trace{runs: runs, byBlock: make([]int32, len(runs)), starts: make([]int64, len(runs)), part: part{0, len(runs)}}
	before := int64(0)
	for i := range t.byBlock {
		t.byBlock[i] = int32(i)
		t.starts[i] = before
		before += runs[i].Count
	}
	slices.SortFunc(t.byBlock, func(a, b int32) int { return cmp.Compare(runs[a].First, runs[b].First) })
	return t
}

// find is the run that has block n.
func (t *trace) find(n int64) (run int, ok bool) {
	i := sort.Search(len(t.byBlock), func(i int) bool { return t.runs[t.byBlock[i]].First > n })
	if i == 0 {
		return 0, false
	}
	run = int(t.byBlock[i-1])
	return run, n < t.runs[run].First+t.runs[run].Count
}

// wanted tells of a reader who wants block n first, for which somebody has asked before or
// not, and says whether it is in the trace. The trace was of help if it has brought the
// block, or was about to.
func (t *trace) wanted(n int64, asked bool) bool {
	if t == nil {
		return false
	}
	run, ok := t.find(n)
	t.vain <<= 1
	if !ok || !t.brought.has(n) && !t.near(run, n) {
		t.vain |= 1
	}
	if !ok {
		return false
	}
	t.reader = run
	if !asked && run > t.at+maxJump && run < t.end && len(t.left) < maxLeft {
		t.left = append(t.left, part{t.at, run})
		t.at, t.off = run, 0
	}
	return true
}

// near says whether block n, of a run, is soon brought.
func (t *trace) near(run int, n int64) bool {
	if t.at == t.end {
		return false
	}
	before := t.starts[run] + n - t.runs[run].First - t.starts[t.at] - t.off
	return before >= 0 && before < maxNear
}

// stale says that readers have left the trace.
func (t *trace) stale() bool { return t == nil || bits.OnesCount32(t.vain) > maxInVain }

// leads says that the trace, which is not nil, has holes, and that what readers will want next
// of it has been brought: so there is time for what may be in the holes.
func (t *trace) leads() bool {
	switch {
	case t.vain == 0:
		return false
	case t.at == t.end, t.reader >= t.end: // the second where what was left out is brought
		return true
	}
	return t.starts[t.at]+t.off-t.starts[t.reader] >= minLead
}

// next is the next block of the trace; it may name one twice.
func (t *trace) next() (n int64, ok bool) {
	if t == nil {
		return 0, false
	}
	if last := len(t.left) - 1; t.at == t.end && last >= 0 {
		t.part, t.off, t.left = t.left[last], 0, t.left[:last]
	}
	if t.at == t.end {
		return 0, false
	}
	n = t.runs[t.at].First + t.off
	if t.off++; t.off == t.runs[t.at].Count {
		t.at, t.off = t.at+1, 0
	}
	return n, true
}
