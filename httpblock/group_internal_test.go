package httpblock

import (
	"log/slog"
	"net/url"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// fakes returns a group of servers that answer within these times, and bring 1 MB in a second
// each.
func fakes(first ...time.Duration) *group {
	var servers []*server
	for _, d := range first {
		v := &server{health: healthy, woken: make(chan struct{}, 1)}
		v.count.allowed.Store(32)
		v.speed.answered(d)
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
	a, b := new(server), new(server)
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
		{"two have sent it", []delivery{{blockio.Extent{Off: 0, Len: 120}, a}, {blockio.Extent{Off: 120, Len: 100}, b}}, []delivery{{e, b}}, nil},
		{"the one who sent it last", []delivery{{whole, b}, {whole, a}}, []delivery{{e, b}}, a},
		{"two bring the second copy", []delivery{{whole, a}}, []delivery{{blockio.Extent{Off: 100, Len: 20}, b}, {blockio.Extent{Off: 120, Len: 30}, a}}, nil},
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
		g.servers[0].url, g.servers[1].url = &url.URL{Host: "a"}, &url.URL{Host: "b"}
		s.Blame(e)
		if got, want := g.servers[0].health == banned, other == healthy; got != want {
			t.Errorf("the other is %d: banned is %v, want %v", other, got, want)
		}
	}
}
