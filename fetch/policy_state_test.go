package fetch

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
)

// One reader is one stream, though what it asks for comes a little out of order; nothing
// counts twice.
func TestPolicyKnowsReaders(t *testing.T) {
	p := newPolicy(true)
	for i, tt := range []struct {
		first, count int64
		want         stream // the last one
		streams      int
	}{
		{1000, 10, stream{next: 1010, length: 10, ahead: 1010}, 1},
		{1010 + streamSlack, 2, stream{next: 1016, length: 12, ahead: 1016}, 1},
		{1016 - streamSlack, 6, stream{next: 1018, length: 14, ahead: 1018}, 1},
		{1018 - streamSlack, 2, stream{next: 1018, length: 14, ahead: 1018}, 1},
		{1018 + streamSlack + 1, 1, stream{next: 1024, length: 1, ahead: 1024}, 2},
		{1018 - streamSlack - 1, 1, stream{next: 1014, length: 1, ahead: 1014}, 3},
		{1018, 1, stream{next: 1019, length: 2, ahead: 1019}, 3}, // whose comes first is the last one's
	} {
		p.wanted(someTime, tt.first, tt.count)
		if diff := cmp.Diff(tt.want, *p.streams[0], cmp.AllowUnexported(stream{})); diff != "" || len(p.streams) != tt.streams {
			t.Errorf("read %d: %d streams, want %d (-want +got):\n%s", i, len(p.streams), tt.streams, diff)
		}
	}
}

// What was brought for a reader counts until he has come to it.
func TestPolicyCountsAhead(t *testing.T) {
	p := newPolicy(true)
	p.wanted(someTime, 0, 100)
	take(p, 10)
	for _, tt := range []struct{ first, count, ahead, bytes int64 }{
		{100, 3, 110, 7000}, {103, 7, 110, 0}, {110, 5, 115, 0},
	} {
		p.wanted(someTime, tt.first, tt.count)
		s := p.streams[0]
		if s.ahead != tt.ahead || s.bytes != tt.bytes || int64(len(s.brought)) != s.ahead-s.next {
			t.Errorf("at %d: %d bytes in %d blocks up to %d; want %d up to %d", s.next, s.bytes, len(s.brought), s.ahead, tt.bytes, tt.ahead)
		}
	}
}

// For who has read k blocks no more than k are brought, on any line.
func TestPolicyTrustsAReaderByWhatHeHasRead(t *testing.T) {
	p := newPolicy(true)
	p.neighbours, p.window = false, 1<<30
	p.wanted(someTime, 0, minStream+10)
	n := 0
	for ; ; n++ {
		if _, _, ok := p.next(someTime); !ok {
			break
		}
		p.long(freeAhead / 16)
	}
	if n != minStream+10 {
		t.Errorf("%d blocks, want %d", n, minStream+10)
	}
}

// Reads that touch are one place; what lies beside it and has been looked at stays so.
func TestPolicyJoinsPlaces(t *testing.T) {
	p := newPolicy(true)
	for i, tt := range []struct {
		first, count int64
		take         int
		want         centre
		centres      int
	}{
		{100, 10, 3, centre{from: 100, to: 110, after: 3}, 1},
		{110, 2, 0, centre{from: 100, to: 112, after: 1}, 1},
		{112, 5, 9, centre{from: 100, to: 117, after: 8, before: 1}, 1},
		{97, 3, 0, centre{from: 97, to: 117, after: 8}, 1},
		{98, 2, 0, centre{from: 97, to: 117, after: 8}, 1},
		{200, 1, 0, centre{from: 200, to: 201}, 2},
		{95, 1, 0, centre{from: 95, to: 96}, 3},
		{96, 1, 0, centre{from: 95, to: 97}, 3},
	} {
		p.wanted(someTime, tt.first, tt.count)
		take(p, tt.take)
		if diff := cmp.Diff(tt.want, *p.centres[0], cmp.AllowUnexported(centre{})); diff != "" || len(p.centres) != tt.centres {
			t.Errorf("read %d: %d places, want %d (-want +got):\n%s", i, len(p.centres), tt.centres, diff)
		}
	}
}

// Nothing is named twice, whoever it is for; where much has been named that is said, to be
// asked again.
func TestPolicyNamesOnce(t *testing.T) {
	p := newPolicy(true, blockio.Span{First: 101, Count: 1})
	check(t, "the trace", take(p, 10), choices(blockio.Trace, 101))
	p.wanted(someTime, 100, 1)
	check(t, "around a read", take(p, 2), choices(blockio.Speculation, 102, 103))
	p = newPolicy(false, blockio.Span{First: 0, Count: maxSkip + 1})
	for n := range int64(maxSkip) {
		p.asked.add(n)
	}
	check(t, "behind much that was asked for", take(p, 3), choices(blockio.Trace, -1, maxSkip))
}

// On a full line nobody is served but sequential readers.
func TestPolicyOnAFullLine(t *testing.T) {
	p := newPolicy(true, blockio.Span{First: 40, Count: 3})
	p.wanted(someTime, 500, 1)
	p.room = false
	check(t, "a trace, and what lies near", take(p, 10), nil)
}
