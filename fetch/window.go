package fetch

import (
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/recent"
)

const (
	// minWindow and maxWindow bound what is on its way for nobody who waits.
	minWindow = 384 << 10
	maxWindow = 12 << 20
	// requests is in how many requests that is, if the blocks are adjacent.
	requests = 3
	// rateTime is for how long a measurement counts, or twice that.
	rateTime = 10 * time.Second
)

// estimate is what the scheduler knows of the line. Make one with newEstimate. It is
// not safe for concurrent use.
type estimate struct {
	trip    func() time.Duration // the line's round trip; 0 if it is not known
	arrived int64                // bytes, in all
	rate    recent.Max           // bytes per second
}

func newEstimate(trip func() time.Duration) estimate {
	if trip == nil {
		trip = func() time.Duration { return 0 }
	}
	return estimate{trip: trip, rate: recent.Max{Period: rateTime}}
}

// sent is the moment in which a request was made.
type sent struct {
	at      time.Time
	arrived int64 // bytes, until then
}

func (e *estimate) send(now time.Time) sent { return sent{now, e.arrived} }

// received tells of n bytes.
func (e *estimate) received(n int) { e.arrived += int64(n) }

// ended tells that a request's last byte has come. All that has come in its time says
// how fast the line is at least: a rate sample, in the words of BBR.
func (e *estimate) ended(now time.Time, r sent) {
	if d := now.Sub(r.at).Seconds(); d > 0 {
		e.rate.Add(float64(e.arrived-r.arrived) / d)
	}
}

// slack is how long it takes at both ends, more or less, from an answer's end to the next
// request, where machines have other things to do.
const slack = 10 * time.Millisecond

// window is how many bytes to have on their way for nobody who waits: what the line brings
// in one and a half of its round trips, of which one fills it. The surplus waits before
// its narrow end, and a reader's block waits behind that. Of what a sequential reader will
// want there is the slack on top of it.
func (e *estimate) window(class blockio.Class) int64 {
	rate, _ := e.rate.Value()
	seconds := e.trip().Seconds() * 1.5
	if class == blockio.ReadAhead {
		seconds += slack.Seconds()
	}
	return min(max(int64(rate*seconds), minWindow), maxWindow)
}

// request is how many bytes to ask for in one request for nobody who waits.
func (e *estimate) request() int64 { return e.window(blockio.Fill) / requests }
