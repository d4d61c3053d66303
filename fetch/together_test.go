package fetch

import (
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// partStore is a store that does not have one of its blocks after all.
type partStore struct {
	simStore
	gone int64
}

func (s *partStore) Get(n int64, e blockio.Extent, p []byte) bool {
	return n != s.gone && s.simStore.Get(n, e, p)
}

// forgetfulStore loses each block that was read from it.
type forgetfulStore struct{ partStore }

func (s *forgetfulStore) Get(n int64, e blockio.Extent, p []byte) bool {
	ok := s.partStore.Get(n, e, p)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.have, n)
	return ok
}

// What has been delivered is not asked for, though the store has it no more.
func TestTogetherAndGone(t *testing.T) {
	defer func(before chan struct{}) { helpers = before }(helpers)
	helpers = make(chan struct{}, 3)
	image := make(simImage, 10)
	st := &forgetfulStore{partStore{simStore{have: make(map[int64]bool)}, 0}}
	for n := range image {
		image[n] = blockio.Extent{Off: int64(n) * 10_000, Len: 10_000}
		st.have[int64(n)] = true
	}
	line := newSimLine(time.Millisecond, 1000)
	s := New(line, image, Options{Store: st})
	defer s.Close()
	if err := s.ReadRun(t.Context(), blockio.Demand, 0, 10, func(int64, []byte) error { return nil }); err != nil {
		t.Fatal(err)
	}
	if requests, bytes := line.sent(); requests != 1 || bytes != 10_000 {
		t.Errorf("%d requests for %d bytes; only the first block was gone", requests, bytes)
	}
}

// Reading again what was read together, and a long run of which something is always ahead,
// delivers each block once: what runs leave behind is not taken for what they have done.
func TestTogetherAgain(t *testing.T) {
	defer func(before chan struct{}) { helpers = before }(helpers)
	helpers = make(chan struct{}, 3)
	const blocks = 20_000
	image := make(simImage, blocks)
	st := &simStore{have: make(map[int64]bool)}
	for n := range image {
		image[n] = blockio.Extent{Off: int64(n) * 1000, Len: 1000}
		st.have[int64(n)] = true
	}
	s := New(newSimLine(time.Millisecond, 1000), image, Options{Store: st})
	defer s.Close()
	for _, count := range []int64{64, 30, 100, blocks, 64, 5000} {
		var mu sync.Mutex
		got := make([]int, count)
		err := s.ReadRun(t.Context(), blockio.Demand, 0, count, func(n int64, _ []byte) error {
			mu.Lock()
			defer mu.Unlock()
			got[n]++
			return nil
		})
		if err != nil || slices.ContainsFunc(got, func(n int) bool { return n != 1 }) {
			t.Errorf("%d blocks: %v; one was delivered %d times, one %d times", count, err, slices.Min(got), slices.Max(got))
		}
	}
	// A run that is recycled keeps what it may have ahead, not all that it has read.
	r := runs.Get().(*run)
	if cap(r.all) > 2*maxAhead || cap(r.local) > maxLocal {
		t.Errorf("a run has kept room for %d blocks, and for %d local ones", cap(r.all), cap(r.local))
	}
}

// Who is no reader gets one block after the other, in order.
func TestNotTogether(t *testing.T) {
	defer func(before chan struct{}) { helpers = before }(helpers)
	helpers = make(chan struct{}, 3)
	const blocks = 30
	image := make(simImage, blocks)
	st := &simStore{have: make(map[int64]bool)}
	for n := range image {
		image[n] = blockio.Extent{Off: int64(n) * 10_000, Len: 10_000}
		st.have[int64(n)] = true
	}
	s := New(newSimLine(time.Millisecond, 1000), image, Options{Store: st})
	defer s.Close()
	for _, class := range []blockio.Class{blockio.ReadAhead, blockio.Fill} {
		var mu sync.Mutex
		var got []int64
		err := s.ReadRun(t.Context(), class, 0, blocks, func(n int64, _ []byte) error {
			if !mu.TryLock() {
				t.Errorf("class %d: block %d is delivered beside another", class, n)
				return nil
			}
			defer mu.Unlock()
			time.Sleep(10 * time.Microsecond)
			got = append(got, n)
			return nil
		})
		if err != nil || len(got) != blocks || !slices.IsSorted(got) {
			t.Errorf("class %d: %v, delivered were %v", class, err, got)
		}
	}
	if err := s.ReadRun(t.Context(), blockio.Demand, 0, blocks, nil); err != nil { // nor has this anything to deliver
		t.Error(err)
	}
}

// What is at hand is delivered by several goroutines at a time, each block once, also if
// some of it is gone or bad.
func TestTogether(t *testing.T) {
	defer func(before chan struct{}) { helpers = before }(helpers)
	helpers = make(chan struct{}, 3)
	const blocks = 100
	image := make(simImage, blocks)
	for n := range image {
		image[n] = blockio.Extent{Off: int64(n) * 10_000, Len: 10_000}
	}
	for name, c := range map[string]struct{ gone, bad int64 }{
		"all here": {-1, -1}, "one is gone": {7, -1}, "the first is gone": {0, -1}, "one is bad": {-1, 5}, "both": {9, 8},
	} {
		t.Run(name, func(t *testing.T) {
			st := &partStore{simStore{have: make(map[int64]bool)}, c.gone}
			for n := range int64(blocks) {
				st.have[n] = true
			}
			s := New(newSimLine(time.Millisecond, 1000), image, Options{Store: st})
			defer s.Close()
			var mu sync.Mutex
			var got []int64
			bad := 2 // times: the block is fetched after that
			others := make(chan struct{})
			err := s.ReadRun(t.Context(), blockio.Demand, 0, blocks, func(n int64, _ []byte) error {
				mu.Lock()
				first := len(got) == 0 && n != c.bad
				if n == c.bad && bad > 0 {
					bad--
					mu.Unlock()
					return errors.New("bad")
				}
				got = append(got, n)
				if len(got) == 2 {
					close(others)
				}
				mu.Unlock()
				if first {
					select {
					case <-others:
					case <-time.After(time.Minute):
						t.Error("nobody else delivers a block meanwhile")
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			slices.Sort(got)
			for n := range int64(blocks) {
				if n >= int64(len(got)) || got[n] != n {
					t.Fatalf("delivered were %v", got)
				}
			}
			if len(helpers) > 0 {
				t.Errorf("%d helpers are still taken", len(helpers))
			}
		})
	}
}
