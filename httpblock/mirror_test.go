package httpblock_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/internal/testserver"
)

// mirrors opens a file of several servers, the first at first, and waits until all of
// them are used.
func mirrors(t *testing.T, data []byte, first string, others ...string) *httpblock.Source {
	t.Helper()
	s := open(t, first, httpblock.Options{Mirrors: others})
	s.Join([]httpblock.Piece{{Off: 50_000, Bytes: data[50_000:54_096]}})
	for i := range others {
		awaitState(t, s, i+1, httpblock.Used, httpblock.Failing)
	}
	return s
}

// awaitState waits until the server of a number is in one of these states.
func awaitState(t *testing.T, s *httpblock.Source, server int, want ...httpblock.State) {
	t.Helper()
	var now httpblock.State
	for end := time.Now().Add(soon); time.Now().Before(end); time.Sleep(5 * time.Millisecond) {
		now = s.Stats()[server].State
		for _, w := range want {
			if now == w {
				return
			}
		}
	}
	t.Fatalf("server %d is %s, want %s", server, now, want)
}

// A mirror is asked when it was seen to have the file, and not before; one that has
// another file never.
func TestMirrorIsCompared(t *testing.T) {
	data := random(100_000)
	other := func(at int) []byte {
		p := bytes.Clone(data)
		p[at] ^= 1
		return p
	}
	tests := []struct {
		name string
		has  []byte
		want httpblock.State
	}{
		{"the same", data, httpblock.Used},
		{"another size", data[:99_999], httpblock.Banned},
		{"another head", other(10), httpblock.Banned},
		{"another piece", other(50_010), httpblock.Banned},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			a, b := newServer(t, data), newServer(t, test.has)
			s := open(t, a.URL("f"), httpblock.Options{Mirrors: []string{b.URL("f")}})
			if n := b.Stats().Requests; n != 0 {
				t.Errorf("the mirror was asked %d times before Join", n)
			}
			s.Join([]httpblock.Piece{{Off: 50_000, Bytes: data[50_000:54_096]}})
			awaitState(t, s, 1, test.want)
			a.Set(func(c *testserver.Config) { c.StatusTimes = -1 })
			body := openRange(t, s, 60_000, 1000)
			if test.want == httpblock.Used {
				readRange(t, s, data, 60_000, 1000)
				return
			}
			before := b.Stats().Requests
			a.Set(func(c *testserver.Config) { c.StatusTimes = 3 })
			if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, data[60_000:61_000]) {
				t.Errorf("got %d bytes, error %v", len(got), err)
			}
			if n := b.Stats().Requests - before; n != 0 {
				t.Errorf("a mirror with another file was asked %d times", n)
			}
		})
	}
}

// What tells the server of the URL who we are is not told to mirrors.
func TestMirrorGetsNoCredentials(t *testing.T) {
	data := random(100_000)
	var mu sync.Mutex
	var seen []http.Header
	mirror := serve(t, func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		seen = append(seen, r.Header.Clone())
		mu.Unlock()
		content(w, r, data)
	})
	a := newServer(t, data)
	s := open(t, a.URL("f"), httpblock.Options{
		Mirrors: []string{"http://m:p@" + mirror[len("http://"):]},
		Header:  http.Header{"X-Secret": {"s"}}, Token: func() (string, error) { return "token", nil },
	})
	s.Join(nil)
	awaitState(t, s, 1, httpblock.Used)
	mu.Lock()
	defer mu.Unlock()
	if len(seen) == 0 {
		t.Fatal("the mirror was not asked")
	}
	for _, h := range seen {
		if h.Get("X-Secret") != "" || h.Get("Authorization") != "Basic bTpw" {
			t.Errorf("the mirror was sent %v", h)
		}
	}
}

// Where the URL's server does not answer, a mirror opens the file.
func TestMirrorOpens(t *testing.T) {
	data := random(100_000)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	b := newServer(t, data)
	s := mirrors(t, data, b.URL("f"))
	within(t, func() {
		s = open(t, gone.URL+"/f", httpblock.Options{Mirrors: []string{b.URL("f")}})
	})
	readRange(t, s, data, 60_000, 1000)
	if got := s.Copy().URL.String(); got != b.URL("f") {
		t.Errorf("found at %s, want %s", got, b.URL("f"))
	}
}

// Every kind of failure of one server is mended by another, at once.
func TestMirrorTakesOver(t *testing.T) {
	data := random(300_000)
	tests := []struct {
		name  string
		fault func(*testserver.Config)
	}{
		{"503", func(c *testserver.Config) { c.StatusTimes = -1 }},
		{"404", func(c *testserver.Config) { c.StatusTimes, c.Status = -1, 404 }},
		{"reset", func(c *testserver.Config) { c.Reset = -1 }},
		{"cut off", func(c *testserver.Config) { c.Truncate = -1 }},
		{"changed", func(c *testserver.Config) { c.ETag = `"other"` }},
		{"no ranges", func(c *testserver.Config) { c.IgnoreRange = true }},
		{"hangs", func(c *testserver.Config) { c.Hang = testserver.HangBeforeHeaders }},
		{"hangs in the body", func(c *testserver.Config) { c.Hang = testserver.HangMidBody }},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			a, b := newServer(t, data), newServer(t, data)
			s := mirrors(t, data, a.URL("f"), b.URL("f"))
			a.Set(test.fault)
			for i := range int64(20) {
				readRange(t, s, data, 10_000*i, 10_000)
			}
			awaitState(t, s, 0, httpblock.Left)
			if n := b.Stats().Requests; n < 18 {
				t.Errorf("%d requests to the mirror, want most of 20", n)
			}
			a.Set(func(c *testserver.Config) { *c = testserver.Config{} })
			awaitState(t, s, 0, httpblock.Used, httpblock.Failing)
		})
	}
}

// Two mirrors, one goes silent under load: no read takes longer than 2 s more, none
// fails, and it is used again when it is back.
func TestSilentMirror(t *testing.T) {
	tests := []struct {
		name string
		hang testserver.Hang
	}{
		{"before the headers", testserver.HangBeforeHeaders},
		{"in the body", testserver.HangMidBody},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			data := random(1_000_000)
			a, b := newServer(t, data), newServer(t, data)
			s := mirrors(t, data, a.URL("f"), b.URL("f"))
			slowest, stop := keepReading(t, s, data, 16)
			time.Sleep(300 * time.Millisecond)
			usual := slowest()
			a.Set(func(c *testserver.Config) { c.Hang = test.hang })
			time.Sleep(3 * time.Second)
			if d := slowest(); d > usual+2*time.Second {
				t.Errorf("a read took %v, before that %v", d, usual)
			}
			before := a.Stats().Requests
			a.Set(func(c *testserver.Config) { c.Hang = testserver.HangNone })
			awaitState(t, s, 0, httpblock.Used)
			b.Set(func(c *testserver.Config) { c.RTT = 300 * time.Millisecond }) // so that it is the worse one
			for end := time.Now().Add(soon); a.Stats().Requests < before+50; time.Sleep(10 * time.Millisecond) {
				if time.Now().After(end) {
					t.Fatalf("%d requests since it is back", a.Stats().Requests-before)
				}
			}
			stop()
		})
	}
}

// keepReading reads with so many readers until stop is called. slowest is the longest
// that a read has taken since it was asked last.
func keepReading(t *testing.T, s *httpblock.Source, data []byte, readers int) (slowest func() time.Duration, stop func()) {
	var mu sync.Mutex
	var longest time.Duration
	var wg sync.WaitGroup
	done := make(chan struct{})
	for i := range readers {
		wg.Go(func() {
			for n := i; ; n += readers {
				select {
				case <-done:
					return
				default:
				}
				begin := time.Now()
				readRange(t, s, data, int64(n%90)*10_000, 10_000)
				if t.Failed() {
					return
				}
				mu.Lock()
				longest = max(longest, time.Since(begin))
				mu.Unlock()
			}
		})
	}
	slowest = func() time.Duration {
		mu.Lock()
		defer mu.Unlock()
		d := longest
		longest = 0
		return d
	}
	stop = sync.OnceFunc(func() { close(done); wg.Wait() })
	t.Cleanup(stop)
	return slowest, stop
}

// A slow server is asked for little, by readers and in the background.
func TestSlowMirror(t *testing.T) {
	t.Parallel()
	const fast = 8 << 20
	data := random(4 << 20)
	var servers []*testserver.Server
	var urls []string
	for range 3 {
		srv := newServer(t, data)
		srv.Set(func(c *testserver.Config) { c.Rate, c.RTT = fast, 10*time.Millisecond })
		servers, urls = append(servers, srv), append(urls, srv.URL("f"))
	}
	s := mirrors(t, data, urls[0], urls[1:]...)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for i := range 12 {
		class := blockio.Class(i % 2 * int(blockio.Fill))
		wg.Go(func() {
			for n := 0; ; n++ {
				select {
				case <-stop:
					return
				default:
				}
				e := blockio.Extent{Off: int64((n*12 + i) % 30 * (128 << 10)), Len: 128 << 10}
				body, err := s.OpenRange(t.Context(), blockio.Range{Extent: e, Class: class})
				if err != nil {
					t.Error(err)
					return
				}
				got, err := io.ReadAll(body)
				body.Close()
				if err != nil || !bytes.Equal(got, data[e.Off:e.End()]) {
					t.Errorf("got %d bytes, error %v", len(got), err)
				}
			}
		})
	}
	count := func() (all, slow int) {
		for i, srv := range servers {
			n := srv.Stats().Requests
			all += n
			if i == 0 {
				slow = n
			}
		}
		return all, slow
	}
	time.Sleep(2 * time.Second)
	all, slow := count()
	if 6*slow < all {
		t.Errorf("of %d requests %d went to a server as fast as two others", all, slow)
	}
	servers[0].Set(func(c *testserver.Config) { c.Rate, c.RTT = fast/10, 100*time.Millisecond })
	time.Sleep(5 * time.Second)
	all0, slow0 := count()
	time.Sleep(10 * time.Second)
	all, slow = count()
	close(stop)
	wg.Wait()
	all, slow = all-all0, slow-slow0
	t.Logf("%d of %d requests", slow, all)
	if all < 100 || 20*slow >= all {
		t.Errorf("of %d requests %d went to the slow server", all, slow)
	}
}

// What a reader waits for is asked for a second time, elsewhere, where the answer is
// late; not often. Who loses is told.
func TestHedge(t *testing.T) {
	t.Parallel()
	const usual, every, reads = 20 * time.Millisecond, 100, 400
	data := random(1_000_000)
	var on atomic.Bool
	var asked, lost atomic.Int64
	late := func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(usual)
		if asked.Add(1)%every == 0 && on.Load() {
			select {
			case <-time.After(soon):
			case <-r.Context().Done():
				lost.Add(1)
				return
			}
		}
		content(w, r, data)
	}
	s := mirrors(t, data, serve(t, late), serve(t, late))
	on.Store(true)
	before := asked.Load()
	slow := 0
	for i := range int64(reads) {
		begin := time.Now()
		readRange(t, s, data, i%90*10_000, 1000)
		if time.Since(begin) > 800*time.Millisecond { // a silent server is left after a second
			slow++
		}
	}
	if slow > 1 {
		t.Errorf("%d reads have waited for an answer that was late, of %d", slow, reads/every)
	}
	if n := asked.Load() - before; n > reads+reads/50+1 {
		t.Errorf("%d requests for %d reads", n, reads)
	}
	for end := time.Now().Add(soon); lost.Load() < reads/every-1; time.Sleep(10 * time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d of those that were late were told that nobody waits", lost.Load())
		}
	}
	if due, open := httpblock.Outstanding(s); due != 0 || open != 0 {
		t.Errorf("%d bytes of %d requests are expected, and nothing is under way", due, open)
	}
}

// What nobody waits for is asked for once.
func TestBackgroundIsNotHedged(t *testing.T) {
	data := random(1_000_000)
	var on atomic.Bool
	var asked atomic.Int64
	late := func(w http.ResponseWriter, r *http.Request) {
		asked.Add(1)
		if on.Load() {
			time.Sleep(300 * time.Millisecond)
		}
		content(w, r, data)
	}
	s := mirrors(t, data, serve(t, late), serve(t, late))
	for i := range int64(100) { // so that there is something to compare with
		readRange(t, s, data, i%90*10_000, 1000)
	}
	on.Store(true)
	before := asked.Load()
	body, err := s.OpenRange(t.Context(), blockio.Range{Extent: blockio.Extent{Off: 500_000, Len: 1000}, Class: blockio.ReadAhead})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, data[500_000:501_000]) {
		t.Errorf("got %d bytes, error %v", len(got), err)
	}
	if n := asked.Load() - before; n != 1 {
		t.Errorf("%d requests, want 1", n)
	}
}

// Who sends wrong bytes is named, and not asked again.
func TestMirrorWithWrongBytes(t *testing.T) {
	data := random(1_000_000)
	a, b := newServer(t, data), newServer(t, data)
	s := mirrors(t, data, a.URL("f"), b.URL("f"))
	b.Set(func(c *testserver.Config) { c.RTT = 20 * time.Millisecond })
	a.Set(func(c *testserver.Config) { c.FlipTimes, c.FlipOffset = 1, 600_500 })
	e := blockio.Extent{Off: 600_000, Len: 1000}
	got, err := io.ReadAll(openRange(t, s, e.Off, e.Len))
	if err != nil || bytes.Equal(got, data[e.Off:e.End()]) {
		t.Fatalf("got the right bytes (error %v): it was to be damaged", err)
	}
	refetch(t, s, data, e.Off, e.Len)
	if n := b.Stats().Ranges; n[len(n)-1].Off != e.Off {
		t.Errorf("it was not asked for elsewhere: %v", n)
	}
	s.Blame(e)
	awaitState(t, s, 0, httpblock.Banned)
	before := a.Stats().Requests
	for i := range int64(50) {
		readRange(t, s, data, i*10_000, 1000)
	}
	if n := a.Stats().Requests - before; n != 0 {
		t.Errorf("asked %d times after that", n)
	}
	if st := s.Stats()[0]; st.LastError != "it has sent wrong bytes" {
		t.Errorf("named as %+v", st)
	}
	// The last one stays, whatever it sends.
	refetch(t, s, data, e.Off, e.Len)
	s.Blame(e)
	readRange(t, s, data, 0, 1000)
}

// The last server that may be asked is not banned: what fails then is the read.
func TestLastServerStays(t *testing.T) {
	data := random(100_000)
	gone := httptest.NewServer(http.NotFoundHandler())
	gone.Close()
	a := newServer(t, data)
	a.Set(func(c *testserver.Config) { c.ETag = `"a"` })
	s := open(t, a.URL("f"), httpblock.Options{Mirrors: []string{gone.URL + "/f"}, Timeout: 3 * time.Second})
	s.Join([]httpblock.Piece{{Off: 50_000, Bytes: data[50_000:54_096]}})
	a.Set(func(c *testserver.Config) { c.StatusTimes = 1 })
	readRange(t, s, data, 60_000, 1000)
	other := bytes.Clone(data)
	for i := 1000; i < len(other); i++ {
		other[i] ^= 1
	}
	a.AddBytes("f", other)
	a.Set(func(c *testserver.Config) { c.StatusTimes = 1 })
	for i := range int64(30) {
		if got, err := readAt(t.Context(), s, 1000, 60_000+1000*i); err != nil || len(got) != 1000 {
			t.Errorf("got %d bytes, error %v", len(got), err)
		}
		time.Sleep(100 * time.Millisecond)
	}
	if st := s.Stats()[0].State; st == httpblock.Banned {
		t.Error("the only server is banned")
	}
}

// What a reader does between two reads is no fault of the server.
func TestSlowReaderLeavesNobody(t *testing.T) {
	t.Parallel()
	data := random(4_000_000)
	a, b := newServer(t, data), newServer(t, data)
	s := mirrors(t, data, a.URL("f"), b.URL("f"))
	body := openRange(t, s, 100_000, 3_800_000)
	if _, err := io.ReadFull(body, make([]byte, 100_000)); err != nil {
		t.Fatal(err)
	}
	time.Sleep(1500 * time.Millisecond)
	if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, data[200_000:3_900_000]) {
		t.Errorf("got %d bytes, error %v", len(got), err)
	}
	for i, st := range s.Stats() {
		if st.State != httpblock.Used || st.Failed > 0 {
			t.Errorf("server %d: %+v", i, st)
		}
	}
}

// One reader's end of patience, or his own, says nothing of servers that were not asked; and of
// three the last is asked in time.
func TestPatienceIsShared(t *testing.T) {
	t.Parallel()
	data := random(1_000_000)
	var servers []*testserver.Server
	var urls []string
	for range 3 {
		srv := newServer(t, data)
		servers, urls = append(servers, srv), append(urls, srv.URL("f"))
	}
	s := open(t, urls[0], httpblock.Options{Mirrors: urls[1:], Timeout: 2 * time.Second})
	s.Join([]httpblock.Piece{{Off: 50_000, Bytes: data[50_000:54_096]}})
	awaitState(t, s, 1, httpblock.Used)
	awaitState(t, s, 2, httpblock.Used)
	ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer cancel()
	for _, srv := range servers {
		srv.Set(func(c *testserver.Config) { c.Hang = testserver.HangBeforeHeaders })
	}
	if _, err := readAt(ctx, s, 1000, 60_000); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
	}
	for i := range servers {
		awaitState(t, s, i, httpblock.Used)
	}
	servers[2].Set(func(c *testserver.Config) { c.Hang = testserver.HangNone })
	readRange(t, s, data, 70_000, 1000)
	awaitState(t, s, 2, httpblock.Used)

	opened := make(chan struct{})
	go func() {
		defer close(opened)
		open(t, urls[0], httpblock.Options{Mirrors: urls[1:], Timeout: 2 * time.Second})
	}()
	waitFor(t, "opened by the third", opened)
}

// A server that wants to be left alone for a minute keeps nobody from another.
func TestRetryAfterOfOneServer(t *testing.T) {
	t.Parallel()
	data := random(100_000)
	a, b := newServer(t, data), newServer(t, data)
	s := mirrors(t, data, a.URL("f"), b.URL("f"))
	a.Set(func(c *testserver.Config) { c.StatusTimes, c.RetryAfter = -1, "60" })
	b.Set(func(c *testserver.Config) { c.StatusTimes = 1 })
	before := a.Stats().Requests
	if d := within(t, func() { readRange(t, s, data, 60_000, 1000) }); d > 5*time.Second {
		t.Errorf("it took %v", d)
	}
	time.Sleep(2500 * time.Millisecond)
	if n := a.Stats().Requests - before; n > 3 {
		t.Errorf("asked %d times, while it wants to be left alone", n)
	}
}

// A server that fails now and then is used again after a pause, and not by what was asked
// for before.
func TestFlappingServer(t *testing.T) {
	t.Parallel()
	data := random(1_000_000)
	var asked atomic.Int64
	var on atomic.Bool
	flapping := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if on.Load() && asked.Add(1)%3 == 0 {
			w.WriteHeader(http.StatusInternalServerError)
			return
		}
		content(w, r, data)
	})
	b := newServer(t, data)
	s := mirrors(t, data, b.URL("f"), flapping)
	on.Store(true)
	b.Set(func(c *testserver.Config) { c.RTT = 20 * time.Millisecond })
	_, stop := keepReading(t, s, data, 16)
	time.Sleep(3 * time.Second)
	stop()
	if st := s.Stats()[1]; st.Failed > 60 { // 16 at a time, for three times
		t.Errorf("failed %d times", st.Failed)
	}
}

// A server that is not asked for anything is measured, while others are.
func TestIdleServerIsMeasured(t *testing.T) {
	t.Parallel()
	data := random(1_000_000)
	a, b := newServer(t, data), newServer(t, data)
	b.Set(func(c *testserver.Config) { c.RTT = 200 * time.Millisecond })
	s := open(t, a.URL("f"), httpblock.Options{Mirrors: []string{b.URL("f")}})
	httpblock.SetMeasureTime(s, 100*time.Millisecond)
	s.Join([]httpblock.Piece{{Off: 50_000, Bytes: data[50_000:54_096]}})
	awaitState(t, s, 1, httpblock.Used)
	before := b.Stats().Requests
	for end := time.Now().Add(soon); b.Stats().Requests < before+3; time.Sleep(5 * time.Millisecond) {
		readRange(t, s, data, 60_000, 1000)
		if time.Now().After(end) {
			t.Fatalf("measured %d times", b.Stats().Requests-before)
		}
	}
	for _, r := range b.Stats().Ranges[before:] {
		if r.Len != 64<<10 && r.Len != 1000 {
			t.Errorf("asked for %d bytes", r.Len)
		}
	}
}
