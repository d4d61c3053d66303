package fetch_test

import (
	"context"
	"errors"
	"io"
	"testing"
	"testing/iotest"

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

// What filling has stored counts as used when a reader gets it from the store, once,
// and not when it is only compared.
func TestStatsOfStored(t *testing.T) {
	src, ext := newImage(equal(200, 100)...)
	s := fetch.New(src, ext, fetch.Options{Keep: 1, Store: process{newStore(), 0}})
	defer s.Close()
	read := func(class blockio.Class, first, count int64, deliver func(int64, []byte) error) {
		t.Helper()
		if err := s.ReadRun(t.Context(), class, first, count, deliver); err != nil {
			t.Fatal(err)
		}
	}
	used := func(want int64) {
		t.Helper()
		if got := s.Stats().Class[blockio.Fill]; got.Bytes != 20_000 || got.Used != want {
			t.Errorf("%+v, want %d of 20000 bytes used", got, want)
		}
	}
	read(blockio.Fill, 0, 200, ignore)
	read(blockio.Fill, 0, 200, ignore)
	used(0)
	read(blockio.Demand, 60, 10, ignore)
	used(1000)
	read(blockio.Demand, 60, 11, ignore)
	used(1100)
	read(blockio.Demand, 0, 200, nil)
	used(1100)
	read(blockio.Demand, 0, 200, ignore)
	used(20_000)
	read(blockio.Demand, 0, 200, ignore)
	used(20_000)
}

// So it does when a flight has to look for it in the store, for one beside it that is gone.
func TestStatsOfTaken(t *testing.T) {
	src, ext := newImage(equal(10, 100)...)
	shared := newStore()
	s := fetch.New(src, ext, fetch.Options{Keep: 1, Store: process{shared, 0}})
	defer s.Close()
	if err := s.ReadRun(t.Context(), blockio.Fill, 0, 10, ignore); err != nil {
		t.Fatal(err)
	}
	shared.mu.Lock()
	delete(shared.blocks, 0)
	shared.gone = []int64{0}
	shared.mu.Unlock()
	if err := s.ReadRun(t.Context(), blockio.Demand, 0, 10, ignore); err != nil {
		t.Fatal(err)
	}
	want := [2]fetch.ClassStats{{Requests: 1, Bytes: 1000, Used: 900}, {Requests: 1, Bytes: 100, Used: 100}}
	if got := s.Stats().Class; got[blockio.Fill] != want[0] || got[blockio.Demand] != want[1] {
		t.Errorf("stats %+v and %+v, want %+v", got[blockio.Fill], got[blockio.Demand], want)
	}
}

// What has arrived counts as it arrives: else it would look as if it had been fetched
// for something else.
func TestStatsOfArriving(t *testing.T) {
	src, ext := newImage(1000, 1000)
	src.Open = func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
		return io.MultiReader(io.LimitReader(body, 1300), iotest.ErrReader(errors.New("broken off"))), nil
	}
	s := fetch.New(src, ext, fetch.Options{})
	defer s.Close()
	if err := s.ReadRun(t.Context(), blockio.Demand, 0, 2, ignore); err == nil {
		t.Error("no error")
	}
	if got, want := s.Stats().Class[blockio.Demand], (fetch.ClassStats{Requests: 1, Bytes: 1300, Used: 1000}); got != want {
		t.Errorf("%+v, want %+v", got, want)
	}
}
