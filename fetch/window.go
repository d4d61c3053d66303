package fetch

import "time"

const (
	// minWindow and maxWindow bound what is on its way for nobody who waits.
	minWindow = 512 << 10
	maxWindow = 16 << 20
	// minCap and maxCap bound a request for nobody who waits.
	minCap = 256 << 10
	maxCap = 4 << 20
	// estimateTime is for how long a measurement counts, or twice that.
	estimateTime = 10 * time.Second
)

// estimate is what the scheduler knows of the line. The zero value knows nothing. It is
// not safe for concurrent use.
type estimate struct {
	arrived int64 // bytes, in all
	trip    recent
	rate    recent
}

// sent is the moment in which a request was made.
type sent struct {
	at      time.Time
	arrived int64 // bytes, until then
}

func (e *estimate) send(now time.Time) sent { return sent{now, e.arrived} }

// answered tells of the first byte that came for a request.
func (e *estimate) answered(now time.Time, r sent) {
	e.trip.add(now, -now.Sub(r.at).Seconds())
}

// received tells of n bytes.
func (e *estimate) received(n int) { e.arrived += int64(n) }

// ended tells that a request's last byte has come. All that has come in its time says
// how fast the line is, at least: "rate samples" in BBR's words.
func (e *estimate) ended(now time.Time, r sent) {
	if d := now.Sub(r.at).Seconds(); d > 0 {
		e.rate.add(now, float64(e.arrived-r.arrived)/d)
	}
}

// product is the bytes that are on their way on a line that is just full: its round
// trip times its bandwidth.
func (e *estimate) product() int64 { return int64(-e.trip.value() * e.rate.value()) }

// window is how many bytes to have on their way for nobody who waits: enough that the
// line is never idle while one request ends and the next is made. It is the most that
// somebody who waits has to wait for.
func (e *estimate) window() int64 { return min(max(2*e.product(), minWindow), maxWindow) }

// request is how many bytes to ask for in one request for nobody who waits.
func (e *estimate) request() int64 { return min(max(e.product(), minCap), maxCap) }

// recent is the largest of the last values; 0 if there is none.
type recent struct {
	begin       time.Time // of this period
	now, before float64   // the largest of this period and of the one before
	any         bool      // in this period
}

func (r *recent) add(now time.Time, v float64) {
	if now.Sub(r.begin) > estimateTime {
		r.before = r.now
		if !r.any || now.Sub(r.begin) > 2*estimateTime {
			r.before = v
		}
		r.begin, r.now, r.any = now, v, true
		return
	}
	if !r.any || v > r.now {
		r.now, r.any = v, true
	}
}

func (r *recent) value() float64 { return max(r.now, r.before) }

// length is the average length of the last stored blocks, in bytes; the zero value has
// seen none.
type length float64

func (l *length) add(n int64) {
	if *l == 0 {
		*l = length(n)
	}
	*l += (length(n) - *l) / 32
}

func (l *length) average() int64 { return max(1, int64(*l)) }
