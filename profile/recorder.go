package profile

import (
	"context"
	"slices"
	"sync"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// Recorder notes which blocks readers want for the first time, and passes every read
// on. It implements [blockio.Runs] and [blockio.Taker].
type Recorder struct {
	runs  blockio.Runs
	image Image

	// mu guards the fields below.
	mu      sync.Mutex
	seen    map[int64]uint64 // a bit for each block
	noted   []Run
	readers int       // that wait
	idle    time.Time // since when there have been none
}

// NewRecorder returns a Recorder for the readers of an image's blocks, which runs
// brings.
func NewRecorder(runs blockio.Runs, image Image) *Recorder {
	return &Recorder{runs: runs, image: image, seen: make(map[int64]uint64), idle: time.Now()}
}

// ReadRun is [blockio.Runs]'s.
func (r *Recorder) ReadRun(ctx context.Context, class blockio.Class, first, count int64,
	deliver func(n int64, stored []byte) error,
) error {
	if class == blockio.Demand {
		r.enter(first, count)
		defer r.leave()
	}
	return r.runs.ReadRun(ctx, class, first, count, deliver)
}

// Take is [blockio.Taker]'s. It is nobody's read, and not noted.
func (r *Recorder) Take(n int64, deliver func(n int64, stored []byte) error) bool {
	from, ok := r.runs.(blockio.Taker)
	return ok && from.Take(n, deliver)
}

// Had is [blockio.Taker]'s.
func (r *Recorder) Had(n int64) {
	r.enter(n, 1)
	defer r.leave()
	if from, ok := r.runs.(blockio.Taker); ok {
		from.Had(n)
	}
}

func (r *Recorder) enter(first, count int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	var gap time.Duration
	if r.readers == 0 {
		gap = min(max(time.Since(r.idle), time.Microsecond), maxGap).Truncate(time.Microsecond)
	}
	r.readers++
	before := len(r.noted)
	for n := max(0, first); n < min(first+count, r.image.Blocks); n++ {
		word, bit := n/64, uint64(1)<<(n%64)
		if r.seen[word]&bit != 0 {
			continue
		}
		r.seen[word] |= bit
		if last := len(r.noted) - 1; last >= before && r.noted[last].end() == n {
			r.noted[last].Count++
		} else if len(r.noted) < maxRuns {
			r.noted = append(r.noted, Run{n, 1, gap})
			gap = 0
		}
	}
}

func (r *Recorder) leave() {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.readers--; r.readers == 0 {
		r.idle = time.Now()
	}
}

// Profile is what has been noted so far.
func (r *Recorder) Profile() *Profile {
	r.mu.Lock()
	defer r.mu.Unlock()
	return &Profile{Image: r.image, Runs: slices.Clone(r.noted)}
}

// Runs is how many runs have been noted so far.
func (r *Recorder) Runs() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.noted)
}
