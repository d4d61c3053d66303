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
	at      int     // the run that is being brought
	off     int64   // of its next block
	left    []int   // where to go on at the end, the last first: what was left out
	// foreign has a bit for each of the last reads, the last one's in bit 0, that is
	// set if it was of blocks that are not in the trace.
	foreign uint32
}

const (
	// maxForeign is how many of the last 32 reads may be of other blocks, until
	// readers have left the trace.
	maxForeign = 16
	// maxJump is by how many runs a reader may be ahead of what is being brought,
	// until what lies between is left for later.
	maxJump = 128
	// maxLeft bounds left.
	maxLeft = 64
)

// newTrace returns the trace of runs, which do not overlap.
func newTrace(runs []blockio.Span) *trace {
	t := &trace{runs: runs, byBlock: make([]int32, len(runs))}
	for i := range t.byBlock {
		t.byBlock[i] = int32(i)
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

// wanted tells of a reader who wants block n first, and says whether it is in the
// trace.
func (t *trace) wanted(n int64) bool {
	if t == nil {
		return false
	}
	run, ok := t.find(n)
	t.foreign <<= 1
	switch {
	case !ok:
		t.foreign |= 1
	case run > t.at+maxJump && len(t.left) < maxLeft:
		t.left = append(t.left, t.at)
		t.at, t.off = run, 0
	}
	return ok
}

// stale says that readers have left the trace.
func (t *trace) stale() bool { return t == nil || bits.OnesCount32(t.foreign) > maxForeign }

// next is the next block of the trace; it may name one twice.
func (t *trace) next() (n int64, ok bool) {
	if t == nil {
		return 0, false
	}
	if last := len(t.left) - 1; t.at == len(t.runs) && last >= 0 {
		t.at, t.off, t.left = t.left[last], 0, t.left[:last]
	}
	if t.at == len(t.runs) {
		return 0, false
	}
	n = t.runs[t.at].First + t.off
	if t.off++; t.off == t.runs[t.at].Count {
		t.at, t.off = t.at+1, 0
	}
	return n, true
}
