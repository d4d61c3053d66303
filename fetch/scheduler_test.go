package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"testing/iotest"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/fetch"
)

// newImage returns a source of blocks of the given stored sizes, random bytes.
func newImage(sizes ...int64) (*blockiotest.Source, blockiotest.Extents) {
	var ext blockiotest.Extents
	end := int64(0)
	for _, n := range sizes {
		end += n
		ext.Ends = append(ext.Ends, end)
	}
	data := make([]byte, end)
	rand.NewChaCha8([32]byte{}).Read(data)
	return &blockiotest.Source{Data: data}, ext
}

// equal returns n stored sizes of size bytes.
func equal(n int, size int64) []int64 { return slices.Repeat([]int64{size}, n) }

// ignore is a deliver that accepts everything.
func ignore(int64, []byte) error { return nil }

func TestConforms(t *testing.T) {
	sizes := append(equal(40, 3000), 0, 0, 1, 100_000, 70_000, 0)
	src, ext := newImage(sizes...)
	for name, opt := range map[string]fetch.Options{
		"defaults":       {},
		"one by one":     {Requests: atMost(1), MaxRequest: 1, Keep: 1},
		"small requests": {Requests: atMost(3), MaxRequest: 10_000, Keep: 20_000},
	} {
		t.Run(name, func(t *testing.T) {
			s := fetch.New(src, ext, opt)
			blockiotest.TestRuns(t, s, ext, src.Data)
			s.Close()
			if n := src.Unclosed(); n > 0 {
				t.Errorf("%d streams were not closed", n)
			}
		})
	}
}

// asked returns the offsets and lengths of the requests made, in order of offset.
func asked(src *blockiotest.Source) []blockio.Extent {
	var list []blockio.Extent
	for _, r := range src.Asked() {
		list = append(list, r.Extent)
	}
	slices.SortFunc(list, func(a, b blockio.Extent) int { return int(a.Off - b.Off) })
	return list
}

func TestRunIsOneRequestUpToTheCap(t *testing.T) {
	for _, c := range []struct {
		name         string
		first, count int64
		want         []blockio.Extent
	}{
		{"one block", 3, 1, []blockio.Extent{{Off: 300, Len: 100}}},
		{"a run", 2, 5, []blockio.Extent{{Off: 200, Len: 500}}},
		{"the cap", 0, 10, []blockio.Extent{{Off: 0, Len: 1000}}},
		{"over the cap", 0, 12, []blockio.Extent{{Off: 0, Len: 1000}, {Off: 1000, Len: 200}}},
		{"a block over the cap", 20, 2, []blockio.Extent{{Off: 2000, Len: 5000}, {Off: 7000, Len: 100}}},
		{"empty blocks cost nothing", 22, 2, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			src, ext := newImage(append(equal(20, 100), 5000, 100, 0, 0)...)
			s := fetch.New(src, ext, fetch.Options{MaxRequest: 1000})
			defer s.Close()
			if err := s.ReadRun(t.Context(), blockio.Demand, c.first, c.count, ignore); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, asked(src)); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
		})
	}
}

// slow makes each request of src take a second before its first byte.
func slow(src *blockiotest.Source) {
	src.Open = func(ctx context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
		return body, sleep(ctx, time.Second)
	}
}

func sleep(ctx context.Context, d time.Duration) error {
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func TestReadersShareAFlight(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(10, 100)...)
		slow(src)
		s := fetch.New(src, ext, fetch.Options{})
		defer s.Close()
		var wg sync.WaitGroup
		read := func(class blockio.Class, first, count int64) {
			wg.Go(func() {
				if err := s.ReadRun(t.Context(), class, first, count, ignore); err != nil {
					t.Error(err)
				}
			})
		}
		for range 64 {
			read(blockio.Demand, 4, 1)
		}
		synctest.Wait()
		read(blockio.Fill, 3, 3)    // flies for 3 and 5 only
		time.Sleep(2 * time.Second) // and one that comes when all have arrived
		read(blockio.Demand, 3, 3)
		wg.Wait()
		want := []blockio.Extent{{Off: 300, Len: 100}, {Off: 400, Len: 100}, {Off: 500, Len: 100}}
		if diff := cmp.Diff(want, asked(src)); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
	})
}

// A reader gets its block when that has arrived, not at the end of the request.
func TestBlockIsDeliveredAsItArrives(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(5, 100)...)
		src.Open = func(ctx context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			return readerFunc(func(p []byte) (int, error) {
				if err := sleep(ctx, time.Second); err != nil {
					return 0, err
				}
				return body.Read(p[:min(len(p), 100)])
			}), nil
		}
		s := fetch.New(src, ext, fetch.Options{})
		defer s.Close()
		start := time.Now()
		var at []time.Duration
		err := s.ReadRun(t.Context(), blockio.Demand, 0, 5, func(int64, []byte) error {
			at = append(at, time.Since(start))
			return nil
		})
		want := []time.Duration{time.Second, 2 * time.Second, 3 * time.Second, 4 * time.Second, 5 * time.Second}
		if diff := cmp.Diff(want, at); err != nil || diff != "" {
			t.Errorf("error %v, delivered (-want +got):\n%s", err, diff)
		}
	})
}

type readerFunc func(p []byte) (int, error)

func (f readerFunc) Read(p []byte) (int, error) { return f(p) }

func TestCancelledReaderLeavesTheFlightToOthers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(3, 100)...)
		slow(src)
		s := fetch.New(src, ext, fetch.Options{})
		defer s.Close()
		ctx, cancel := context.WithCancel(t.Context())
		first, second := make(chan error, 1), make(chan error, 1)
		go func() { first <- s.ReadRun(ctx, blockio.Demand, 0, 3, ignore) }()
		synctest.Wait()
		go func() { second <- s.ReadRun(t.Context(), blockio.Demand, 1, 1, ignore) }()
		synctest.Wait()
		cancel()
		if err := <-first; !errors.Is(err, context.Canceled) {
			t.Errorf("cancelled reader: %v", err)
		}
		if err := <-second; err != nil {
			t.Errorf("other reader: %v", err)
		}
		if n := len(src.Asked()); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

// With one request at a time, demand goes first, whatever was asked before;
// what nobody wants any more is not asked for.
func TestQueueServesByClassAndForgetsTheAbandoned(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(20, 100)...)
		slow(src)
		s := fetch.New(src, ext, fetch.Options{Requests: atMost(1)})
		defer s.Close()
		abandoned, abandon := context.WithCancel(t.Context())
		var wg sync.WaitGroup
		for _, r := range []struct {
			ctx   context.Context
			class blockio.Class
			n     int64
		}{
			{t.Context(), blockio.Fill, 0}, // starts at once
			{t.Context(), blockio.Fill, 2},
			{t.Context(), blockio.Trace, 4},
			{abandoned, blockio.Demand, 6},
			{t.Context(), blockio.Fill, 8},
			{t.Context(), blockio.Demand, 10},
			{abandoned, blockio.Demand, 10},  // nor does it go for the other
			{t.Context(), blockio.Demand, 8}, // promotes the request for 8
		} {
			wg.Go(func() {
				if err := s.ReadRun(r.ctx, r.class, r.n, 1, ignore); err != nil && r.ctx.Err() == nil {
					t.Errorf("block %d: %v", r.n, err)
				}
			})
			synctest.Wait()
		}
		abandon()
		wg.Wait()
		var got []int64
		for _, r := range src.Asked() {
			got = append(got, r.Off/100)
		}
		if diff := cmp.Diff([]int64{0, 10, 8, 4, 2}, got); diff != "" {
			t.Errorf("order of requests (-want +got):\n%s", diff)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.ReadRun(ctx, blockio.Demand, 6, 1, ignore); err != nil {
			t.Errorf("block 6, which was not asked for: %v", err)
		}
	})
}

func TestBadBlockIsFetchedOnceMoreForAll(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(100, 100, 100, 0)
		slow(src)
		good := src.Data[100:200]
		src.Open = func(ctx context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
			if !r.Refetch {
				bad, _ := io.ReadAll(body)
				bad = bytes.Clone(bad)
				for i := range bad {
					if off := r.Off + int64(i); off >= 100 && off < 200 {
						bad[i] ^= 1
					}
				}
				body = bytes.NewReader(bad)
			}
			return body, sleep(ctx, time.Second)
		}
		servers := &blamed{Source: src}
		s := fetch.New(servers, ext, fetch.Options{})
		defer s.Close()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				err := s.ReadRun(t.Context(), blockio.Demand, 0, 4, func(n int64, p []byte) error {
					if n == 1 && !bytes.Equal(p, good) {
						return errors.New("bad")
					}
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		wg.Wait()
		want := []blockio.Range{
			{Extent: blockio.Extent{Off: 0, Len: 300}},
			{Extent: blockio.Extent{Off: 100, Len: 100}, Refetch: true},
		}
		if diff := cmp.Diff(want, src.Asked()); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		servers.mu.Lock()
		defer servers.mu.Unlock()
		if len(servers.blamed) == 0 || servers.blamed[0] != want[1].Extent {
			t.Errorf("who sent bytes %v was to blame, want those of %v", servers.blamed, want[1].Extent)
		}
	})
}

// blamed is a source that is told whose bytes were bad.
type blamed struct {
	*blockiotest.Source
	mu     sync.Mutex
	blamed []blockio.Extent
}

func (b *blamed) Blame(e blockio.Extent) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.blamed = append(b.blamed, e)
}

// Blocks that are bad each time are nobody's fault.
func TestNobodyIsToBlame(t *testing.T) {
	src, ext := newImage(equal(3, 100)...)
	servers := &blamed{Source: src}
	s := fetch.New(servers, ext, fetch.Options{})
	defer s.Close()
	bad := errors.New("bad")
	if err := s.ReadRun(t.Context(), blockio.Demand, 1, 1, func(int64, []byte) error { return bad }); !errors.Is(err, bad) {
		t.Errorf("got error %v, want %v", err, bad)
	}
	if len(servers.blamed) > 0 {
		t.Errorf("who sent bytes %v was to blame", servers.blamed)
	}
}

// Whatever a block fails by, it fails at once for a second, and is then tried anew.
func TestFailureLastsASecond(t *testing.T) {
	bad := errors.New("bad")
	for _, c := range []struct {
		name     string
		open     error // of every request
		deliver  error // of every delivery
		want     error
		requests int // by the first reader
	}{
		{name: "request fails", open: bad, want: bad, requests: 1},
		{name: "bytes are bad", deliver: bad, want: bad, requests: 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, ext := newImage(equal(3, 100)...)
				src.Open = func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
					return body, c.open
				}
				s := fetch.New(src, ext, fetch.Options{})
				defer s.Close()
				calls := 0
				read := func() error {
					return s.ReadRun(t.Context(), blockio.Demand, 1, 1, func(int64, []byte) error {
						calls++
						return c.deliver
					})
				}
				var be *blockio.BlockError
				first := read()
				if !errors.Is(first, c.want) || !errors.As(first, &be) || be.Block != 1 {
					t.Errorf("first read: %v, want a BlockError of block 1 with %v", first, c.want)
				}
				start, before := time.Now(), calls
				if err := read(); !errors.Is(err, c.want) || err.Error() != first.Error() || calls > before {
					t.Errorf("second read: %v after %d deliveries, want %v after none", err, calls-before, first)
				}
				if d := time.Since(start); d != 0 {
					t.Errorf("second read took %v, want none", d)
				}
				if n := len(src.Asked()); n != c.requests {
					t.Errorf("%d requests, want %d", n, c.requests)
				}
				time.Sleep(time.Second)
				c.open, c.deliver = nil, nil
				if err := read(); err != nil {
					t.Errorf("read after a second: %v", err)
				}
				if n := len(src.Asked()); n != 1 {
					t.Errorf("%d requests after a second, want 1", n)
				}
			})
		})
	}
}

// Nor can a block without bytes be fetched once more.
func TestBadBlockOfNothing(t *testing.T) {
	src, ext := newImage(100, 0, 100)
	s := fetch.New(src, ext, fetch.Options{})
	defer s.Close()
	bad := errors.New("bad")
	var be *blockio.BlockError
	err := s.ReadRun(t.Context(), blockio.Demand, 1, 1, func(int64, []byte) error { return bad })
	if !errors.Is(err, bad) || !errors.As(err, &be) || be.Block != 1 {
		t.Errorf("error %v, want a BlockError of block 1 with %v", err, bad)
	}
	if list := asked(src); list != nil {
		t.Errorf("asked for %v", list)
	}
}

// A stream that fails in the middle fails the blocks that have not arrived, and
// no others; also for a reader who comes to them long after.
func TestTornRequest(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(4, 100)...)
		torn := errors.New("torn")
		src.Open = func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			return io.MultiReader(io.LimitReader(body, 250), iotest.ErrReader(torn)), nil
		}
		s := fetch.New(src, ext, fetch.Options{})
		defer s.Close()
		var got []int64
		err := s.ReadRun(t.Context(), blockio.Demand, 0, 4, func(n int64, _ []byte) error {
			time.Sleep(2 * time.Second)
			got = append(got, n)
			return nil
		})
		var be *blockio.BlockError
		if !errors.Is(err, torn) || !errors.As(err, &be) || be.Block != 2 {
			t.Errorf("error %v, want %v at block 2", err, torn)
		}
		if diff := cmp.Diff([]int64{0, 1}, got); diff != "" {
			t.Errorf("delivered (-want +got):\n%s", diff)
		}
		if n := len(src.Asked()); n != 1 {
			t.Errorf("%d requests, want 1", n)
		}
	})
}

// What arrived last is kept, within bounds.
func TestKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(10, 100)...)
		s := fetch.New(src, ext, fetch.Options{Keep: 3 * 128}) // a buffer for 100 bytes has 128
		defer s.Close()
		for _, n := range []int64{0, 1, 2, 3, 3, 2, 1, 0} {
			if err := s.ReadRun(t.Context(), blockio.Demand, n, 1, ignore); err != nil {
				t.Fatal(err)
			}
			synctest.Wait() // until the flight has ended too
		}
		var got []int64
		for _, r := range src.Asked() {
			got = append(got, r.Off/100)
		}
		if diff := cmp.Diff([]int64{0, 1, 2, 3, 0}, got); diff != "" {
			t.Errorf("blocks asked for (-want +got):\n%s", diff)
		}
	})
}

func TestCloseEndsEverything(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(8, 100)...)
		src.Open = func(ctx context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			return body, sleep(ctx, time.Hour)
		}
		s := fetch.New(src, ext, fetch.Options{Requests: atMost(2)})
		var wg sync.WaitGroup
		for n := range int64(4) {
			wg.Go(func() {
				if err := s.ReadRun(t.Context(), blockio.Demand, 2*n, 1, ignore); err == nil {
					t.Errorf("block %d: no error", 2*n)
				}
			})
		}
		synctest.Wait()
		s.Close()
		wg.Wait()
		if n := len(src.Asked()); n != 2 {
			t.Errorf("%d requests, want the 2 that were under way", n)
		}
		if err := s.ReadRun(t.Context(), blockio.Demand, 7, 1, ignore); err == nil {
			t.Error("a read after Close: no error")
		}
		if list := asked(src); list != nil {
			t.Errorf("a read after Close asked for %v", list)
		}
	})
}

// However many readers want large blocks, what is in memory for them is bounded.
func TestBufferIsBounded(t *testing.T) {
	const size, limit = 1024, 10 * 1024 // five eighths of the buffer are for demand
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(append(equal(60, size), 100*size)...)
		var mu sync.Mutex
		under, most := int64(0), int64(0)
		add := func(n int64) {
			mu.Lock()
			defer mu.Unlock()
			under += n
			most = max(most, under)
		}
		src.Open = func(ctx context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
			add(r.Len)
			err := sleep(ctx, time.Second)
			if r.Off < 9*size { // given up: nobody will deliver it
				add(-r.Len)
			}
			return body, err
		}
		s := fetch.New(src, ext, fetch.Options{Buffer: 16 * 1024, Keep: 1})
		defer s.Close()
		read := func(ctx context.Context, first, count int64) {
			got := int64(0)
			err := s.ReadRun(ctx, blockio.Demand, first, count, func(int64, []byte) error {
				time.Sleep(time.Second) // a slow decoder holds the bytes
				add(-size)
				got++
				return nil
			})
			if ctx.Err() == nil && (err != nil || got != count) {
				t.Errorf("%d of blocks %d+%d were delivered: %v", got, first, count, err)
			}
		}
		var wg sync.WaitGroup
		for n := int64(0); n < 60; n += 3 {
			wg.Go(func() {
				ctx := t.Context()
				if n < 9 { // some give up: their flights go on, and count
					var cancel context.CancelFunc
					ctx, cancel = context.WithTimeout(ctx, time.Second/2)
					defer cancel()
				}
				read(ctx, n, 3)
			})
		}
		wg.Wait()
		for n := int64(0); n < 60; n += 15 { // long runs, of which something is always ahead
			wg.Go(func() { read(t.Context(), n, 15) })
		}
		wg.Wait()
		if most != limit {
			t.Errorf("%d bytes in memory at a time, want no more than %d, and that", most, limit)
		}
		// A block larger than that is still served.
		if err := s.ReadRun(t.Context(), blockio.Demand, 60, 1, ignore); err != nil {
			t.Error(err)
		}
	})
}

// Runs that fail give back the room of the blocks that they leave, be they here or not.
func TestFailedRunsTakeNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(30, 1024)...)
		s := fetch.New(src, ext, fetch.Options{Buffer: 16 * 1024})
		defer s.Close()
		bad := errors.New("bad")
		for n := range int64(20) {
			err := s.ReadRun(t.Context(), blockio.Demand, n, 10, func(int64, []byte) error {
				synctest.Wait() // the others have come
				return bad
			})
			if !errors.Is(err, bad) {
				t.Errorf("run %d: error %v, want %v", n, err, bad)
			}
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		if err := s.ReadRun(ctx, blockio.Demand, 20, 10, ignore); err != nil {
			t.Errorf("after that: %v", err)
		}
	})
}

// Readers of lower classes that hold all they may hold keep no reader waiting.
func TestDemandDoesNotWaitForRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(100, 1024)...)
		slow(src)
		s := fetch.New(src, ext, fetch.Options{Buffer: 8 * 1024})
		defer s.Close()
		var wg sync.WaitGroup
		for n := range int64(8) {
			wg.Go(func() {
				err := s.ReadRun(t.Context(), blockio.Fill, 10*n, 10, func(int64, []byte) error {
					time.Sleep(time.Minute)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
		}
		synctest.Wait()
		start := time.Now()
		if err := s.ReadRun(t.Context(), blockio.Demand, 99, 1, ignore); err != nil {
			t.Error(err)
		}
		if d := time.Since(start); d != time.Second {
			t.Errorf("served after %v, want a round trip of %v", d, time.Second)
		}
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		var be *blockio.BlockError
		if err := s.ReadRun(ctx, blockio.Fill, 90, 1, ignore); !errors.Is(err, context.DeadlineExceeded) || !errors.As(err, &be) || be.Block != 90 {
			t.Errorf("who waits for room and goes: %v, want a BlockError of block 90 with the context's", err)
		}
		wg.Wait()
	})
}

// A failure costs no room: it lasts its second however long the block is, and
// what was kept stays.
func TestFailureTakesNoRoom(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(100, 100_000)
		bad := errors.New("bad")
		src.Open = func(_ context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
			if r.Off > 0 {
				return nil, bad
			}
			return body, nil
		}
		s := fetch.New(src, ext, fetch.Options{Keep: 1000})
		defer s.Close()
		for _, c := range []struct {
			n    int64
			want error
		}{{0, nil}, {1, bad}, {1, bad}, {0, nil}} {
			if err := s.ReadRun(t.Context(), blockio.Demand, c.n, 1, ignore); !errors.Is(err, c.want) {
				t.Errorf("block %d: %v, want %v", c.n, err, c.want)
			}
			synctest.Wait()
		}
		if n := len(src.Asked()); n != 2 {
			t.Errorf("%d requests, want 2", n)
		}
	})
}

// A run of any length holds no more than what may be ahead.
func TestLongRunIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(1000, 100)...)
		s := fetch.New(src, ext, fetch.Options{Requests: atMost(4), MaxRequest: 1000})
		defer s.Close()
		most, requests := int64(0), 0
		err := s.ReadRun(t.Context(), blockio.Demand, 0, 1000, func(n int64, _ []byte) error {
			synctest.Wait() // until all that may be under way has arrived
			for _, r := range src.Asked() {
				requests++
				most = max(most, r.End()-100*n)
			}
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
		if most > 13*1000 || most < 4*1000 {
			t.Errorf("%d bytes ahead of the reader, want 4 to 13 of the largest requests", most)
		}
		if requests > 130 {
			t.Errorf("%d requests, want little more than 100 of 10 blocks", requests)
		}
	})
}

// located is an index that notes how far it was asked.
type located struct {
	blockiotest.Extents
	last int64
}

func (l *located) Extent(ctx context.Context, n int64) (blockio.Extent, error) {
	l.last = max(l.last, n)
	return l.Extents.Extent(ctx, n)
}

// Nor does one of blocks without bytes.
func TestLongRunOfNothingIsBounded(t *testing.T) {
	src, ext := newImage(equal(20_000, 0)...)
	at := &located{Extents: ext}
	s := fetch.New(src, at, fetch.Options{})
	defer s.Close()
	most := int64(0)
	err := s.ReadRun(t.Context(), blockio.Demand, 0, 20_000, func(n int64, _ []byte) error {
		most = max(most, at.last+1-n)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	if most > 4096 {
		t.Errorf("%d blocks ahead of the reader, want at most 4096", most)
	}
}

// lost is an index that does not know where a block lies.
type lost struct {
	blockiotest.Extents
	n   int64
	why error
}

func (l lost) Extent(ctx context.Context, n int64) (blockio.Extent, error) {
	if n == l.n {
		return blockio.Extent{}, l.why
	}
	return l.Extents.Extent(ctx, n)
}

// A block that can't be located is an error for that block, and the ones before it are
// delivered.
func TestBlockThatIsNowhere(t *testing.T) {
	why := errors.New("nowhere")
	for at, opt := range map[int64]fetch.Options{0: {}, 6: {}, 9: {MaxRequest: 100}} {
		src, ext := newImage(equal(10, 100)...)
		s := fetch.New(src, lost{ext, at, why}, opt)
		defer s.Close()
		var got []int64
		err := s.ReadRun(t.Context(), blockio.Demand, 0, 10, func(n int64, _ []byte) error {
			got = append(got, n)
			return nil
		})
		var be *blockio.BlockError
		if !errors.Is(err, why) || !errors.As(err, &be) || be.Block != at {
			t.Errorf("error %v, want %v at block %d", err, why, at)
		}
		if int64(len(got)) != at || !slices.IsSorted(got) {
			t.Errorf("blocks %v were delivered, want those before %d", got, at)
		}
	}
}

func BenchmarkReadRun(b *testing.B) {
	for _, count := range []int64{1, 16} {
		b.Run(fmt.Sprintf("blocks=%d", count), func(b *testing.B) {
			const stored = 30_000
			src, ext := newImage(equal(1024, stored)...)
			s := fetch.New(src, ext, fetch.Options{Keep: 1})
			defer s.Close()
			b.SetBytes(count * stored)
			b.ReportAllocs()
			n := int64(0)
			for b.Loop() {
				if err := s.ReadRun(b.Context(), blockio.Demand, n, count, ignore); err != nil {
					b.Fatal(err)
				}
				if n += count; n+count > 1024 {
					n = 0
					src.Asked()
				}
			}
		})
	}
}

// atMost is for Options.Requests.
func atMost(n int) func() int { return func() int { return n } }

// moving is an index that is read again, and says something else then.
type moving struct {
	mu sync.Mutex
	blockiotest.Extents
}

func (m *moving) Extent(ctx context.Context, n int64) (blockio.Extent, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.Extents.Extent(ctx, n)
}

// What has arrived of a block that lies elsewhere by now is not taken for it.
func TestBlockThatMoved(t *testing.T) {
	src, ext := newImage(100, 100, 100)
	m := &moving{Extents: ext}
	s := fetch.New(src, m, fetch.Options{})
	defer s.Close()
	for _, ends := range [][]int64{{100, 200, 300}, {110, 200, 300}, {110, 220, 300}} {
		m.mu.Lock()
		m.Ends = ends
		m.mu.Unlock()
		err := s.ReadRun(t.Context(), blockio.Demand, 0, 3, func(n int64, stored []byte) error {
			if e, _ := m.Extent(t.Context(), n); !bytes.Equal(stored, src.Data[e.Off:e.End()]) {
				t.Errorf("block %d at %v: other bytes", n, e)
			}
			return nil
		})
		if err != nil {
			t.Error(err)
		}
	}
}
