package fetch_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/fetch"
)

// store is a store in memory that several processes share.
type store struct {
	mu     sync.Mutex
	blocks map[int64][]byte
	claims []claim
	tried  []blockio.Range // for which somebody has asked for a claim
	log    []string        // "put 3", "forget 3"
	gone   []int64         // blocks that seem to be here
}

// process is a process's view of a store: only the claims of others keep it from
// its own.
type process struct {
	*store
	id int
}

type claim struct {
	process int
	ext     blockio.Extent
}

func newStore() *store { return &store{blocks: make(map[int64][]byte)} }

func (s *store) Have(n int64, _ blockio.Extent) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.blocks[n] != nil || slices.Contains(s.gone, n)
}

func (s *store) Get(n int64, _ blockio.Extent, p []byte) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.gone = slices.DeleteFunc(s.gone, func(g int64) bool { return g == n })
	return copy(p, s.blocks[n]) == len(p) && len(p) > 0
}

func (s *store) Put(n int64, _ blockio.Extent, p []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.blocks[n] = bytes.Clone(p)
	s.log = append(s.log, "put "+string(rune('0'+n)))
}

func (s *store) Forget(n int64, _ blockio.Extent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.blocks, n)
	s.log = append(s.log, "forget "+string(rune('0'+n)))
}

// what returns the numbers of the blocks that are here.
func (s *store) what() []int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Sorted(maps.Keys(s.blocks))
}

// did returns what was done since the last call.
func (s *store) did() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	log := s.log
	s.log = nil
	return log
}

func (p process) Claim(e blockio.Extent, class blockio.Class) (release func(), ok bool) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.tried = append(p.tried, blockio.Range{Extent: e, Class: class})
	for _, c := range p.claims {
		if c.process != p.id && c.ext.Off < e.End() && e.Off < c.ext.End() {
			return nil, false
		}
	}
	mine := claim{p.id, e}
	p.claims = append(p.claims, mine)
	return func() {
		p.mu.Lock()
		defer p.mu.Unlock()
		if i := slices.Index(p.claims, mine); i >= 0 {
			p.claims = slices.Delete(p.claims, i, i+1)
		}
	}, true
}

// unclaimed checks that nothing is claimed for ever.
func (s *store) unclaimed(t *testing.T) {
	t.Helper()
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.claims) > 0 {
		t.Errorf("still claimed: %v", s.claims)
	}
}

// put stores blocks of an image, as an earlier process has.
func (s *store) put(t *testing.T, src *blockiotest.Source, ext blockio.Extents, blocks ...int64) {
	t.Helper()
	for _, n := range blocks {
		e, err := ext.Extent(t.Context(), n)
		if err != nil {
			t.Fatal(err)
		}
		s.Put(n, e, src.Data[e.Off:e.End()])
	}
	s.did()
}

// collect returns a deliver that checks what it gets, and the numbers of the
// blocks it has got.
func collect(t *testing.T, src *blockiotest.Source, ext blockio.Extents) (deliver func(int64, []byte) error, got *[]int64) {
	t.Helper()
	got = new([]int64)
	return func(n int64, stored []byte) error {
		e, err := ext.Extent(t.Context(), n)
		if err != nil {
			return err
		}
		if !bytes.Equal(stored, src.Data[e.Off:e.End()]) {
			return errors.New("other bytes")
		}
		*got = append(*got, n)
		return nil
	}, got
}

func TestConformsWithStore(t *testing.T) {
	src, ext := newImage(append(equal(40, 3000), 0, 0, 1, 100_000, 70_000, 0)...)
	shared := newStore()
	for range 3 { // empty, and with what the rounds before have left
		s := fetch.New(src, ext, fetch.Options{Keep: 1, Store: process{shared, 0}})
		blockiotest.TestRuns(t, s, ext, src.Data)
		s.Close()
		shared.unclaimed(t)
	}
}

// What the store has is not asked for, what it has not is asked for in runs. Only
// the latter counts as fetched.
func TestStoredIsNotAskedFor(t *testing.T) {
	src, ext := newImage(equal(10, 100)...)
	shared := newStore()
	shared.put(t, src, ext, 0, 1, 4, 9)
	s := fetch.New(src, ext, fetch.Options{Store: process{shared, 0}})
	defer s.Close()
	requests := []blockio.Extent{{Off: 200, Len: 200}, {Off: 500, Len: 400}}
	readTen(t, s, src, ext, requests...)
	for _, e := range requests {
		if !slices.Contains(shared.tried, blockio.Range{Extent: e}) {
			t.Errorf("claimed were %v, want the requests %v", shared.tried, requests)
		}
	}
	var want fetch.Stats
	want.Class[blockio.Demand] = fetch.ClassStats{Requests: 2, Bytes: 600, Used: 600}
	if diff := cmp.Diff(want, s.Stats()); diff != "" {
		t.Errorf("stats (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, shared.what()); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
	// Another process finds all of it.
	other := fetch.New(src, ext, fetch.Options{Store: process{shared, 1}})
	defer other.Close()
	readTen(t, other, src, ext)
	if other.Stats() != (fetch.Stats{}) {
		t.Errorf("fetched again: %v", other.Stats())
	}
}

// Of a source that has bytes at hand only the others are asked for, in one request.
func TestNearby(t *testing.T) {
	src, ext := newImage(equal(10, 100)...)
	s := fetch.New(src, ext, fetch.Options{Store: blockio.Nearby(blockiotest.Handy{Source: src, Near: 450})})
	defer s.Close()
	readTen(t, s, src, ext, blockio.Extent{Off: 400, Len: 600})
}

// readTen reads ten blocks, of which these have to be asked for.
func readTen(t *testing.T, s *fetch.Scheduler, src *blockiotest.Source, ext blockio.Extents, requests ...blockio.Extent) {
	t.Helper()
	deliver, got := collect(t, src, ext)
	if err := s.ReadRun(t.Context(), blockio.Demand, 0, 10, deliver); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, *got); diff != "" {
		t.Errorf("delivered (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(requests, asked(src)); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// What is in the store can be taken, and only that; who has had it is counted.
func TestTake(t *testing.T) {
	src, ext := newImage(100, 100, 0, 100)
	shared := newStore()
	shared.put(t, src, ext, 0)
	s := fetch.New(src, ext, fetch.Options{Store: process{shared, 0}})
	defer s.Close()
	deliver, got := collect(t, src, ext)
	for n, want := range []bool{true, false, true, false} { // 2 has no bytes
		if ok := s.Take(int64(n), deliver); ok != want {
			t.Errorf("Take(%d) = %v, want %v", n, ok, want)
		}
	}
	if diff := cmp.Diff([]int64{0, 2}, *got); diff != "" {
		t.Errorf("delivered (-want +got):\n%s", diff)
	}
	if s.Take(0, func(int64, []byte) error { return errors.New("bad") }) {
		t.Error("Take of bad bytes is true")
	}
	for name, other := range map[string]*fetch.Scheduler{
		"of a block that is nowhere": fetch.New(src, lost{ext, 1, errors.New("nowhere")}, fetch.Options{Store: process{shared, 0}}),
		"without a store":            fetch.New(src, ext, fetch.Options{}),
	} {
		defer other.Close()
		if other.Take(1, deliver) {
			t.Errorf("Take %s is true", name)
		}
	}
	// What was brought ahead counts as used when it is had.
	if err := s.ReadRun(t.Context(), blockio.ReadAhead, 1, 1, nil); err != nil {
		t.Fatal(err)
	}
	if !s.Take(1, deliver) || s.Stats().Class[blockio.ReadAhead].Used != 0 {
		t.Errorf("taken is used: %v", s.Stats())
	}
	s.Had(1)
	if used := s.Stats().Class[blockio.ReadAhead].Used; used != 100 {
		t.Errorf("%d bytes used, want 100", used)
	}
	if diff := cmp.Diff([]blockio.Extent{{Off: 100, Len: 100}}, asked(src)); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// A sequential reader for whom blocks are taken is read ahead of, as any other.
func TestHadIsFollowed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(300, 1000)...)
		shared := newStore()
		for n := range int64(100) {
			shared.put(t, src, ext, n)
		}
		s := fetch.New(src, ext, fetch.Options{Store: process{shared, 0}, Ahead: true})
		defer s.Close()
		for n := range int64(100) {
			s.Had(n)
		}
		time.Sleep(time.Second)
		if list := asked(src); len(list) == 0 || list[0].Off != 100_000 {
			t.Errorf("asked for %v, want what follows", list)
		}
	})
}

// Blocks that are wanted ahead of time are stored, and not asked for if they are.
func TestNearerWithStore(t *testing.T) {
	src, ext := newImage(equal(6, 100)...)
	shared := newStore()
	shared.put(t, src, ext, 2)
	s := fetch.New(src, ext, fetch.Options{Store: process{shared, 0}})
	defer s.Close()
	for range 2 {
		if err := s.ReadRun(t.Context(), blockio.Fill, 0, 6, nil); err != nil {
			t.Fatal(err)
		}
	}
	if diff := cmp.Diff([]blockio.Extent{{Off: 0, Len: 200}, {Off: 300, Len: 300}}, asked(src)); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff([]int64{0, 1, 2, 3, 4, 5}, shared.what()); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
}

// What only seems to be in the store is asked for, in as few requests as if it had
// not: eviction takes large stretches.
func TestThrownAwayIsAskedFor(t *testing.T) {
	for _, c := range []struct {
		name string
		gone []int64
		want []blockio.Extent
	}{
		{"one", []int64{3}, []blockio.Extent{{Off: 300, Len: 100}}},
		{"a stretch", []int64{2, 3, 4, 5}, []blockio.Extent{{Off: 200, Len: 400}}},
		{"two stretches", []int64{0, 1, 7, 8}, []blockio.Extent{{Off: 0, Len: 200}, {Off: 700, Len: 200}}},
		{"all", []int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, []blockio.Extent{{Off: 0, Len: 500}, {Off: 500, Len: 500}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			src, ext := newImage(equal(10, 100)...)
			shared := newStore()
			for n := range int64(10) {
				if !slices.Contains(c.gone, n) {
					shared.put(t, src, ext, n)
				}
			}
			shared.gone = c.gone
			s := fetch.New(src, ext, fetch.Options{Store: process{shared, 0}, MaxRequest: 500})
			defer s.Close()
			deliver, got := collect(t, src, ext)
			if err := s.ReadRun(t.Context(), blockio.Demand, 0, 10, deliver); err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff([]int64{0, 1, 2, 3, 4, 5, 6, 7, 8, 9}, *got); diff != "" {
				t.Errorf("delivered (-want +got):\n%s", diff)
			}
			if diff := cmp.Diff(c.want, asked(src)); diff != "" {
				t.Errorf("requests (-want +got):\n%s", diff)
			}
			if n := len(shared.what()); n != 10 {
				t.Errorf("%d blocks stored, want all", n)
			}
		})
	}
}

// A block is in the store before anybody gets it.
func TestStoredBeforeDelivered(t *testing.T) {
	src, ext := newImage(equal(8, 100)...)
	shared := newStore()
	s := fetch.New(src, ext, fetch.Options{Store: process{shared, 0}})
	defer s.Close()
	err := s.ReadRun(t.Context(), blockio.Demand, 0, 8, func(n int64, p []byte) error {
		got := make([]byte, 100)
		if !shared.Get(n, blockio.Extent{}, got) || !bytes.Equal(got, p) {
			t.Errorf("block %d is delivered, and not stored", n)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

// damaged makes the source bring a wrong byte at off, but to who asks again.
func damaged(src *blockiotest.Source, off int64) {
	src.Open = func(_ context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
		if r.Refetch || off < r.Off || off >= r.End() {
			return body, nil
		}
		p, err := io.ReadAll(body)
		p[off-r.Off] ^= 1
		return bytes.NewReader(p), err
	}
}

// refetches returns the ranges that were asked for again.
func refetches(src *blockiotest.Source) (again []blockio.Extent, all int) {
	list := src.Asked()
	for _, r := range list {
		if r.Refetch {
			again = append(again, r.Extent)
		}
	}
	return again, len(list)
}

// A block that arrives damaged is forgotten, asked for once more, and stored: now
// and for the next process it costs one request.
func TestDamagedOnItsWay(t *testing.T) {
	src, ext := newImage(equal(4, 100)...)
	damaged(src, 250)
	shared := newStore()
	s := fetch.New(src, ext, fetch.Options{Store: process{shared, 0}})
	defer s.Close()
	deliver, got := collect(t, src, ext)
	if err := s.ReadRun(t.Context(), blockio.Demand, 0, 4, deliver); err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]int64{0, 1, 2, 3}, *got); diff != "" {
		t.Errorf("delivered (-want +got):\n%s", diff)
	}
	if again, all := refetches(src); len(again) != 1 || all != 2 || again[0] != (blockio.Extent{Off: 200, Len: 100}) {
		t.Errorf("%d requests, again %v; want two, block 2 again", all, again)
	}
	if got, want := s.Stats().Class[blockio.Demand], (fetch.ClassStats{Requests: 1, Bytes: 400, Used: 300}); got != want {
		t.Errorf("stats %+v, want %+v", got, want)
	}
	if got, want := s.Stats().Refetched, (fetch.ClassStats{Requests: 1, Bytes: 100, Used: 100}); got != want {
		t.Errorf("stats of what was fetched again %+v, want %+v", got, want)
	}
	log := shared.did()
	for i, want := range []string{"put 2", "forget 2", "put 2"} {
		at := slices.Index(log, want)
		if at < 0 {
			t.Fatalf("step %d, %q, is missing or comes too early", i, want)
		}
		log = log[at+1:]
	}
	other := fetch.New(src, ext, fetch.Options{Store: process{shared, 1}})
	defer other.Close()
	if err := other.ReadRun(t.Context(), blockio.Demand, 0, 4, deliver); err != nil {
		t.Fatal(err)
	}
	if list := asked(src); list != nil {
		t.Errorf("the next process asked for %v", list)
	}
}

// A reader that finds out late that a block was damaged does not throw away what
// was fetched again meanwhile.
func TestSlowReaderOfDamage(t *testing.T) {
	for name, inStore := range map[string]bool{"on its way": false, "in the store": true} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				src, ext := newImage(equal(4, 100)...)
				damaged(src, 150)
				shared := newStore()
				if inStore {
					shared.put(t, src, ext, 1)
					shared.blocks[1][50] ^= 1
				}
				s := fetch.New(src, ext, fetch.Options{Store: process{shared, 0}})
				defer s.Close()
				var wg sync.WaitGroup
				for _, d := range []time.Duration{0, time.Second} {
					wg.Go(func() {
						deliver, got := collect(t, src, ext)
						err := s.ReadRun(t.Context(), blockio.Demand, 1, 1, func(n int64, stored []byte) error {
							time.Sleep(d)
							return deliver(n, stored)
						})
						if err != nil || len(*got) != 1 {
							t.Errorf("%d blocks, %v; want 1", len(*got), err)
						}
					})
				}
				wg.Wait()
				if again, _ := refetches(src); len(again) != 1 {
					t.Errorf("asked again for %v, want block 1 once", again)
				}
				if !bytes.Equal(shared.blocks[1], src.Data[100:200]) {
					t.Error("the block that was fetched again is not stored")
				}
			})
		})
	}
}

// stubborn is a store that does not forget.
type stubborn struct{ process }

func (stubborn) Forget(int64, blockio.Extent) {}

// A block that was stored damaged, as bytes that match their checksum, is forgotten
// and asked for once more, by all its readers together; past the store, whatever that
// has, and whatever others claim.
func TestDamagedInStore(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(4, 100)...)
		slow(src)
		shared := newStore()
		shared.put(t, src, ext, 0, 1, 2, 3)
		shared.blocks[1][50] ^= 1
		s := fetch.New(src, ext, fetch.Options{Store: stubborn{process{shared, 0}}})
		defer s.Close()
		var wg sync.WaitGroup
		for range 8 {
			wg.Go(func() {
				deliver, got := collect(t, src, ext)
				if err := s.ReadRun(t.Context(), blockio.Demand, 0, 4, deliver); err != nil || len(*got) != 4 {
					t.Errorf("%d blocks, %v; want 4", len(*got), err)
				}
			})
		}
		wg.Wait()
		if again, all := refetches(src); all != 1 || len(again) != 1 || again[0] != (blockio.Extent{Off: 100, Len: 100}) {
			t.Errorf("%d requests, again %v; want block 1 again", all, again)
		}
		if !bytes.Equal(shared.blocks[1], src.Data[100:200]) {
			t.Error("what is stored is still damaged")
		}
	})
}

// Who finds that his copy of a block is bad while another reader's, of the same bytes, is on
// its way has it asked for once more all the same.
func TestDamagedTwice(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(2, 100)...)
		damaged(src, 150)
		damage := src.Open
		src.Open = func(ctx context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
			body, err := damage(ctx, r, body)
			return body, errors.Join(err, sleep(ctx, time.Second))
		}
		s := fetch.New(src, ext, fetch.Options{Keep: 1})
		defer s.Close()
		read := func(first, count int64) {
			deliver, got := collect(t, src, ext)
			err := s.ReadRun(t.Context(), blockio.Demand, first, count, func(n int64, p []byte) error {
				if n == 0 {
					time.Sleep(1500 * time.Millisecond) // meanwhile block 1 is here, and gone
				}
				return deliver(n, p)
			})
			if err != nil || int64(len(*got)) != count {
				t.Errorf("of blocks %d+%d: %d, %v", first, count, len(*got), err)
			}
		}
		var both sync.WaitGroup
		both.Go(func() { read(0, 2) })
		time.Sleep(2 * time.Second)
		both.Go(func() { read(1, 1) })
		both.Wait()
		if again, all := refetches(src); all != 3 || len(again) != 1 {
			t.Errorf("%d requests, again %v; want three, one of them again", all, again)
		}
	})
}

// Readers who wait for a dead server take no room from those who find all in the store; what is
// not there after all has room all the same.
func TestStoreWhileOthersWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(60, 1000)...)
		shared := newStore()
		shared.put(t, src, ext, 50, 51, 52, 53, 54)
		src.Open = func(ctx context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			return body, sleep(ctx, time.Minute)
		}
		s := fetch.New(src, ext, fetch.Options{Store: process{shared, 0}, Buffer: 16 << 10, Keep: 1})
		defer s.Close()
		var waiting sync.WaitGroup
		for n := range int64(50) {
			waiting.Go(func() {
				if err := s.ReadRun(t.Context(), blockio.Demand, n, 1, ignore); err != nil {
					t.Error(err)
				}
			})
		}
		time.Sleep(time.Second)
		begin := time.Now()
		deliver, got := collect(t, src, ext)
		if err := s.ReadRun(t.Context(), blockio.Demand, 50, 5, deliver); err != nil || len(*got) != 5 || time.Since(begin) > 0 {
			t.Errorf("%d blocks after %v, %v; want 5 at once", len(*got), time.Since(begin), err)
		}
		deliver, got = collect(t, src, ext)
		err := s.ReadRun(t.Context(), blockio.Demand, 50, 5, func(n int64, p []byte) error {
			if n == 50 { // the others are thrown away while it is decoded
				for n := int64(51); n < 55; n++ {
					shared.Forget(n, blockio.Extent{})
				}
			}
			return deliver(n, p)
		})
		if err != nil || len(*got) != 5 {
			t.Errorf("%d blocks, %v; want 5", len(*got), err)
		}
		waiting.Wait()
	})
}

// A block that is damaged at the source too is an error for a second, and nothing
// stays of it in the store.
func TestDamagedEverywhere(t *testing.T) {
	for name, inStore := range map[string]bool{"in the store": true, "at the source alone": false} {
		t.Run(name, func(t *testing.T) {
			src, ext := newImage(equal(4, 100)...)
			shared := newStore()
			if inStore {
				shared.put(t, src, ext, 1)
			}
			s := fetch.New(src, ext, fetch.Options{Store: process{shared, 0}})
			defer s.Close()
			bad := errors.New("does not decode")
			calls := 0
			err := s.ReadRun(t.Context(), blockio.Demand, 1, 1, func(int64, []byte) error { calls++; return bad })
			var be *blockio.BlockError
			if !errors.Is(err, bad) || !errors.As(err, &be) || be.Block != 1 || calls != 2 {
				t.Errorf("%v after %d calls, want block 1's error after 2", err, calls)
			}
			want := 2
			if inStore {
				want = 1
			}
			if again, all := refetches(src); len(again) != 1 || all != want {
				t.Errorf("%d requests, %d again; want %d, 1 again", all, len(again), want)
			}
			if left := shared.what(); len(left) != 0 {
				t.Errorf("blocks %v are stored", left)
			}
		})
	}
}

// Several processes that read the same at once ask for each byte once, all together.
func TestProcessesShareTheWork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(9, 100)...)
		src.Open = func(ctx context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			return body, sleep(ctx, time.Second/5) // three in a row are within the patience of who waits
		}
		shared := newStore()
		var wg sync.WaitGroup
		var all []*fetch.Scheduler
		for id := range 4 {
			s := fetch.New(src, ext, fetch.Options{Store: process{shared, id}, MaxRequest: 300})
			all = append(all, s)
			wg.Go(func() {
				deliver, got := collect(t, src, ext)
				if err := s.ReadRun(t.Context(), blockio.Demand, int64(id), 9-int64(id), deliver); err != nil || len(*got) != 9-id {
					t.Errorf("process %d: %d blocks, %v", id, len(*got), err)
				}
			})
		}
		wg.Wait()
		total, fetched := int64(0), int64(0)
		for _, e := range asked(src) {
			total += e.Len
		}
		for _, s := range all {
			fetched += s.Stats().Class[blockio.Demand].Bytes
			s.Close()
		}
		if total != 900 || fetched != 900 {
			t.Errorf("%d bytes asked for, %d counted; want each of 900 once", total, fetched)
		}
		shared.unclaimed(t)
	})
}

// Who waits for another process takes each block as it appears.
func TestClaimedBlocksAreTakenAsTheyAppear(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(5, 100)...)
		shared := newStore()
		release, _ := process{shared, 1}.Claim(blockio.Extent{Len: 500}, blockio.Demand)
		s := fetch.New(src, ext, fetch.Options{Store: process{shared, 0}})
		defer s.Close()
		var wg sync.WaitGroup
		deliver, got := collect(t, src, ext)
		wg.Go(func() {
			if err := s.ReadRun(t.Context(), blockio.Demand, 0, 5, deliver); err != nil {
				t.Error(err)
			}
		})
		for _, c := range []struct {
			n    int64 // that is stored
			want int   // blocks delivered by then
		}{{0, 1}, {1, 2}, {3, 2}} { // slowly, but it gets on with it
			time.Sleep(3 * time.Second / 2)
			shared.put(t, src, ext, c.n)
			time.Sleep(time.Second / 2)
			synctest.Wait()
			if len(*got) != c.want {
				t.Errorf("%d blocks delivered, want the %d that are there", len(*got), c.want)
			}
		}
		if list := asked(src); list != nil {
			t.Errorf("asked for %v while another does", list)
		}
		release() // it does not bring the rest
		wg.Wait()
		if diff := cmp.Diff([]blockio.Extent{{Off: 200, Len: 100}, {Off: 400, Len: 100}}, asked(src)); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		if len(*got) != 5 {
			t.Errorf("%d blocks delivered in the end, want 5", len(*got))
		}
		if n := s.Stats().Class[blockio.Demand]; n != (fetch.ClassStats{Requests: 2, Bytes: 200, Used: 200}) {
			t.Errorf("stats %+v count what another process has fetched", n)
		}
	})
}

// A process that has claimed blocks and does not get on with it, as one that was
// stopped, is not waited for longer than some seconds.
func TestClaimIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(10, 100)...)
		shared := newStore()
		_, _ = process{shared, 1}.Claim(blockio.Extent{Off: 150, Len: 100}, blockio.Demand)
		s := fetch.New(src, ext, fetch.Options{Store: process{shared, 0}})
		defer s.Close()
		start := time.Now()
		deliver, _ := collect(t, src, ext)
		if err := s.ReadRun(t.Context(), blockio.Demand, 0, 5, deliver); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 2*time.Second || d > 3*time.Second {
			t.Errorf("waited %v, want about 2 s", d)
		}
		if diff := cmp.Diff([]blockio.Extent{{Off: 0, Len: 500}}, asked(src)); diff != "" {
			t.Errorf("requests (-want +got):\n%s", diff)
		}
		// Having waited in vain it does not wait for the next one.
		_, _ = process{shared, 1}.Claim(blockio.Extent{Off: 500, Len: 500}, blockio.Demand)
		start = time.Now()
		if err := s.ReadRun(t.Context(), blockio.Demand, 5, 5, deliver); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d != 0 {
			t.Errorf("waited %v for a second claim", d)
		}
	})
}

// Nor is one that gets on with it, but slowly, for much longer.
func TestSlowClaimIsGivenUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(20, 100)...)
		shared := newStore()
		_, _ = process{shared, 1}.Claim(blockio.Extent{Len: 2000}, blockio.Demand)
		s := fetch.New(src, ext, fetch.Options{Store: process{shared, 0}})
		defer s.Close()
		var other sync.WaitGroup
		other.Go(func() {
			for n := range int64(20) {
				time.Sleep(3 * time.Second / 2)
				shared.put(t, src, ext, n)
			}
		})
		start := time.Now()
		if err := s.ReadRun(t.Context(), blockio.Demand, 0, 20, ignore); err != nil {
			t.Fatal(err)
		}
		if d := time.Since(start); d < 10*time.Second || d > 11*time.Second {
			t.Errorf("waited %v, want about 10 s", d)
		}
		other.Wait()
	})
}

// A request that waits for another process is a reader's from when one joins it.
func TestClaimForReader(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(5, 100)...)
		shared := newStore()
		release, _ := process{shared, 1}.Claim(blockio.Extent{Len: 500}, blockio.Demand)
		s := fetch.New(src, ext, fetch.Options{Store: process{shared, 0}})
		defer s.Close()
		var wg sync.WaitGroup
		for _, c := range []struct{ joins, want blockio.Class }{
			{blockio.Fill, blockio.Fill},
			{blockio.Trace, blockio.Fill},
			{blockio.Demand, blockio.Demand},
			{blockio.Trace, blockio.Demand},
		} {
			wg.Go(func() {
				if err := s.ReadRun(t.Context(), c.joins, 0, 5, ignore); err != nil {
					t.Error(err)
				}
			})
			time.Sleep(time.Second / 4)
			shared.mu.Lock()
			if got := shared.tried[len(shared.tried)-1].Class; got != c.want {
				t.Errorf("when one of class %d had joined, the claim was for class %d, want %d", c.joins, got, c.want)
			}
			shared.mu.Unlock()
		}
		release()
		wg.Wait()
	})
}

// A reader that ends and a Scheduler that is closed wait for no other process.
func TestClaimKeepsNobody(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(5, 100)...)
		shared := newStore()
		_, _ = process{shared, 1}.Claim(blockio.Extent{Len: 500}, blockio.Demand)
		s := fetch.New(src, ext, fetch.Options{Store: process{shared, 0}})
		start := time.Now()
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if err := s.ReadRun(ctx, blockio.Demand, 0, 5, ignore); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the context's", err)
		}
		s.Close()
		if d := time.Since(start); d != time.Second {
			t.Errorf("ended after %v, want the reader's second", d)
		}
	})
}

// A request that fails lets go of what it has claimed, and keeps what has arrived.
func TestFailureReleasesTheClaim(t *testing.T) {
	src, ext := newImage(equal(4, 100)...)
	torn := errors.New("torn")
	src.Open = func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
		return io.MultiReader(io.LimitReader(body, 250), readerFunc(func([]byte) (int, error) { return 0, torn })), nil
	}
	shared := newStore()
	s := fetch.New(src, ext, fetch.Options{Store: process{shared, 0}})
	if err := s.ReadRun(t.Context(), blockio.Demand, 0, 4, ignore); !errors.Is(err, torn) {
		t.Errorf("error %v, want %v", err, torn)
	}
	s.Close()
	shared.unclaimed(t)
	if diff := cmp.Diff([]int64{0, 1}, shared.what()); diff != "" {
		t.Errorf("stored (-want +got):\n%s", diff)
	}
}

// slowStore takes a second to forget.
type slowStore struct{ process }

func (s slowStore) Forget(n int64, e blockio.Extent) {
	s.process.Forget(n, e)
	time.Sleep(time.Second)
}

// Who comes while a damaged block is being forgotten waits for the copy that passes
// all caches, too.
func TestDamagedWhileForgotten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		src, ext := newImage(equal(4, 100)...)
		shared := newStore()
		shared.put(t, src, ext, 1)
		shared.blocks[1][50] ^= 1
		s := fetch.New(src, ext, fetch.Options{Store: slowStore{process{shared, 0}}})
		defer s.Close()
		var wg sync.WaitGroup
		for range 3 {
			wg.Go(func() {
				deliver, got := collect(t, src, ext)
				if err := s.ReadRun(t.Context(), blockio.Demand, 1, 1, deliver); err != nil || len(*got) != 1 {
					t.Errorf("%d blocks, %v; want 1", len(*got), err)
				}
			})
			time.Sleep(400 * time.Millisecond)
		}
		wg.Wait()
		if again, all := refetches(src); all != 1 || len(again) != 1 {
			t.Errorf("%d requests, again %v; want one, again", all, again)
		}
	})
}
