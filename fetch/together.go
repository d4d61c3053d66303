package fetch

import (
	"runtime"
	"sync"
	"sync/atomic"

	"github.com/cloopfs/cloopfs/blockio"
)

const (
	// minTogether is how many stored bytes are worth waking somebody up for.
	minTogether = 16 << 10
	// maxTogether bounds the blocks that are delivered together.
	maxTogether = 64
)

// trial is what together has made of a block.
type trial uint8

const (
	untried trial = iota
	given         // it has been delivered
	failed        // it was bad, or not there
)

// helpers has a place for each core but one, for who delivers blocks of somebody else's
// run.
var helpers = make(chan struct{}, runtime.GOMAXPROCS(0)-1)

// together delivers the first blocks ahead of a reader that are at hand, on all cores:
// delivering is decoding. Those that turn out to be bad, or not to be there, are left to
// serve.
func (r *run) together(deliver func(n int64, stored []byte) error) {
	if deliver == nil || r.class != blockio.Demand {
		return
	}
	n, bytes := 0, int64(0)
	for n < min(len(r.ahead), maxTogether) && r.trial(n) == untried && r.ahead[n].finished() {
		bytes += r.ahead[n].ext.Len
		n++
	}
	if n < 2 || bytes < minTogether {
		return
	}
	done := r.done()
	r.tried = append(r.tried, make([]trial, done+n-len(r.tried))...)
	tried := r.tried[done:]
	var next atomic.Int64
	work := func() {
		for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
			if tried[i] = failed; r.give(r.ahead[i], deliver) {
				tried[i] = given
			}
		}
	}
	var group sync.WaitGroup
	for range n - 1 {
		if !takeHelper() {
			break
		}
		group.Go(func() {
			defer func() { <-helpers }()
			work()
		})
	}
	work()
	group.Wait()
}

// trial is what together has made of the i-th block ahead.
func (r *run) trial(i int) trial {
	if i += r.done(); i < len(r.tried) {
		return r.tried[i]
	}
	return untried
}

func takeHelper() bool {
	select {
	case helpers <- struct{}{}:
		return true
	default:
		return false
	}
}

// give delivers a block that is at hand, if its bytes are there and good.
func (r *run) give(b *block, deliver func(n int64, stored []byte) error) bool {
	if b.local {
		_, good := r.giveStored(b, deliver)
		return good
	}
	stored, err := r.s.wait(r.ctx, b)
	return err == nil && deliver(b.n, stored) == nil
}
