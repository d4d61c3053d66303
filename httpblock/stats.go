package httpblock

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// Stats is how a server has served a file.
type Stats struct {
	// URL is where the file was found last, as it may be shown.
	URL string
	// OK says that the last answer brought data.
	OK       bool
	Requests int64 // sent, those that were redirected included
	Failed   int64 // that brought no data, or less than they announced
	Bytes    int64 // of the file, received
	// LastError is empty if there was none.
	LastError   string
	LastErrorAt time.Time
}

// Stats says how the server has served the file so far. It never waits for it.
func (s *Source) Stats() Stats {
	return s.count.stats(Redact(s.where().url))
}

// Overloaded says that the server has answered 429 or 503, and nothing else since.
func (s *Source) Overloaded() bool { return s.count.overloaded.Load() }

// counter counts what a server does. The zero value is ready.
type counter struct {
	requests, bytes atomic.Int64
	failing         atomic.Bool // nothing has arrived since the last failure
	overloaded      atomic.Bool // likewise, and that was the server's plea for less

	// mu guards the fields below.
	mu     sync.Mutex
	failed int64
	last   error
	lastAt time.Time
}

// failure counts an attempt that failed.
func (c *counter) failure(err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.failing.Store(true)
	var status *StatusError
	if errors.As(err, &status) && (status.Code == http.StatusTooManyRequests || status.Code == http.StatusServiceUnavailable) {
		c.overloaded.Store(true)
	}
	c.last, c.lastAt = err, time.Now()
	c.failed++
}

// received counts n bytes that have arrived.
func (c *counter) received(n int) {
	if n > 0 {
		c.bytes.Add(int64(n))
		c.failing.Store(false)
		c.overloaded.Store(false)
	}
}

func (c *counter) stats(url string) Stats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := Stats{
		URL: url, OK: !c.failing.Load() && c.bytes.Load() > 0, Requests: c.requests.Load(), Failed: c.failed,
		Bytes: c.bytes.Load(), LastErrorAt: c.lastAt,
	}
	if c.last != nil {
		s.LastError = c.last.Error()
	}
	return s
}
