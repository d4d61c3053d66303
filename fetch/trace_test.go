package fetch

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
)

// A block is near if one of the next ones to be brought, in the trace's order.
func TestTraceNear(t *testing.T) {
	runs := []blockio.Span{{First: 500, Count: 10}, {First: 100, Count: 50}, {First: 300, Count: 50}}
	tr := newTrace(runs)
	for range 13 {
		if _, ok := tr.next(); !ok {
			t.Fatal("the trace has an end")
		}
	}
	for n, want := range map[int64]bool{500: false, 509: false, 102: false, 103: true, 149: true, 300: true, 316: true, 317: false, 349: false} {
		run, ok := tr.find(n)
		if got := tr.near(run, n); !ok || got != want {
			t.Errorf("block %d: near %v, want %v", n, got, want)
		}
	}
	for range 97 {
		tr.next()
	}
	if run, _ := tr.find(349); tr.near(run, 349) {
		t.Error("when all was brought the last block is near")
	}
}

// What a reader leaves out by a long jump to what nobody has asked for is brought when the
// rest has been, the last first.
func TestTraceJumps(t *testing.T) {
	runs := make([]blockio.Span, 600)
	for i := range runs {
		runs[i] = blockio.Span{First: int64(9000 - 10*i), Count: 2}
	}
	tr := newTrace(runs)
	tr.next()
	for _, tt := range []struct {
		run    int
		second bool // of the run's blocks
		asked  bool
		at     int // where the trace goes on
	}{
		{maxJump, false, false, 0},
		{maxJump + 1, false, true, 0},
		{maxJump + 1, false, false, maxJump + 1},
		{10, false, false, maxJump + 1}, // back: that is for later
		{2*maxJump + 2, true, false, 2*maxJump + 2},
	} {
		n := runs[tt.run].First
		if tt.second {
			n++
		}
		if !tr.wanted(n, tt.asked) || tr.at != tt.at {
			t.Fatalf("run %d, asked %v: it goes on with run %d, want %d", tt.run, tt.asked, tr.at, tt.at)
		}
	}
	if tr.wanted(1, false) || tr.wanted(9002, false) {
		t.Error("a block beside the trace is in it")
	}
	var got []part
	for {
		n, ok := tr.next()
		if !ok {
			break
		}
		run, _ := tr.find(n)
		switch last := len(got) - 1; {
		case last >= 0 && (got[last].end == run || got[last].end == run+1):
			got[last].end = run + 1
		default:
			got = append(got, part{run, run + 1})
		}
	}
	want := []part{{2*maxJump + 2, 600}, {maxJump + 1, 2*maxJump + 2}, {0, maxJump + 1}}
	if diff := cmp.Diff(want, got, cmp.AllowUnexported(part{})); diff != "" {
		t.Errorf("it is brought in this order (-want +got):\n%s", diff)
	}
}

// No more is remembered of what was left out than there is room for.
func TestTraceJumpsAreBounded(t *testing.T) {
	runs := make([]blockio.Span, (maxLeft+2)*(maxJump+1))
	for i := range runs {
		runs[i] = blockio.Span{First: int64(2 * i), Count: 1}
	}
	tr := newTrace(runs)
	for i := range maxLeft + 1 {
		tr.wanted(runs[(i+1)*(maxJump+1)].First, false)
	}
	if len(tr.left) != maxLeft || tr.at != maxLeft*(maxJump+1) {
		t.Errorf("%d parts are left out, and it goes on with run %d; want %d and %d", len(tr.left), tr.at, maxLeft, maxLeft*(maxJump+1))
	}
}

// A trace that was of no help once leaves the line to others when it is far enough ahead of
// its readers.
func TestTraceLeads(t *testing.T) {
	runs := []blockio.Span{{First: 1000, Count: 10}, {First: 100, Count: 300}, {First: 2000, Count: 10}}
	tr := newTrace(runs)
	ahead := func(blocks int) {
		for range blocks {
			n, _ := tr.next()
			tr.brought.add(n)
		}
	}
	leads := func(what string, want bool) {
		t.Helper()
		if got := tr.leads(); got != want {
			t.Errorf("%s: leads %v, want %v", what, got, want)
		}
	}
	ahead(200)
	tr.wanted(1000, false)
	leads("nobody was without help", false)
	tr.wanted(5, false)
	leads("one was", true)
	tr.wanted(100, false)
	leads("the reader is in the second run", true)
	ahead(110)
	tr.wanted(2000, false)
	leads("what he wants is next", false)
	ahead(10)
	leads("all was brought", true)
}
