package fetch_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/fetch"
)

// What nobody reads counts as unused, what two read as used once; each under the
// class for which it was fetched.
func TestStats(t *testing.T) {
	src, ext := newImage(equal(10, 1000)...)
	s := fetch.New(src, ext, fetch.Options{})
	defer s.Close()
	read := func(class blockio.Class, first, count int64, deliver func(int64, []byte) error) {
		t.Helper()
		if err := s.ReadRun(t.Context(), class, first, count, deliver); err != nil {
			t.Fatal(err)
		}
	}
	read(blockio.Fill, 0, 4, nil)
	read(blockio.Demand, 0, 1, ignore)
	read(blockio.Demand, 0, 1, ignore)
	read(blockio.Demand, 6, 2, ignore)
	var want fetch.Stats
	want.Class[blockio.Fill] = fetch.ClassStats{Requests: 1, Bytes: 4000, Used: 1000}
	want.Class[blockio.Demand] = fetch.ClassStats{Requests: 1, Bytes: 2000, Used: 2000}
	if diff := cmp.Diff(want, s.Stats()); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
}
