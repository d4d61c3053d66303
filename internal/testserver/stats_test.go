package testserver_test

import (
	"testing"

	"github.com/cloopfs/cloopfs/internal/testserver"
	"github.com/google/go-cmp/cmp"
)

func TestStats(t *testing.T) {
	s := newServer(t)
	s.AddBytes("f", pattern(10))
	c := newClient(t)
	get(t, c, s.URL("f"))
	get(t, c, s.URL("f"), "Range", "bytes=2-4")
	get(t, newClient(t), s.URL("g"))
	want := testserver.Stats{Requests: 3, Bytes: 13, Conns: 2, Ranges: []testserver.Range{
		{Name: "f", Len: -1, Status: 200, Sent: 10},
		{Name: "f", Off: 2, Len: 3, Status: 206, Sent: 3},
		{Name: "g", Len: -1, Status: 404},
	}}
	if diff := cmp.Diff(want, s.Stats()); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
	if got := s.Stats().Unique(); got != 10 {
		t.Errorf("got %d unique bytes, want 10", got)
	}
	s.Reset()
	if diff := cmp.Diff(testserver.Stats{}, s.Stats()); diff != "" {
		t.Errorf("stats after Reset (-want +got):\n%s", diff)
	}
	get(t, c, s.URL("f"))
	if got := s.Stats(); got.Requests != 1 || got.Bytes != 10 || got.Conns != 0 {
		t.Errorf("got %+v, want 1 request of 10 bytes on an old connection", got)
	}
}

func TestUnique(t *testing.T) {
	ranges := func(list ...testserver.Range) testserver.Stats { return testserver.Stats{Ranges: list} }
	tests := []struct {
		name  string
		stats testserver.Stats
		want  int64
	}{
		{name: "nothing"},
		{"apart", ranges(
			testserver.Range{Name: "f", Off: 90, Status: 206, Sent: 5},
			testserver.Range{Name: "f", Off: 10, Status: 206, Sent: 20}), 25},
		{"overlap", ranges(
			testserver.Range{Name: "f", Off: 10, Status: 206, Sent: 20},
			testserver.Range{Name: "f", Off: 25, Status: 206, Sent: 10}), 25},
		{"one in another", ranges(
			testserver.Range{Name: "f", Off: 15, Status: 206, Sent: 5},
			testserver.Range{Name: "f", Off: 10, Status: 206, Sent: 20},
			testserver.Range{Name: "f", Off: 28, Status: 206, Sent: 4}), 22},
		{"two files", ranges(
			testserver.Range{Name: "f", Off: 10, Status: 206, Sent: 20},
			testserver.Range{Name: "g", Off: 10, Status: 206, Sent: 20}), 40},
		{"range not followed", ranges(
			testserver.Range{Name: "f", Off: 50, Status: 200, Sent: 20},
			testserver.Range{Name: "f", Off: 10, Status: 206, Sent: 20}), 30},
	}
	for _, tt := range tests {
		if got := tt.stats.Unique(); got != tt.want {
			t.Errorf("%s: got %d, want %d", tt.name, got, tt.want)
		}
	}
}
