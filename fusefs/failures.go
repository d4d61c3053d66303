package fusefs

import (
	"errors"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/time/rate"

	"github.com/cloopfs/cloopfs/blockio"
)

const (
	// logBurst is how many failed reads are logged in one go, and logPause how long it
	// takes until one more may be: ten a minute.
	logBurst = 10
	logPause = 6 * time.Second
	// maxFailing is how many failing blocks are remembered. Those beyond are logged as
	// often as they fail, at that rate.
	maxFailing = 4096
)

// failures logs reads that fail: each block once, until it has been read well again.
type failures struct {
	log     *slog.Logger
	blockOf func(off int64) int64
	limit   *rate.Limiter
	// any says that there are failing blocks: reads that succeed look no further.
	any atomic.Bool

	// mu guards the fields below.
	mu      sync.Mutex
	failing map[int64]time.Time // blocks that were logged, and when
	unsaid  int                 // reads that have failed since the last line, and were not logged
	failed  int                 // reads that have failed since it was logged that some had come
	down    bool                // failures are the last that was logged
}

// newFailures returns failures that log to log. blockOf is Options.BlockOf.
func newFailures(log *slog.Logger, blockOf func(off int64) int64) *failures {
	if blockOf == nil {
		blockOf = func(off int64) int64 { return off >> 16 }
	}
	return &failures{
		log: log, blockOf: blockOf, failing: make(map[int64]time.Time),
		limit: rate.NewLimiter(rate.Every(logPause), logBurst),
	}
}

// add notes that the read of n bytes at off has failed.
func (f *failures) add(off int64, n int, err error) {
	block := f.blockOf(off)
	if be, ok := errors.AsType[*blockio.BlockError](err); ok {
		block = be.Block
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	f.failed++
	if _, known := f.failing[block]; known || !f.limit.Allow() {
		f.unsaid++
		return
	}
	if len(f.failing) < maxFailing {
		f.failing[block] = time.Now()
		f.any.Store(true)
	}
	f.log.Error("read failed", "offset", off, "length", n, "error", err, "more", f.unsaid)
	f.unsaid, f.down = 0, true
}

// clear notes that n bytes at off were read. That the first block that had failed has
// come is logged as the end of the outage.
func (f *failures) clear(off int64, n int) {
	if n == 0 || !f.any.Load() {
		return
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	var since time.Time
	for b, last := f.blockOf(off), f.blockOf(off+int64(n)-1); b <= last; b++ {
		if t, ok := f.failing[b]; ok {
			since = t
			delete(f.failing, b)
		}
	}
	f.any.Store(len(f.failing) > 0)
	if since.IsZero() || !f.down {
		return
	}
	f.log.Info("read what had failed", "offset", off, "length", n, "after", time.Since(since).Round(time.Second), "failed", f.failed)
	f.failed, f.unsaid, f.down = 0, 0, false
}
