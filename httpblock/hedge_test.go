package httpblock_test

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/httpblock"
)

// usual is how long the servers of these tests take to answer, as a rule.
const usual = 10 * time.Millisecond

// hedged is a server that is late, or fails, once told to.
type hedged struct {
	data   []byte
	asked  atomic.Int64
	lost   atomic.Int64 // that the client did not wait for
	delay  atomic.Int64 // of each answer
	status atomic.Int64 // of answers that fail
	fails  atomic.Int64 // how many of the next ones do
}

func (h *hedged) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	h.asked.Add(1)
	fails := h.fails.Add(-1) >= 0
	select {
	case <-time.After(time.Duration(h.delay.Load())):
	case <-r.Context().Done():
		h.lost.Add(1)
		return
	}
	if fails {
		w.WriteHeader(int(h.status.Load()))
		return
	}
	content(w, r, h.data)
}

func (h *hedged) set(delay time.Duration, status, fails int64) {
	h.delay.Store(int64(delay))
	h.status.Store(status)
	h.fails.Store(fails)
	h.asked.Store(0)
	h.lost.Store(0)
}

// hedgedMirrors opens a file of two servers, and reads so often that it is known how long
// they take: readers' requests go to a.
func (n *network) hedgedMirrors(t *testing.T) (a, b *hedged, s *httpblock.Source) {
	data := random(1_000_000)
	a, b = &hedged{data: data}, &hedged{data: data}
	a.set(usual, 0, 0)
	b.set(usual, 0, 0)
	s = n.mirrors(t, data, n.serve(t, a.ServeHTTP), n.serve(t, b.ServeHTTP))
	a.asked.Store(0)
	for i := range int64(100) {
		readRange(t, s, data, i%90*10_000, 1000)
	}
	if a.asked.Load() != 100 {
		t.Fatalf("asked the first %d times of 100", a.asked.Load())
	}
	return a, b, s
}

// watched is a context that never ends, and counts who waits for that.
type watched struct {
	context.Context
	done     chan struct{}
	watchers *atomic.Int64
}

func (w watched) Done() <-chan struct{} { return w.done }

// AfterFunc is called by package context for each context that is derived.
func (w watched) AfterFunc(func()) (stop func() bool) {
	w.watchers.Add(1)
	return func() bool {
		w.watchers.Add(-1)
		return true
	}
}

// What a reader waits for is asked for a second time, elsewhere, where the answer is late:
// the first that brings data counts, and who loses is told.
func TestHedge(t *testing.T) {
	const ms, late = time.Millisecond, 3 * usual
	type server struct {
		delay         time.Duration
		status, fails int64
	}
	tests := []struct {
		name   string
		a, b   server
		class  blockio.Class
		took   time.Duration
		asked  [2]int64
		lost   [2]int64
		states [2]blockio.ServerState
	}{
		{"in time", server{delay: late - 1}, server{delay: 0}, blockio.Demand, late - 1, [2]int64{1, 0}, [2]int64{}, [2]blockio.ServerState{"ok", "ok"}},
		{"late", server{delay: time.Minute}, server{delay: 5 * ms}, blockio.Demand, late + 5*ms, [2]int64{1, 1}, [2]int64{1, 0}, [2]blockio.ServerState{"ok", "ok"}},
		{"the other is later", server{delay: 100 * ms}, server{delay: time.Minute}, blockio.Demand, 100 * ms, [2]int64{1, 1}, [2]int64{0, 1}, [2]blockio.ServerState{"ok", "ok"}},
		{"nobody waits", server{delay: 100 * ms}, server{delay: 0}, blockio.ReadAhead, 100 * ms, [2]int64{1, 0}, [2]int64{}, [2]blockio.ServerState{"ok", "ok"}},
		{"it fails", server{50 * ms, 500, 1}, server{delay: 100 * ms}, blockio.Demand, late + 100*ms, [2]int64{1, 1}, [2]int64{}, [2]blockio.ServerState{"left", "ok"}},
		{"it fails in time", server{20 * ms, 500, 1}, server{delay: 100 * ms}, blockio.Demand, 120 * ms, [2]int64{1, 1}, [2]int64{}, [2]blockio.ServerState{"left", "ok"}},
		{"the other fails", server{delay: 100 * ms}, server{20 * ms, 500, 1}, blockio.Demand, 100 * ms, [2]int64{1, 1}, [2]int64{}, [2]blockio.ServerState{"ok", "left"}},
		// The other is asked once more then, by itself.
		{"both fail", server{50 * ms, 503, 1}, server{50 * ms, 404, 1}, blockio.Demand, late + 100*ms, [2]int64{1, 2}, [2]int64{}, [2]blockio.ServerState{"left", "ok"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			virtual(t, func(t *testing.T, net *network) {
				a, b, s := net.hedgedMirrors(t)
				a.set(test.a.delay, test.a.status, test.a.fails)
				b.set(test.b.delay, test.b.status, test.b.fails)
				ctx := watched{t.Context(), make(chan struct{}), new(atomic.Int64)}
				body, err := s.OpenRange(ctx, blockio.Range{Extent: blockio.Extent{Off: 500_000, Len: 1000}, Class: test.class})
				if err != nil {
					t.Fatal(err)
				}
				defer body.Close()
				begin := time.Now()
				if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, a.data[500_000:501_000]) {
					t.Errorf("got %d bytes, error %v", len(got), err)
				}
				if took := time.Since(begin); took != test.took {
					t.Errorf("it took %v, want %v", took, test.took)
				}
				synctest.Wait()
				if got := [2]int64{a.asked.Load(), b.asked.Load()}; got != test.asked {
					t.Errorf("asked %v times, want %v", got, test.asked)
				}
				if got := [2]int64{a.lost.Load(), b.lost.Load()}; got != test.lost {
					t.Errorf("told %v times that nobody waits, want %v", got, test.lost)
				}
				if got := [2]blockio.ServerState{s.Servers()[0].State, s.Servers()[1].State}; got != test.states {
					t.Errorf("states %v, want %v", got, test.states)
				}
				if n := ctx.watchers.Load(); n != 0 {
					t.Errorf("%d wait for the end of the reader's context, and he has what he wants", n)
				}
				if due, open := httpblock.Outstanding(s); due != 0 || open != 0 {
					t.Errorf("%d bytes of %d requests are expected, and nothing is under way", due, open)
				}
			})
		})
	}
}

// Where both answer in the same moment the second answer is dropped.
func TestHedgeTie(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		a, b, s := net.hedgedMirrors(t)
		a.set(100*time.Millisecond, 0, 0)
		b.set(100*time.Millisecond-3*usual, 0, 0)
		readRange(t, s, a.data, 500_000, 1000)
		synctest.Wait()
		if due, open := httpblock.Outstanding(s); due != 0 || open != 0 {
			t.Errorf("%d bytes of %d requests are expected, and nothing is under way", due, open)
		}
	})
}

// Where both fail, and the other for good, the server is asked once more.
func TestHedgeFailsForGood(t *testing.T) {
	for _, delay := range []time.Duration{50 * time.Millisecond, 200 * time.Millisecond} { // before the other, and after it
		virtual(t, func(t *testing.T, net *network) {
			a, b, s := net.hedgedMirrors(t)
			a.set(delay, 503, 1)
			b.set(50*time.Millisecond, 404, 1000)
			readRange(t, s, a.data, 500_000, 1000)
		})
	}
}

// At most one request in fifty is made twice, also where all would be late.
func TestHedgesAreFew(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		a, b, s := net.hedgedMirrors(t)
		a.set(100*time.Millisecond, 0, 0)
		b.set(usual, 0, 0)
		const reads = 50
		for i := range int64(reads) {
			readRange(t, s, a.data, i%90*10_000, 1000)
		}
		if n := a.asked.Load() + b.asked.Load() - reads; n < 1 || n > (100+reads)/50 {
			t.Errorf("%d requests were made twice, of %d", n, 100+reads)
		}
	})
}
