package httpblock

import (
	"errors"
	"slices"

	"github.com/cloopfs/cloopfs/blockio"
)

// maxSent is how many responses are remembered by who sent them, and maxDoubted how many
// that turned out to be bad.
const (
	maxSent    = 1024
	maxDoubted = 64
)

// delivery is bytes of the file, and who sent them.
type delivery struct {
	extent blockio.Extent
	srv    *server
}

// sent remembers who sent what, of late.
type sent struct {
	all, doubted []delivery // the latest last
}

// note remembers a response of v.
func (s *sent) note(e blockio.Extent, v *server) { s.all = remember(s.all, delivery{e, v}, maxSent) }

// doubt says that the bytes of e that came last were bad. It returns who sent them, nil
// if that is not known.
func (s *sent) doubt(e blockio.Extent) *server {
	v := senderOf(s.all, e)
	if v != nil {
		s.doubted = remember(s.doubted, delivery{e, v}, maxDoubted)
	}
	return v
}

// culprit returns who sent bad bytes for e before others sent good ones; nil if that is
// not known.
func (s *sent) culprit(e blockio.Extent) *server {
	bad, good := senderOf(s.doubted, e), senderOf(s.all, e)
	if good == nil || bad == good {
		return nil
	}
	return bad
}

// senderOf returns who sent all of e; nil if the latest response with any of it has not
// brought all.
func senderOf(list []delivery, e blockio.Extent) *server {
	for _, l := range slices.Backward(list) {
		if d := l; d.extent.Off < e.End() && e.Off < d.extent.End() {
			if d.extent.Off <= e.Off && e.End() <= d.extent.End() {
				return d.srv
			}
			return nil
		}
	}
	return nil
}

// remember appends one to list, which keeps at most the latest half of most, or more.
func remember(list []delivery, one delivery, most int) []delivery {
	if len(list) == most {
		list = list[:copy(list, list[most/2:])]
	}
	return append(list, one)
}

// note remembers that v has sent, or is about to send, the bytes of e.
func (g *group) note(e blockio.Extent, v *server) {
	if g.alone() {
		return
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.sent.note(e, v)
}

// doubt returns who has sent the bytes that are to be had again; nil if that is not known.
func (g *group) doubt(r blockio.Range) *server {
	if g.alone() || !r.Refetch {
		return nil
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.sent.doubt(r.Extent)
}

// errWrongBytes is why a server is banned.
var errWrongBytes = errors.New("it has sent wrong bytes")

// Blame says that the bytes of e that came first were bad, and those that were asked for
// in their place are good: who sent the bad ones, and is another than who sent the good
// ones, is not used again.
func (s *Source) Blame(e blockio.Extent) {
	g := s.group
	if g.alone() {
		return
	}
	g.mu.Lock()
	v := g.sent.culprit(e)
	g.mu.Unlock()
	if v != nil {
		g.ban(v, errWrongBytes)
	}
}
