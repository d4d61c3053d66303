package httpblock

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// Servers says how the servers have served the file so far: that of the URL that was opened
// first. It never waits for them.
func (s *Source) Servers() []blockio.Server {
	var all []blockio.Server
	for _, v := range s.servers {
		st := v.count.stats(v.shown())
		st.Answer, st.Rate = v.speed.latency(), v.speed.rate()
		st.State, st.LastError, st.LastErrorAt = s.group.state(v, st)
		all = append(all, st)
	}
	return all
}

// Overloaded says that the servers have responded with 429 or 503, and nothing else since, each
// that is used.
func (s *Source) Overloaded() bool {
	for _, v := range s.group.joined() {
		if !v.count.overloaded.Load() {
			return false
		}
	}
	return true
}

// Connections is how many requests there may be at a time, by now: Options.Connections, but
// less where servers have asked for that.
func (s *Source) Connections() int {
	most := int64(1)
	for _, v := range s.group.joined() {
		most = max(most, v.count.allowed.Load())
	}
	return int(most)
}

// counter counts what a server does. But for allowed the zero value is ready.
type counter struct {
	requests, bytes atomic.Int64
	failing         atomic.Bool  // nothing has arrived since the last failure
	overloaded      atomic.Bool  // likewise, and that was the server's plea for less
	allowed         atomic.Int64 // requests at a time

	// mu guards the fields below.
	mu     sync.Mutex
	failed int64
	last   error
	lastAt time.Time
	halved time.Time // when allowed was halved last
	had    int64     // bytes by then
}

// failure counts an attempt that failed.
func (c *counter) failure(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failing.Store(true)
	var status *StatusError
	busy := errors.As(err, &status) && (status.Code == http.StatusTooManyRequests || status.Code == http.StatusServiceUnavailable)
	if busy {
		c.overloaded.Store(true)
	}
	switch {
	case busy:
		c.halveLocked(1)
	case errors.Is(err, syscall.ECONNREFUSED):
		c.halveLocked(minRefused)
	}
	c.last, c.lastAt = err, time.Now()
	c.failed++
}

const (
	// halveTime is how long to see what came of it before allowed is halved again.
	halveTime = time.Second
	// minRefused is how many requests there may be however often connections are refused:
	// a server that is started anew now and then does so, too.
	minRefused = 4
)

// halveLocked halves how many requests the server may be sent at a time, but not below least,
// for good: that is what it asks for. Who serves nobody any more, and says so again and again,
// asks for nothing.
func (c *counter) halveLocked(least int64) {
	if now := c.bytes.Load(); now > c.had && time.Since(c.halved) >= halveTime {
		allowed := c.allowed.Load()
		c.allowed.Store(max(min(least, allowed), allowed/2))
		c.halved, c.had = time.Now(), now
	}
}

// received counts n bytes that have arrived.
func (c *counter) received(n int) {
	if n > 0 {
		c.bytes.Add(int64(n))
		c.failing.Store(false)
		c.overloaded.Store(false)
	}
}

func (c *counter) stats(url string) blockio.Server {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := blockio.Server{
		URL: url, OK: !c.failing.Load() && c.bytes.Load() > 0, Requests: c.requests.Load(), Failed: c.failed,
		Bytes: c.bytes.Load(), LastErrorAt: c.lastAt,
	}
	if c.last != nil {
		s.LastError = c.last.Error()
	}
	return s
}
