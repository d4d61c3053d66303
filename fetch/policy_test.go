package fetch

import (
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
)

var someTime = time.Unix(1_000_000_000, 0)

// newPolicy returns the policy for an image of 10,000 blocks of 1,000 bytes, of which 16
// fill the line.
func newPolicy(ahead bool, trace ...blockio.Span) *policy {
	p := &policy{blocks: 10_000, ahead: ahead, room: true, quiet: true, neighbours: ahead, window: 16_000}
	if trace != nil {
		p.trace = newTrace(trace)
	}
	return p
}

// choice is what a policy offers.
type choice struct {
	N     int64
	Class blockio.Class
}

// take takes what p offers, at most n blocks.
func take(p *policy, n int) (list []choice) {
	for range n {
		b, class, ok := p.next(someTime)
		if !ok {
			break
		}
		p.long(1000)
		list = append(list, choice{b, class})
	}
	return list
}

func choices(class blockio.Class, blocks ...int64) (list []choice) {
	for _, n := range blocks {
		list = append(list, choice{n, class})
	}
	return list
}

// from is the numbers of count blocks.
func from(first, count int64) (list []int64) {
	for n := first; n < first+count; n++ {
		list = append(list, n)
	}
	return list
}

func check(t *testing.T, what string, got, want []choice) {
	t.Helper()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s (-want +got):\n%s", what, diff)
	}
}

func TestPolicyFollowsSequentialReaders(t *testing.T) {
	p := newPolicy(true)
	p.neighbours = false
	for i := range int64(256) { // three at a time, one of them backwards
		p.wanted(someTime, 100+i, 1)
		p.wanted(someTime, 5000+2*i, 2)
		p.wanted(someTime, 9000-i, 1)
	}
	want := choices(blockio.ReadAhead, from(5512, 16)...) // the last reader first
	want = append(want, choices(blockio.ReadAhead, from(356, 16)...)...)
	check(t, "for two readers", take(p, 100), want)

	p = newPolicy(true)
	p.neighbours = false
	p.wanted(someTime, 100, minStream-1)
	check(t, "for one who has read a little", take(p, 100), nil)
	p.wanted(someTime, 100+minStream+2, 5) // what the kernel asks for need not be in order
	p.wanted(someTime, 100+minStream-1, 3)
	check(t, "for one who has read more", take(p, 100), choices(blockio.ReadAhead, from(100+minStream+7, 16)...))
	p.wanted(someTime, 9990-minStream, minStream)
	p.room = false // and on a full line
	check(t, "near the end", take(p, 100), choices(blockio.ReadAhead, from(9990, 10)...))

	p = newPolicy(false)
	p.wanted(someTime, 100, 1000)
	check(t, "for one who wants nothing else", take(p, 100), nil)
}

// A reader may come to a block between its choice and the look at its length.
func TestPolicyIsOvertaken(t *testing.T) {
	p := newPolicy(true)
	p.neighbours = false
	p.wanted(someTime, 0, 100)
	if n, _, ok := p.next(someTime); n != 100 || !ok {
		t.Fatalf("block %d, %v", n, ok)
	}
	p.wanted(someTime, 100, 10)
	p.long(1000)
	check(t, "behind where the reader is", take(p, 100), choices(blockio.ReadAhead, from(110, 16)...))
}

// Blocks of next to no bytes are brought by the stretch, and do not hide how many of
// others are ahead.
func TestPolicyOfSmallBlocks(t *testing.T) {
	p := newPolicy(true)
	p.neighbours = false
	p.wanted(someTime, 0, 64)
	for n := int64(64); n < 564; n++ {
		if got, _, ok := p.next(someTime); got != n || !ok {
			t.Fatalf("block %d, %v; want %d", got, ok, n)
		}
		p.long(20)
	}
	p.wanted(someTime, 64, 500) // 10,000 bytes
	check(t, "behind them", take(p, 100), choices(blockio.ReadAhead, from(564, 16)...))
}

func TestPolicyForgetsOldReaders(t *testing.T) {
	p := newPolicy(true)
	for i := range int64(1000) {
		p.wanted(someTime, i*7919%10_000, 1)
	}
	if len(p.streams) > maxStreams || len(p.centres) > maxCentres {
		t.Errorf("%d streams and %d centres after 1000 reads", len(p.streams), len(p.centres))
	}
}

func TestPolicyLooksAroundReads(t *testing.T) {
	p := newPolicy(true)
	p.wanted(someTime, 500, 1)
	check(t, "around one read", take(p, 9), choices(blockio.Speculation, 501, 502, 503, 504, 505, 506, 507, 508, 499))
	p.wanted(someTime, 700, 1)
	check(t, "the last read first", take(p, 4), choices(blockio.Speculation, 701, 702, 703, 704))
	p.wanted(someTime, 501, 1) // which goes on where the first was
	check(t, "where somebody has come back", take(p, 4), choices(blockio.Speculation, 509, 510, 511, 512))

	rest := take(p, 1000)
	seen := make(map[int64]bool)
	for _, c := range rest {
		if seen[c.N] {
			t.Errorf("block %d is offered twice", c.N)
		}
		seen[c.N] = true
		if near := c.N > 500-65 && c.N < 502+65 || c.N > 700-65 && c.N < 701+65; !near {
			t.Errorf("block %d is not near", c.N)
		}
	}
	if len(rest) < 200 {
		t.Errorf("only %d more blocks are near", len(rest))
	}

	p = newPolicy(true)
	p.wanted(someTime, 0, 1)
	p.wanted(someTime, 9999, 1)
	for _, c := range take(p, 1000) {
		if c.N < 0 || c.N >= 10_000 {
			t.Errorf("block %d of 10000 is offered", c.N)
		}
	}
}

func TestPolicyStopsLooking(t *testing.T) {
	p := newPolicy(true)
	p.wanted(someTime, 500, 1)
	if _, _, ok := p.next(someTime.Add(idleTime + 1)); ok {
		t.Error("long after the last read a block is offered")
	}
	for range maxVain {
		p.here()
	}
	check(t, "where everything is here already", take(p, 1), nil)
	p.wanted(someTime, 600, 1)
	check(t, "after another read", take(p, 1), choices(blockio.Speculation, 601))
}

// So it is while what readers have left out is brought: they have gone on.
func TestPolicyLooksIntoHolesMeanwhile(t *testing.T) {
	trace := []blockio.Span{}
	for i := range int64(500) {
		trace = append(trace, blockio.Span{First: 9000 - 4*i, Count: 1})
	}
	p := newPolicy(true, trace...)
	p.neighbours = false
	p.wanted(someTime, trace[200].First, 1)
	take(p, 305) // from there on, and some of those before
	p.neighbours = true
	p.wanted(someTime, 100, 1)
	check(t, "what comes next", take(p, 1), choices(blockio.Speculation, 101))
}

// A trace that has holes is brought a little ahead of its readers; then it is their turn.
func TestPolicyLooksIntoHoles(t *testing.T) {
	trace := []blockio.Span{}
	for i := range int64(500) {
		trace = append(trace, blockio.Span{First: 9000 - 4*i, Count: 2})
	}
	p := newPolicy(true, trace...)
	p.wanted(someTime, trace[0].First, 2)
	p.wanted(someTime, 100, 1)
	list := take(p, 1000)
	i := slices.IndexFunc(list, func(c choice) bool { return c.Class == blockio.Speculation })
	if i < minLead-2 || i > minLead+2 || list[i].N != 101 {
		t.Errorf("after %d blocks of the trace comes %v", i, list[i])
	}
	if n := len(slices.DeleteFunc(list, func(c choice) bool { return c.Class != blockio.Trace })); n < 800 {
		t.Errorf("of the trace %d blocks were brought in the end", n)
	}
}

func TestPolicyReplays(t *testing.T) {
	p := newPolicy(true, blockio.Span{First: 40, Count: 3}, blockio.Span{First: 10, Count: 2}, blockio.Span{First: 90, Count: 1})
	p.wanted(someTime, 41, 1) // a reader was faster
	check(t, "what is left", take(p, 100), choices(blockio.Trace, 40, 42, 10, 11, 90))

	long := []blockio.Span{}
	for i := range int64(1000) {
		long = append(long, blockio.Span{First: 9999 - 3*i, Count: 1})
	}
	p = newPolicy(true, long...)
	for i := range 10 {
		p.wanted(someTime, long[i].First, 1)
	}
	check(t, "while readers keep to it", take(p, 2), choices(blockio.Trace, long[10].First, long[11].First))
	for i := range int64(maxInVain) {
		p.wanted(someTime, 10+100*i, 1)
	}
	check(t, "while some do not", take(p, 1), choices(blockio.Trace, long[12].First))
	p.wanted(someTime, 5000, 1)
	check(t, "when most do not", take(p, 2), choices(blockio.Speculation, 5001, 5002))
	p.quiet = false
	check(t, "when most do not, and readers fill the line", take(p, 1), nil)
	p.quiet = true
	for i := range 32 {
		p.wanted(someTime, long[13+i].First, 1)
	}
	check(t, "when they have come back", take(p, 1), choices(blockio.Trace, long[45].First))

	p.wanted(someTime, long[600].First, 1)
	check(t, "where one has left something out", take(p, 2), choices(blockio.Trace, long[601].First, long[602].First))
	var all []int64
	for _, c := range take(p, 10_000) {
		if c.Class == blockio.Trace {
			all = append(all, c.N)
		}
	}
	if !slices.Contains(all, long[500].First) || !slices.Contains(all, long[999].First) {
		t.Error("not everything is brought in the end")
	}
}
