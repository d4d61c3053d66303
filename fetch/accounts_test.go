package fetch

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
)

// faultyLine fails each tenth request.
type faultyLine struct {
	*simLine
	requests int
}

func (l *faultyLine) OpenRange(ctx context.Context, r blockio.Range) (io.ReadCloser, error) {
	l.mu.Lock()
	l.requests++
	bad := l.requests%10 == 0
	l.mu.Unlock()
	if bad {
		time.Sleep(l.rtt)
		return nil, errors.New("down")
	}
	return l.simLine.OpenRange(ctx, r)
}

// When everything has been read and nothing is under way, nothing counts as brought in
// vain, as on its way or as taking room: what counts for ever is missing from a bound.
func TestAccountsAreClosed(t *testing.T) {
	for _, tt := range []struct {
		name  string
		store blockio.BlockStore
		keep  int64
	}{
		{"no store", nil, 64 << 20}, {"no store, little is kept", nil, 100_000}, {"a store", &simStore{have: make(map[int64]bool)}, 64 << 20},
	} {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				image := make(simImage, 600)
				for n := range image {
					image[n] = blockio.Extent{Off: int64(n) * 10_000, Len: 10_000}
				}
				line := &faultyLine{simLine: newSimLine(50*time.Millisecond, 50)}
				s := New(line, image, Options{Trip: line.Trip, Ahead: true, Keep: tt.keep, Store: tt.store})
				defer s.Close()
				rnd := rand.New(rand.NewPCG(5, 6))
				var trace []blockio.Span
				for _, n := range rnd.Perm(200) {
					trace = append(trace, blockio.Span{First: int64(n), Count: 1})
				}
				s.Replay(trace)
				read := func(first, count int64, patience time.Duration) {
					ctx, cancel := context.WithTimeout(t.Context(), patience)
					defer cancel()
					_ = s.ReadRun(ctx, blockio.Demand, first, count, func(int64, []byte) error { return nil })
				}
				var readers sync.WaitGroup
				for range 300 {
					first, patience := rnd.Int64N(590), time.Duration(rnd.Int64N(int64(time.Second/5)))
					readers.Go(func() { read(first, 1+first%10, patience) })
					time.Sleep(5 * time.Millisecond)
				}
				readers.Wait()
				time.Sleep(time.Minute)
				for n := range image.Blocks() {
					read(n, 1, time.Minute)
				}
				time.Sleep(time.Minute) // for what was brought meanwhile
				for n := range image.Blocks() {
					read(n, 1, time.Minute)
				}
				s.mu.Lock()
				defer s.mu.Unlock()
				if s.ahead != [blockio.Classes]int64{} || s.loose != 0 {
					t.Errorf("brought in vain: %v bytes, not in the store: %d", s.ahead, s.loose)
				}
				if s.active != [blockio.Classes]int{} || s.due != 0 || s.waited != 0 {
					t.Errorf("under way: %v requests, %d bytes, %d of readers", s.active, s.due, s.waited)
				}
				if !s.demand.sem.TryAcquire(s.demand.size) {
					t.Error("some of the room for readers is still taken")
				}
				users := 0
				for _, b := range s.blocks {
					users = max(users, b.users)
				}
				if users > 1 {
					t.Errorf("a block that nobody reads has %d users", users)
				}
			})
		})
	}
}

// What is wanted for a better reason than it was asked for counts as that.
func TestAccountOfPromoted(t *testing.T) {
	image := simImage{{Off: 0, Len: 100}, {Off: 100, Len: 50}}
	s := New(stuckLine{}, image, Options{Requests: func() int { return 0 }}) // nothing is started
	defer s.Close()
	s.mu.Lock()
	r := &request{rng: blockio.Range{Class: blockio.Speculation}, ahead: true}
	for n, e := range image {
		s.addLocked(r, located{n: int64(n), ext: e}).counted = true
		s.ahead[blockio.Speculation] += e.Len
	}
	s.submitLocked(r)
	for _, class := range []blockio.Class{blockio.Trace, blockio.Speculation, blockio.ReadAhead, blockio.Demand} {
		s.promoteLocked(r, class)
		want := [blockio.Classes]int64{}
		if r.rng.Class > blockio.Demand {
			want[r.rng.Class] = 150
		}
		if s.ahead != want || r.rng.Class > class {
			t.Errorf("promoted to %v: it is of class %v, and %v bytes count; want %v", class, r.rng.Class, s.ahead, want)
		}
	}
	s.mu.Unlock()
}

// stuckLine brings all of a request but its last bytes.
type stuckLine struct {
	*simLine
	last int64
}

func (l stuckLine) OpenRange(ctx context.Context, r blockio.Range) (io.ReadCloser, error) {
	return io.NopCloser(io.MultiReader(io.LimitReader(zeros{}, r.Len-l.last), stuck{ctx})), nil
}

type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}

type stuck struct{ ctx context.Context }

func (s stuck) Read([]byte) (int, error) {
	<-s.ctx.Done()
	return 0, s.ctx.Err()
}

// What was brought for nobody who waits does not stay in memory until its request has
// ended: that would be as much as fits into all requests.
func TestArrivedIsNotHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const size, keep = 8 << 10, 64 << 10
		image := make(simImage, 2000)
		for n := range image {
			image[n] = blockio.Extent{Off: int64(n) * size, Len: size}
		}
		store := &simStore{have: make(map[int64]bool)}
		s := New(stuckLine{last: 1}, image, Options{Keep: keep, Window: maxWindow, Store: store})
		defer s.Close()
		s.Replay([]blockio.Span{{First: 0, Count: 2000}})
		time.Sleep(time.Second)
		s.mu.Lock()
		defer s.mu.Unlock()
		held := int64(0)
		for _, b := range s.blocks {
			held += int64(cap(b.stored))
		}
		if arrived := int64(len(store.have)) * size; arrived < 10*keep || held != keep {
			t.Errorf("%d KiB of %d that have arrived are in memory, want %d", held>>10, arrived>>10, keep>>10)
		}
	})
}

// Very small blocks are bounded by their number: on their way, where nothing arrives, and
// when all have.
func TestTinyBlocksAreBounded(t *testing.T) {
	const blocks = 20 * maxAhead
	image := make(simImage, blocks)
	for n := range image {
		image[n] = blockio.Extent{Off: int64(n), Len: 1}
	}
	all := []blockio.Span{{First: 0, Count: blocks}}
	synctest.Test(t, func(t *testing.T) {
		s := New(stuckLine{last: maxWindow}, image, Options{Store: &simStore{have: make(map[int64]bool)}})
		defer s.Close()
		s.Replay(all)
		time.Sleep(time.Second)
		s.mu.Lock()
		defer s.mu.Unlock()
		if n := len(s.blocks); n < maxBlocks || n > maxBlocks+maxAhead {
			t.Errorf("%d blocks are on their way, want %d", n, maxBlocks)
		}
	})
	synctest.Test(t, func(t *testing.T) {
		line := newSimLine(10*time.Millisecond, 100)
		store := &simStore{have: make(map[int64]bool)}
		s := New(line, image, Options{Trip: line.Trip, Store: store})
		defer s.Close()
		s.Replay(all)
		time.Sleep(time.Minute)
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(store.have) != blocks || len(s.blocks) != maxAhead || len(s.kept) != maxAhead {
			t.Errorf("%d of %d blocks have come, %d of them are known, %d kept; want all, and %d", len(store.have), blocks, len(s.blocks), len(s.kept), maxAhead)
		}
	})
}

// Without a store no more small blocks are brought than are kept until they are read.
func TestTinyBlocksAreKept(t *testing.T) {
	const size = 80
	tests := []struct {
		name   string
		blocks int64
		mbit   float64
		trace  []blockio.Span
	}{
		{"sequential", 12 * maxAhead, 10_000, nil},
		{"trace", 4 * maxAhead, 100, []blockio.Span{{First: 0, Count: 4 * maxAhead}}},
	}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			image := make(simImage, test.blocks)
			for n := range image {
				image[n] = blockio.Extent{Off: int64(n) * size, Len: size}
			}
			line := newSimLine(50*time.Millisecond, test.mbit)
			s := New(line, image, Options{Trip: line.Trip, Ahead: test.trace == nil})
			defer s.Close()
			s.Replay(test.trace)
			time.Sleep(time.Minute)
			for n := int64(0); n < test.blocks; n += 2 {
				if err := s.ReadRun(t.Context(), blockio.Demand, n, 2, func(int64, []byte) error { return nil }); err != nil {
					t.Fatal(err)
				}
			}
			if got := s.Stats().Class[blockio.Demand].Bytes; got > test.blocks*size/20 {
				t.Errorf("%s: %d of %d bytes were asked for when they were wanted", test.name, got, test.blocks*size)
			}
		})
	}
}

// A copy of a block may be shorter than the one in whose place it comes: the index was read
// anew meanwhile. The rest of the run is delivered, and no room stays taken.
func TestShorterCopy(t *testing.T) {
	const mib = 1 << 20
	image := simImage{{Len: 6 * mib}, {Off: 6 * mib, Len: 3 * mib}, {Off: 9 * mib, Len: 100}}
	src := &blockiotest.Source{Data: make([]byte, 10*mib)}
	s := New(src, image, Options{})
	defer s.Close()
	var got []int64
	bad := errors.New("does not decode")
	err := s.ReadRun(t.Context(), blockio.Demand, 0, 3, func(n int64, stored []byte) error {
		if n == 0 && len(stored) == 6*mib {
			image[0].Len = mib
			if err := s.ReadRun(t.Context(), blockio.Fill, 0, 1, func(int64, []byte) error { return nil }); err != nil {
				t.Error(err)
			}
			return bad
		}
		got = append(got, n)
		return nil
	})
	if want := []int64{0, 1, 2}; err != nil || !slices.Equal(got, want) {
		t.Errorf("delivered %v, error %v, want %v", got, err, want)
	}
	for _, b := range []*budget{&s.demand, &s.others} {
		if !b.sem.TryAcquire(b.size) {
			t.Error("some room is still taken")
		}
	}
}

// A reader who asks again for what somebody who fills asks for again does not wait as he does.
func TestRetryIsPromoted(t *testing.T) {
	s := New(&blockiotest.Source{Data: make([]byte, 100)}, simImage{{Len: 100}}, Options{})
	defer s.Close()
	s.mu.Lock()
	s.active[blockio.Demand]++ // so that filling waits
	s.mu.Unlock()
	failed := &block{n: 0, ext: blockio.Extent{Len: 100}}
	filling := s.retry(failed, blockio.Fill)
	reading := s.retry(failed, blockio.Demand)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.active[blockio.Demand]--
	if reading != filling || !reading.req.started || !reading.req.awaited {
		t.Errorf("started: %v, awaited: %v, want one request that is both", reading.req.started, reading.req.awaited)
	}
}
