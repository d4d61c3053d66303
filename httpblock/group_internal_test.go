package httpblock

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// fakes returns a group of servers that answer within these times, and bring 1 MB in a second
// each.
func fakes(first ...time.Duration) *group {
	var servers []*server
	for _, d := range first {
		v := &server{url: new(url.URL), health: healthy, woken: make(chan struct{}, 1)}
		v.count.allowed.Store(32)
		v.speed.responded(d)
		v.speed.moved(1_000_000, time.Second)
		servers = append(servers, v)
	}
	return newGroup(servers, servers[0], slog.New(slog.DiscardHandler))
}

func TestChoose(t *testing.T) {
	const ms = time.Millisecond
	small := blockio.Range{Extent: blockio.Extent{Len: 100}}
	behind := small
	behind.Class = blockio.Fill
	tests := []struct {
		name  string
		first []time.Duration
		set   func(g *group)
		r     blockio.Range
		want  int
	}{
		{"the one before, though another is a little better", []time.Duration{20 * ms, 16 * ms}, nil, small, 0},
		{"another that is much better", []time.Duration{20 * ms, 14 * ms}, nil, small, 1},
		{"the best one, where nobody waits", []time.Duration{20 * ms, 16 * ms}, nil, behind, 1},
		{"from which less is due", []time.Duration{20 * ms, 20 * ms}, func(g *group) { g.servers[0].speed.expect(100_000, 1) }, small, 1},
		{"the healthy one", []time.Duration{20 * ms, 900 * ms}, func(g *group) { g.servers[0].health = left }, small, 1},
		{"any, where none is healthy", []time.Duration{20 * ms, 900 * ms}, func(g *group) { g.servers[0].health, g.servers[1].health = left, left }, small, 0},
		{"not one that is banned", []time.Duration{20 * ms, 900 * ms}, func(g *group) { g.servers[0].health, g.servers[1].health = banned, left }, small, 1},
		{"not one that is joining", []time.Duration{20 * ms, 1 * ms}, func(g *group) { g.servers[1].health = joining }, small, 0},
		{"not one that wants less", []time.Duration{20 * ms, 900 * ms}, func(g *group) {
			g.servers[0].count.allowed.Store(1)
			g.servers[0].speed.expect(0, 1)
		}, small, 1},
		{"not a slow one, for much", []time.Duration{20 * ms, 10 * ms}, func(g *group) {
			g.servers[1].speed.bytes = 10_000
		}, blockio.Range{Extent: blockio.Extent{Len: 100_000}, Class: blockio.Fill}, 0},
		{"who has shown no rate is taken for the fastest, and no more", []time.Duration{20 * ms, 30 * ms}, func(g *group) {
			g.servers[1].speed.bytes, g.servers[1].speed.seconds = 0, 0
		}, blockio.Range{Extent: blockio.Extent{Len: 100_000}, Class: blockio.Fill}, 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			g := fakes(test.first...)
			if test.set != nil {
				test.set(g)
			}
			if got := g.choose(test.r, nil); got != g.servers[test.want] {
				t.Errorf("chose another than %d", test.want)
			}
		})
	}
}

// Who is to blame is told only where that is beyond doubt.
func TestCulprit(t *testing.T) {
	a, b, c := new(server), new(server), new(server)
	e := blockio.Extent{Off: 100, Len: 50}
	whole := blockio.Extent{Off: 0, Len: 1000}
	tests := []struct {
		name   string
		before []delivery
		after  []delivery
		want   *server
	}{
		{"another's copy was right", []delivery{{whole, a}}, []delivery{{e, b}}, a},
		{"his own second copy was right", []delivery{{whole, a}}, []delivery{{e, a}}, nil},
		{"nobody knows who", nil, []delivery{{e, b}}, nil},
		{"two have sent it", []delivery{{blockio.Extent{Off: 0, Len: 120}, a}, {blockio.Extent{Off: 120, Len: 100}, b}}, []delivery{{e, c}}, nil},
		{"two have sent it, the first half last", []delivery{{blockio.Extent{Off: 120, Len: 100}, b}, {blockio.Extent{Off: 0, Len: 120}, a}}, []delivery{{e, c}}, nil},
		{"the one who sent it last", []delivery{{whole, b}, {whole, a}}, []delivery{{e, b}}, a},
		{"neighbours are another matter", []delivery{{whole, a}, {blockio.Extent{Off: 50, Len: 50}, b}, {blockio.Extent{Off: 150, Len: 50}, b}}, []delivery{{e, b}}, a},
		{"two bring the second copy", []delivery{{whole, a}}, []delivery{{blockio.Extent{Off: 100, Len: 20}, b}, {blockio.Extent{Off: 120, Len: 30}, c}}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var s sent
			for _, d := range test.before {
				s.note(d.extent, d.srv)
			}
			s.doubt(e)
			for _, d := range test.after {
				s.note(d.extent, d.srv)
			}
			if got := s.culprit(e); got != test.want {
				t.Errorf("got %p, want %p", got, test.want)
			}
		})
	}
}

// Only bytes that are to be had again are in doubt.
func TestDoubt(t *testing.T) {
	g := fakes(0, 0)
	r := blockio.Range{Extent: blockio.Extent{Off: 100, Len: 50}}
	g.note(r.Extent, g.servers[1])
	if v := g.doubt(r); v != nil {
		t.Error("bytes are in doubt that are read once more")
	}
	r.Refetch = true
	if v := g.doubt(r); v != g.servers[1] {
		t.Error("who has sent what is in doubt is not known")
	}
}

// What is remembered of deliveries is bounded.
func TestSentIsBounded(t *testing.T) {
	var s sent
	v := new(server)
	for i := range int64(10 * maxSent) {
		s.note(blockio.Extent{Off: i * 10, Len: 10}, v)
		s.doubt(blockio.Extent{Off: i * 10, Len: 10})
	}
	if len(s.all) > maxSent || len(s.doubted) > maxDoubted || cap(s.all) > 2*maxSent {
		t.Errorf("%d deliveries and %d doubts are remembered", len(s.all), len(s.doubted))
	}
}

// The last server is not banned, whatever it has sent.
func TestBlameOfTheLast(t *testing.T) {
	e := blockio.Extent{Off: 100, Len: 50}
	for _, other := range []health{healthy, left, banned} {
		g := fakes(time.Millisecond, time.Millisecond)
		s := &Source{group: g, servers: g.servers}
		g.sent.note(e, g.servers[0])
		g.sent.doubt(e)
		g.sent.note(e, g.servers[1])
		g.servers[1].health = other
		s.Blame(e)
		if got, want := g.servers[0].health == banned, other == healthy; got != want {
			t.Errorf("the other is %d: banned is %v, want %v", other, got, want)
		}
	}
}

// Only a reader's own request makes a server the preferred one.
func TestPreferred(t *testing.T) {
	const ms = time.Millisecond
	tests := []struct {
		name  string
		class blockio.Class
		first []time.Duration
		tried int // servers
		want  int
	}{
		{"a better one", blockio.Demand, []time.Duration{20 * ms, 10 * ms}, 0, 1},
		{"in the background", blockio.Fill, []time.Duration{20 * ms, 10 * ms}, 0, 0},
		{"instead of another", blockio.Demand, []time.Duration{10 * ms, 20 * ms}, 1, 0},
	}
	for _, test := range tests {
		g := fakes(test.first...)
		if g.choose(blockio.Range{Extent: blockio.Extent{Len: 100}, Class: test.class}, g.servers[:test.tried]) != g.servers[1] {
			t.Errorf("%s: chose another than 1", test.name)
		}
		if g.preferred() != g.servers[test.want] {
			t.Errorf("%s: prefers another than %d", test.name, test.want)
		}
	}
}

// Who has the file is told from who may be asked for it.
func TestHealth(t *testing.T) {
	g := fakes(0, 0, 0, 0)
	var bad StatusError
	wants := []struct {
		health         health
		joined, usable bool
		ok, failing    blockio.ServerState // what is said of it if the last answer brought data, and if not
	}{
		{joining, false, false, blockio.ServerJoining, blockio.ServerJoining},
		{healthy, true, true, blockio.ServerOK, blockio.ServerFailing},
		{left, true, true, blockio.ServerLeft, blockio.ServerLeft},
		{banned, false, false, blockio.ServerBanned, blockio.ServerBanned},
	}
	for i, want := range wants {
		v := g.servers[i]
		v.health, v.why = want.health, &bad
		if got := g.usable(v); got != want.usable {
			t.Errorf("%v: usable is %v", want.ok, got)
		}
		for ok, want := range map[bool]blockio.ServerState{true: want.ok, false: want.failing} {
			if got, _, _ := g.state(v, blockio.Server{OK: ok}); got != want {
				t.Errorf("state %v, want %v", got, want)
			}
		}
		if got := slices.Contains(g.joined(), v); got != want.joined {
			t.Errorf("%v: joined is %v", want.ok, got)
		}
	}
	if g.usable(nil) {
		t.Error("nobody can be asked")
	}
}

// However many are blamed at once, one stays; who has never been used may go.
func TestLastIsNotBanned(t *testing.T) {
	for range 100 {
		g := fakes(0, 0, 0)
		g.servers[2].health = joining
		var both sync.WaitGroup
		for _, v := range g.servers {
			both.Go(func() { g.ban(v, errWrongBytes) })
		}
		both.Wait()
		if n := len(slices.DeleteFunc(g.servers, func(v *server) bool { return v.health == banned })); n != 1 {
			t.Fatalf("%d servers are left, want 1", n)
		}
	}
}

// The patience with one of several servers.
func TestPatienceOfGroup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		in := func(d time.Duration) time.Time { return time.Now().Add(d) }
		tests := []struct {
			name   string
			answer time.Duration // it takes
			until  time.Time
			tried  int
			health []health
			want   time.Duration
		}{
			{"a fast one", time.Millisecond, time.Time{}, 0, []health{healthy, healthy}, time.Second},
			{"a slow one", 600 * time.Millisecond, time.Time{}, 0, []health{healthy, healthy}, 2400 * time.Millisecond},
			{"a very slow one", time.Minute, time.Time{}, 0, []health{healthy, healthy}, maxSilence},
			{"shared by two", time.Minute, in(4 * time.Second), 0, []health{healthy, left}, 2 * time.Second},
			{"shared by those that have the file", time.Minute, in(4 * time.Second), 0, []health{healthy, banned, joining, left}, 2 * time.Second},
			{"shared by those that are left", time.Minute, in(4 * time.Second), 1, []health{healthy, healthy, healthy}, 2 * time.Second},
			{"of the last", time.Minute, in(4 * time.Second), 1, []health{healthy, healthy}, maxSilence},
			{"alone", time.Minute, in(4 * time.Second), 0, []health{healthy}, time.Second},
		}
		for _, test := range tests {
			g := fakes(make([]time.Duration, len(test.health))...)
			for i, h := range test.health {
				g.servers[i].health = h
			}
			g.servers[0].speed.first = test.answer.Seconds()
			if got := g.patience(g.servers[0], patience{stall: time.Second, until: test.until}, test.tried); got.stall != test.want {
				t.Errorf("%s: %v, want %v", test.name, got.stall, test.want)
			}
		}
	})
}

// Who fails is left, and told so once, unless it was not his doing; and healed when he
// answers and nobody else is healthy.
func TestLeaveAndHeal(t *testing.T) {
	over, cancel := context.WithCancel(context.Background())
	cancel()
	reset := errors.New("reset")
	tests := []struct {
		name    string
		ctx     context.Context
		until   time.Duration // of the patience; 0: for ever
		err     error
		servers int
		left    bool
		plea    time.Duration
	}{
		{"it fails", t.Context(), 0, reset, 2, true, 0},
		{"in time", t.Context(), time.Second, reset, 2, true, 0},
		{"asks for a time", t.Context(), 0, &StatusError{Code: 503, RetryAfter: time.Minute}, 2, true, time.Minute},
		{"the reader leaves", over, 0, reset, 2, false, 0},
		{"the reader's time is over", t.Context(), -1, reset, 2, false, 0},
		{"the user's limit", t.Context(), 0, errLimited, 2, false, 0},
		{"the only one", t.Context(), 0, reset, 1, false, 0},
	}
	for _, test := range tests {
		var log bytes.Buffer
		g := fakes(make([]time.Duration, test.servers)...)
		g.log = slog.New(slog.NewTextHandler(&log, nil))
		v := g.servers[0]
		var p patience
		if test.until != 0 {
			p.until = time.Now().Add(test.until)
		}
		for range 2 {
			g.failed(test.ctx, v, p, test.err)
		}
		if got := v.health == left; got != test.left || len(v.woken) > 0 != test.left || strings.Count(log.String(), "leaving a server") != len(v.woken) {
			t.Errorf("%s: left is %v, told %d times; log: %s", test.name, got, len(v.woken), &log)
		}
		if got := time.Until(v.notBefore).Round(time.Second); max(0, got) != test.plea {
			t.Errorf("%s: not before %v, want %v", test.name, got, test.plea)
		}
		if !test.left {
			continue
		}
		g.succeeded(v)
		if v.health != left {
			t.Errorf("%s: an answer heals, though another is healthy", test.name)
		}
		g.servers[1].health = left
		g.succeeded(v)
		g.heal(v)
		if v.health != healthy || strings.Count(log.String(), "using a server again") != 1 {
			t.Errorf("%s: an answer does not heal the only one; log: %s", test.name, &log)
		}
	}
	for _, h := range []health{joining, banned} {
		g := fakes(0, 0)
		g.servers[0].health = h
		g.failed(t.Context(), g.servers[0], patience{}, reset)
		g.succeeded(g.servers[0])
		g.heal(g.servers[0])
		if g.servers[0].health != h {
			t.Errorf("%d has become %d", h, g.servers[0].health)
		}
	}
}

// One request in fifty may be made twice.
func TestMayHedge(t *testing.T) {
	g := fakes(0, 0)
	for _, test := range []struct{ requests, want int64 }{{0, 0}, {49, 0}, {50, 1}, {99, 1}, {100, 2}, {1000, 20}} {
		g.hedges = hedges{requests: test.requests}
		var n int64
		for g.mayHedge() {
			n++
		}
		if n != test.want {
			t.Errorf("of %d requests %d may be made twice, want %d", test.requests, n, test.want)
		}
	}
}
