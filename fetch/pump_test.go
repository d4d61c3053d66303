package fetch_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/fetch"
)

// inClass is how many bytes were asked for of a class.
func inClass(src *blockiotest.Source, class blockio.Class) (bytes int64) {
	for _, r := range src.Asked() {
		if r.Class == class {
			bytes += r.Len
		}
	}
	return bytes
}

func TestReplayBringsTheTrace(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(100, 1000)...)
		slow(src)
		st := newStore()
		s := fetch.New(src, ext, fetch.Options{Store: process{st, 1}, Window: 3000})
		defer s.Close()
		s.Replay([]blockio.Span{{First: 50, Count: 3}, {First: 10, Count: 1}, {First: 20, Count: 2}})
		time.Sleep(1500 * time.Millisecond)
		if err := s.ReadRun(t.Context(), blockio.Demand, 20, 1, ignore); err != nil { // it is on its way
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		want := []blockio.Extent{{Off: 10_000, Len: 1000}, {Off: 20_000, Len: 2000}, {Off: 50_000, Len: 3000}}
		if diff := cmp.Diff(want, asked(src)); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]int64{10, 20, 21, 50, 51, 52}, st.what()); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
		if got := s.Stats().Class[blockio.Trace]; got.Bytes != 6000 || got.Used != 1000 {
			t.Errorf("%d bytes of the trace have come, of which %d were used, want 6000 and 1000", got.Bytes, got.Used)
		}
	})
}

// What was stored before is not brought again, nor what has no bytes.
func TestReplayOfWhatIsHere(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(append(equal(10, 1000), 0)...)
		st := newStore()
		st.Put(3, blockio.Extent{}, src.Data[3000:4000])
		s := fetch.New(src, ext, fetch.Options{Store: process{st, 1}})
		defer s.Close()
		s.Replay([]blockio.Span{{First: 2, Count: 3}, {First: 10, Count: 1}})
		time.Sleep(time.Minute)
		if diff := cmp.Diff([]blockio.Extent{{Off: 2000, Len: 1000}, {Off: 4000, Len: 1000}}, asked(src)); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
}

// What is on its way for another class is not asked for again.
func TestReplayBesideFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(10, 1000)...)
		slow(src)
		st := newStore()
		s := fetch.New(src, ext, fetch.Options{Store: process{st, 1}})
		defer s.Close()
		var filler sync.WaitGroup
		filler.Go(func() {
			if err := s.ReadRun(t.Context(), blockio.Fill, 5, 1, ignore); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Second / 2)
		s.Replay([]blockio.Span{{First: 3, Count: 5}})
		filler.Wait()
		time.Sleep(time.Minute)
		want := []blockio.Extent{{Off: 3000, Len: 2000}, {Off: 5000, Len: 1000}, {Off: 6000, Len: 2000}}
		if diff := cmp.Diff(want, asked(src)); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		if diff := cmp.Diff([]int64{3, 4, 5, 6, 7}, st.what()); diff != "" {
			t.Errorf("stored (-want +got):\n%s", diff)
		}
	})
}

// Without a store nothing is brought that is too long to be kept.
func TestReplayOfLongBlocks(t *testing.T) {
	for _, c := range []struct {
		store blockio.BlockStore
		want  []blockio.Extent
	}{
		{nil, []blockio.Extent{{Off: 0, Len: 1000}, {Off: 11_000, Len: 1000}}},
		{process{newStore(), 1}, []blockio.Extent{{Off: 0, Len: 22_000}}},
	} {
		synctest.Test(t, func(t *testing.T) {
			src, ext := newImage(1000, 10_000, 1000, 10_000)
			s := fetch.New(src, ext, fetch.Options{Keep: 8000, Store: c.store})
			defer s.Close()
			s.Replay([]blockio.Span{{First: 0, Count: 4}})
			time.Sleep(time.Minute)
			if diff := cmp.Diff(c.want, asked(src)); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

func TestSpeculationIsBounded(t *testing.T) {
	const mib = 1 << 20
	left := []int64{4 * mib}
	shrinking := func() (n int64) {
		if len(left) > 0 {
			n, left = left[0], left[1:]
		}
		return n
	}
	for _, c := range []struct {
		name  string
		opt   fetch.Options
		reads int64
		most  int64 // bytes asked for in vain
		least int64
	}{
		{"by 32 MiB and what was read", fetch.Options{Store: process{newStore(), 1}}, 1, 33 * mib, 30 * mib},
		{"more after more", fetch.Options{Store: process{newStore(), 1}}, 10, 42 * mib, 38 * mib},
		{"by the room that is left", fetch.Options{Store: process{newStore(), 1}, Spare: func() int64 { return 0 }}, 1, 0, 0},
		{"and as it was when it was looked at", fetch.Options{Store: process{newStore(), 1}, Spare: shrinking}, 1, 5 * mib, 3 * mib},
		{"by what is kept in memory", fetch.Options{Keep: 8 * mib}, 1, 4 * mib, 3 * mib},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, ext := newImage(equal(150, mib)...)
				c.opt.Ahead = true
				s := fetch.New(src, ext, c.opt)
				defer s.Close()
				for i := range c.reads {
					if err := s.ReadRun(t.Context(), blockio.Demand, 60-3*i, 1, ignore); err != nil { // not in sequence
						t.Fatal(err)
					}
					time.Sleep(time.Second)
				}
				time.Sleep(time.Minute)
				got := s.Stats().Class[blockio.Speculation]
				if vain := got.Bytes - got.Used; vain > c.most || vain < c.least {
					t.Errorf("%d bytes were fetched in vain, want %d to %d", vain, c.least, c.most)
				}
			})
		})
	}
}

// Spare is asked again as time goes by.
func TestSpeculationLooksForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(150, 1000)...)
		var room atomic.Int64
		s := fetch.New(src, ext, fetch.Options{Store: process{newStore(), 1}, Ahead: true, Spare: room.Load})
		defer s.Close()
		for n := range int64(2) {
			if err := s.ReadRun(t.Context(), blockio.Demand, 50+40*n, 1, ignore); err != nil {
				t.Fatal(err)
			}
			time.Sleep(2 * time.Second)
			if got := inClass(src, blockio.Speculation); (got > 0) != (room.Load() > 0) {
				t.Errorf("with room for %d bytes %d were asked for", room.Load(), got)
			}
			room.Store(1 << 20)
		}
	})
}

// A reader is not the victim of a request that was made before he came.
func TestReaderTriesAgainWhatFailedAheadOfHim(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(10, 1000)...)
		down := errors.New("down")
		src.Open = func(ctx context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
			if err := sleep(ctx, time.Second); err != nil || r.Class == blockio.Trace {
				return nil, errors.Join(err, down)
			}
			return body, nil
		}
		s := fetch.New(src, ext, fetch.Options{Store: process{newStore(), 1}})
		defer s.Close()
		s.Replay([]blockio.Span{{First: 3, Count: 3}})
		time.Sleep(time.Second / 2)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second/4)
		defer cancel()
		if err := s.ReadRun(ctx, blockio.Demand, 5, 1, ignore); !errors.Is(err, context.DeadlineExceeded) { // has no more time
			t.Errorf("who goes: %v, want the context's error", err)
		}
		begin := time.Now()
		if err := s.ReadRun(t.Context(), blockio.Demand, 3, 1, ignore); err != nil { // joins it
			t.Errorf("%v after %v", err, time.Since(begin))
		}
		if err := s.ReadRun(t.Context(), blockio.Demand, 4, 1, ignore); err != nil { // it has just failed
			t.Error(err)
		}
		time.Sleep(time.Minute)
		var classes []blockio.Class
		for _, r := range src.Asked() {
			classes = append(classes, r.Class)
		}
		if diff := cmp.Diff([]blockio.Class{blockio.Trace, blockio.Demand, blockio.Demand}, classes); diff != "" {
			t.Errorf("what fails is tried again once for a reader, and for nobody else (-want +got):\n%s", diff)
		}
	})
}

// A block that a reader can't have is no reason to bring nothing.
func TestReplayBesideFailingReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(100, 1000)...)
		down := errors.New("down")
		src.Open = func(ctx context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
			if r.Class == blockio.Demand {
				return nil, down
			}
			return body, sleep(ctx, 10*time.Millisecond)
		}
		s := fetch.New(src, ext, fetch.Options{Store: process{newStore(), 1}, Window: 3000})
		defer s.Close()
		s.Replay([]blockio.Span{{First: 0, Count: 50}})
		time.Sleep(20 * time.Millisecond)
		if err := s.ReadRun(t.Context(), blockio.Demand, 99, 1, ignore); !errors.Is(err, down) {
			t.Errorf("error %v, want %v", err, down)
		}
		time.Sleep(500 * time.Millisecond)
		if n := inClass(src, blockio.Trace); n != 50_000 {
			t.Errorf("%d bytes of the trace were asked for half a second later, want all 50000", n)
		}
	})
}

// Who fills is no reader, and nothing is brought for him.
func TestFillIsNotFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(300, 1000)...)
		s := fetch.New(src, ext, fetch.Options{Store: process{newStore(), 1}, Ahead: true})
		defer s.Close()
		if err := s.ReadRun(t.Context(), blockio.Fill, 0, 100, ignore); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute)
		for _, r := range src.Asked() {
			if r.Class != blockio.Fill {
				t.Errorf("asked for %+v", r)
			}
		}
	})
}

// Close does not wait for what nobody wants.
func TestCloseEndsThePump(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(100, 1<<20)...)
		slow(src)
		s := fetch.New(src, ext, fetch.Options{Store: process{newStore(), 1}})
		s.Replay([]blockio.Span{{First: 0, Count: 100}})
		time.Sleep(time.Millisecond)
		begin := time.Now()
		s.Close()
		if d := time.Since(begin); d > time.Millisecond {
			t.Errorf("Close took %v", d)
		}
	})
}

// Without a store a trace is brought no further than it can be kept.
func TestReplayWithoutStore(t *testing.T) {
	const mib = 1 << 20
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(60, mib)...)
		s := fetch.New(src, ext, fetch.Options{Keep: 8 * mib})
		defer s.Close()
		s.Replay([]blockio.Span{{First: 0, Count: 60}})
		time.Sleep(time.Minute)
		if n := inClass(src, blockio.Trace); n < 4*mib || n > 6*mib {
			t.Errorf("%d bytes were asked for while nobody read, and 8 MiB can be kept", n)
		}
		for n := range int64(60) {
			if err := s.ReadRun(t.Context(), blockio.Demand, n, 1, ignore); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
		}
		if st := s.Stats(); st.Class[blockio.Trace].Used < 59*mib || st.Class[blockio.Demand].Bytes > mib {
			t.Errorf("%d bytes of the trace were used, and %d fetched beside it", st.Class[blockio.Trace].Used, st.Class[blockio.Demand].Bytes)
		}
	})
}

// nowhere is a store that keeps nothing: a full one.
type nowhere struct{ process }

func (nowhere) Put(int64, blockio.Extent, []byte) {}

// Nor is it with a store that keeps nothing, or while readers use what nobody brought.
func TestReplayFollowsWhatCanBeKept(t *testing.T) {
	const mib = 1 << 20
	for name, store := range map[string]blockio.BlockStore{"no store": nil, "a full store": nowhere{process{newStore(), 1}}} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, ext := newImage(equal(100, mib)...)
				s := fetch.New(src, ext, fetch.Options{Keep: 8 * mib, Store: store})
				defer s.Close()
				if err := s.ReadRun(t.Context(), blockio.Demand, 60, 40, ignore); err != nil {
					t.Fatal(err)
				}
				s.Replay([]blockio.Span{{First: 0, Count: 60}})
				time.Sleep(time.Minute)
				if n := inClass(src, blockio.Trace); n > 5*mib {
					t.Errorf("%d bytes were asked for while nobody read, and 8 MiB can be kept", n)
				}
			})
		})
	}
}

// What could not be brought takes no room, and is not tried at the line's speed.
func TestReplayAfterAnOutage(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(1000, 10_000)...)
		var down atomic.Bool
		down.Store(true)
		src.Open = func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			time.Sleep(10 * time.Millisecond)
			if down.Load() {
				return nil, errors.New("down")
			}
			return body, nil
		}
		s := fetch.New(src, ext, fetch.Options{Keep: 1 << 20})
		defer s.Close()
		s.Replay([]blockio.Span{{First: 0, Count: 1000}})
		time.Sleep(10 * time.Second)
		if n := len(src.Asked()); n > 100 {
			t.Errorf("%d requests in 10 s of an outage", n)
		}
		down.Store(false)
		time.Sleep(10 * time.Second)
		if n := inClass(src, blockio.Trace); n < 400_000 {
			t.Errorf("%d bytes were asked for after the outage, and 512 KiB can be kept", n)
		}
	})
}

// A reader of what the pump has queued does not wait for the pump's turn, and finds a
// request left for him.
func TestReaderDoesNotWaitForThePump(t *testing.T) {
	for _, requests := range []int{2, 4, 32} {
		synctest.Test(t, func(t *testing.T) {
			src, ext := newImage(equal(200, 1000)...)
			src.Open = func(ctx context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
				if r.Class == blockio.Trace {
					return body, sleep(ctx, time.Minute)
				}
				return body, sleep(ctx, time.Second)
			}
			s := fetch.New(src, ext, fetch.Options{Store: process{newStore(), 1}, Requests: atMost(requests), Window: 50_000})
			defer s.Close()
			var trace []blockio.Span
			for n := int64(0); n < 100; n += 2 {
				trace = append(trace, blockio.Span{First: n, Count: 1})
			}
			s.Replay(trace)
			time.Sleep(time.Second)
			begin := time.Now()
			for _, n := range []int64{98, 150} {
				if err := s.ReadRun(t.Context(), blockio.Demand, n, 1, ignore); err != nil {
					t.Fatal(err)
				}
			}
			if d := time.Since(begin); d > 2*time.Second {
				t.Errorf("with %d requests two reads of a second took %v", requests, d)
			}
		})
	}
}

// Filling and a trace of the same blocks, each as long as the window, both end.
func TestFillAndTraceOfLongBlocks(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(20, 1<<20)...)
		slow(src)
		st := newStore()
		s := fetch.New(src, ext, fetch.Options{Store: process{st, 1}})
		defer s.Close()
		go func() { _ = s.ReadRun(t.Context(), blockio.Fill, 0, 20, ignore) }()
		time.Sleep(time.Second / 2)
		s.Replay([]blockio.Span{{First: 0, Count: 20}})
		time.Sleep(time.Hour)
		if n := len(st.what()); n != 20 {
			t.Errorf("%d of 20 blocks are here after an hour", n)
		}
	})
}
