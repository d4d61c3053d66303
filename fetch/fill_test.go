package fetch_test

import (
	"context"
	"errors"
	"io"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/fetch"
)

// Filling uses four requests at a time, and begins none while a reader waits.
func TestFillYields(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(100, 1000)...)
		var mu sync.Mutex
		flying := make(map[blockio.Class]int)
		src.Open = func(ctx context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
			mu.Lock()
			flying[r.Class]++
			if r.Class == blockio.Fill && (flying[blockio.Demand] > 0 || flying[blockio.Fill] > 4) {
				t.Errorf("filling began with %v under way", flying)
			}
			mu.Unlock()
			time.Sleep(time.Second)
			mu.Lock()
			flying[r.Class]--
			mu.Unlock()
			return body, nil
		}
		s := fetch.New(src, ext, fetch.Options{MaxRequest: 5000})
		defer s.Close()
		var readers sync.WaitGroup
		readers.Go(func() {
			if err := s.ReadRun(t.Context(), blockio.Fill, 0, 50, ignore); err != nil {
				t.Error(err)
			}
		})
		begin := time.Now()
		for i := range int64(4) { // while the fill's first requests are under way, and later
			time.Sleep(1500 * time.Millisecond)
			readers.Go(func() {
				asked := time.Now()
				if err := s.ReadRun(t.Context(), blockio.Demand, 60+10*i, 5, ignore); err != nil {
					t.Error(err)
				}
				if waited := time.Since(asked); waited != time.Second {
					t.Errorf("a reader waited %v for a request of a second", waited)
				}
			})
		}
		readers.Wait()
		// Ten requests of a second, four at a time, but for what readers held up.
		if took := time.Since(begin); took < 3*time.Second || took > 10*time.Second {
			t.Errorf("filling took %v", took)
		}
	})
}

// A reader of what filling has queued does not wait for its turn.
func TestReaderDoesNotWaitForTheFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(20, 1000)...)
		src.Open = func(ctx context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
			if r.Class == blockio.Fill {
				return body, sleep(ctx, time.Minute)
			}
			return body, sleep(ctx, time.Second)
		}
		s := fetch.New(src, ext, fetch.Options{MaxRequest: 1000, Window: 3000})
		defer s.Close()
		var filler sync.WaitGroup
		filler.Go(func() {
			if err := s.ReadRun(t.Context(), blockio.Fill, 0, 6, ignore); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		begin := time.Now()
		if err := s.ReadRun(t.Context(), blockio.Demand, 5, 1, ignore); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d != time.Second {
			t.Errorf("a reader waited %v for a request of a second", d)
		}
		filler.Wait()
	})
}

// slowBody sends a block at a time, and says when.
type slowBody struct {
	io.Reader
	block int
	sent  func(n int)
}

func (b slowBody) Read(p []byte) (int, error) {
	time.Sleep(100 * time.Millisecond)
	n, err := b.Reader.Read(p[:min(len(p), b.block)])
	b.sent(n)
	return n, err
}

// What is on its way for others than readers keeps to the window, by bytes: the
// next request does not wait for the end of one before. Readers do not count.
func TestWindow(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const block, window = 1000, 10 * 1000
		src, ext := newImage(equal(200, block)...)
		var mu sync.Mutex
		due, most, flights, mostFlights := 0, 0, 0, 0
		src.Open = func(_ context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
			if r.Class == blockio.Demand {
				return body, nil
			}
			mu.Lock()
			defer mu.Unlock()
			due += int(r.Len)
			most = max(most, due)
			flights++
			mostFlights = max(mostFlights, flights)
			left := int(r.Len)
			return slowBody{body, block, func(n int) {
				mu.Lock()
				defer mu.Unlock()
				due -= n
				if left -= n; left == 0 && n > 0 {
					flights--
				}
			}}, nil
		}
		s := fetch.New(src, ext, fetch.Options{MaxRequest: 5 * block, Window: window})
		defer s.Close()
		var readers sync.WaitGroup
		readers.Go(func() {
			if err := s.ReadRun(t.Context(), blockio.ReadAhead, 0, 39, nil); err != nil {
				t.Error(err)
			}
		})
		time.Sleep(time.Second)
		asked := time.Now()
		if err := s.ReadRun(t.Context(), blockio.Demand, 150, 5, ignore); err != nil {
			t.Error(err)
		}
		if waited := time.Since(asked); waited != 0 {
			t.Errorf("a reader waited %v for the window", waited)
		}
		readers.Wait()
		if most != window {
			t.Errorf("%d bytes were on their way at a time, want %d", most, window)
		}
		if mostFlights <= window/(5*block) {
			t.Errorf("%d requests at a time: the next waited for the end of one before", mostFlights)
		}
	})
}

// What readers wait for takes nothing of the window.
func TestWindowWithoutReaders(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(100, 1000)...)
		src.Open = func(ctx context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
			if r.Class == blockio.Demand {
				return body, sleep(ctx, time.Minute)
			}
			return body, nil
		}
		s := fetch.New(src, ext, fetch.Options{Window: 10_000})
		defer s.Close()
		var reader sync.WaitGroup
		reader.Go(func() {
			if err := s.ReadRun(t.Context(), blockio.Demand, 50, 50, ignore); err != nil {
				t.Error(err)
			}
		})
		synctest.Wait()
		begin := time.Now()
		if err := s.ReadRun(t.Context(), blockio.ReadAhead, 0, 20, ignore); err != nil {
			t.Error(err)
		}
		if d := time.Since(begin); d > time.Second {
			t.Errorf("reading ahead waited %v for a reader's request to end", d)
		}
		reader.Wait()
	})
}

// A block larger than the window is fetched, too.
func TestWindowSmallerThanBlock(t *testing.T) {
	src, ext := newImage(equal(5, 1000)...)
	s := fetch.New(src, ext, fetch.Options{Window: 10})
	defer s.Close()
	if err := s.ReadRun(t.Context(), blockio.ReadAhead, 0, 5, ignore); err != nil {
		t.Error(err)
	}
}

// Filling waits until a trace, or what a sequential reader will want, has been brought,
// and keeps it from nothing.
func TestFillYieldsToThePump(t *testing.T) {
	for class, bring := range map[blockio.Class]func(*fetch.Scheduler){
		blockio.Trace: func(s *fetch.Scheduler) { s.Replay([]blockio.Span{{First: 60, Count: 40}}) },
		blockio.ReadAhead: func(s *fetch.Scheduler) {
			for n := range int64(65) {
				s.Had(100 + n)
			}
		},
	} {
		synctest.Test(t, func(t *testing.T) {
			src, ext := newImage(equal(200, 1000)...)
			slow(src)
			s := fetch.New(src, ext, fetch.Options{
				MaxRequest: 5000, Window: 10_000, Store: process{newStore(), 1},
				Ahead: true, Spare: func() int64 { return 0 },
			})
			defer s.Close()
			var filled sync.WaitGroup
			filled.Go(func() {
				if err := s.ReadRun(t.Context(), blockio.Fill, 0, 50, ignore); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(500 * time.Millisecond) // its first requests are under way
			bring(s)
			filled.Wait()
			var order []blockio.Class
			for _, r := range src.Asked() {
				if len(order) == 0 || order[len(order)-1] != r.Class {
					order = append(order, r.Class)
				}
			}
			if diff := cmp.Diff([]blockio.Class{blockio.Fill, class, blockio.Fill}, order); diff != "" {
				t.Errorf("classes of the requests, in turn (-want +got):\n%s", diff)
			}
		})
	}
}

// A trace that waits for room on the line goes on when a fill's request has failed.
func TestTraceAfterFailedFill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(100, 1000)...)
		src.Open = func(ctx context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
			if r.Class == blockio.Fill {
				return nil, errors.Join(sleep(ctx, time.Second), errors.New("down"))
			}
			return body, nil
		}
		s := fetch.New(src, ext, fetch.Options{Window: 3000, Store: process{newStore(), 1}})
		defer s.Close()
		var filler sync.WaitGroup
		filler.Go(func() {
			if err := s.ReadRun(t.Context(), blockio.Fill, 0, 3, ignore); err == nil {
				t.Error("no error")
			}
		})
		time.Sleep(time.Second / 2)
		s.Replay([]blockio.Span{{First: 50, Count: 5}})
		filler.Wait()
		time.Sleep(time.Minute)
		if n := inClass(src, blockio.Trace); n != 5000 {
			t.Errorf("%d bytes of the trace were asked for, want 5000", n)
		}
	})
}

// Nor does it wait for a trace that can't be brought because nothing is kept.
func TestFillBesideTraceWithoutRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(100, 1000)...)
		slow(src)
		s := fetch.New(src, ext, fetch.Options{Keep: 8000, Window: 3000, Store: nowhere{process{newStore(), 1}}})
		defer s.Close()
		s.Replay([]blockio.Span{{First: 50, Count: 50}})
		time.Sleep(time.Minute)
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		if err := s.ReadRun(ctx, blockio.Fill, 0, 20, ignore); err != nil {
			t.Error(err)
		}
	})
}
