package fetch

import (
	"context"
	"io"
	"sync"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// simLine is a line of which only the time is real: that of a synctest bubble. Its
// narrow end is a queue that all answers share, with room for as many bytes as are on
// their way on a full line. A request on a new connection takes one round trip more.
type simLine struct {
	rtt    time.Duration
	rate   float64 // bytes per second
	buffer float64 // bytes

	turn chan struct{} // held by the answer whose piece is the next in the queue

	// mu guards the fields below.
	mu       sync.Mutex
	free     time.Time // when what is in the queue will have left
	idle     int       // connections
	trip     time.Duration
	requests int
	bytes    int64
}

// simPiece is how many bytes of an answer enter the queue at a time.
const simPiece = 32 << 10

func newSimLine(rtt time.Duration, mbit float64) *simLine {
	rate := mbit * 1e6 / 8
	return &simLine{rtt: rtt, rate: rate, buffer: rate * rtt.Seconds(), turn: make(chan struct{}, 1)}
}

// takes is how long n bytes take to leave.
func (l *simLine) takes(n float64) time.Duration {
	return time.Duration(n / l.rate * float64(time.Second))
}

func (l *simLine) Size() int64 { return 1 << 60 }

// Trip is the least time from a request to the first bytes of its answer.
func (l *simLine) Trip() time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.trip
}

func (l *simLine) OpenRange(_ context.Context, r blockio.Range) (io.ReadCloser, error) {
	return &simAnswer{line: l, rng: r}, nil
}

// simAnswer is an answer; its bytes are zeros.
type simAnswer struct {
	line   *simLine
	rng    blockio.Range // what has not been read
	pieces chan piece    // nil until it is asked for
	piece  piece         // that is being read
}

// piece is bytes that leave the line together.
type piece struct {
	n  int64
	at time.Time
}

func (a *simAnswer) Read(p []byte) (int, error) {
	if a.rng.Len == 0 {
		return 0, io.EOF
	}
	if a.pieces == nil {
		a.pieces = make(chan piece, a.rng.Len/simPiece+1)
		go a.line.answer(a.rng.Extent, a.pieces)
	}
	if a.piece.n == 0 {
		a.piece = <-a.pieces
		time.Sleep(time.Until(a.piece.at))
	}
	n := min(int64(len(p)), a.piece.n)
	clear(p[:n])
	a.piece.n -= n
	if a.rng.Len -= n; a.rng.Len == 0 {
		a.line.mu.Lock()
		defer a.line.mu.Unlock()
		a.line.idle++
	}
	return int(n), nil
}

func (a *simAnswer) Close() error { return nil }

// answer sends the bytes of e.
func (l *simLine) answer(e blockio.Extent, pieces chan<- piece) {
	// No two requests come in the same nanosecond: what happens does not depend on
	// which goroutine is the first.
	time.Sleep(time.Duration(uint32(e.Off) * 2654435761 >> 16))
	if !l.begin(e.Len) {
		time.Sleep(l.rtt)
	}
	asked := time.Now()
	time.Sleep(l.rtt)
	for left := e.Len; left > 0; {
		n := min(left, simPiece)
		at := l.enqueue(float64(n))
		pieces <- piece{n, at}
		if left == e.Len {
			l.answered(at.Sub(asked))
		}
		left -= n
	}
}

// begin counts a request, and says whether there is a connection for it.
func (l *simLine) begin(n int64) (connected bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	l.bytes += n
	if connected = l.idle > 0; connected {
		l.idle--
	}
	return connected
}

// sent is what was asked for.
func (l *simLine) sent() (requests int, bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.requests, l.bytes
}

func (l *simLine) answered(d time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.trip == 0 || d < l.trip {
		l.trip = d
	}
}

// enqueue puts n bytes into the queue as soon as there is room, and returns when they
// will have left.
func (l *simLine) enqueue(n float64) time.Time {
	l.turn <- struct{}{}
	defer func() { <-l.turn }()
	time.Sleep(l.takes(l.queued() + n - l.buffer))
	l.mu.Lock()
	defer l.mu.Unlock()
	if now := time.Now(); l.free.Before(now) {
		l.free = now
	}
	l.free = l.free.Add(l.takes(n))
	return l.free
}

// queued is how many bytes are in the queue.
func (l *simLine) queued() float64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return max(0, time.Until(l.free).Seconds()) * l.rate
}
