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
	s.Reset()
	if diff := cmp.Diff(testserver.Stats{}, s.Stats()); diff != "" {
		t.Errorf("stats after Reset (-want +got):\n%s", diff)
	}
	get(t, c, s.URL("f"))
	if got := s.Stats(); got.Requests != 1 || got.Bytes != 10 || got.Conns != 0 {
		t.Errorf("got %+v, want 1 request of 10 bytes on an old connection", got)
	}
}
