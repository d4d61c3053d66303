package httpblock

import (
	"errors"
	"net/http"
	"sync"
	"sync/atomic"
	"time"
)

// State is what a server is used for, in a word.
type State string

// The states of a server.
const (
	// Used: it is asked.
	Used State = "ok"
	// Failing: it is asked, and has brought nothing since it failed.
	Failing State = "failing"
	// Joining: it was not seen yet to have the same file, and is not asked.
	Joining State = "joining"
	// Left: it has failed, and is asked where no other can be, or when it is well again.
	Left State = "left"
	// Banned: it has another file, or has sent wrong bytes, and is not asked again.
	Banned State = "banned"
)

// Stats is how a server has served a file.
type Stats struct {
	// URL is where the file was found last, as it may be shown.
	URL string
	// State says what the server is used for.
	State State
	// OK says that the last answer brought data.
	OK       bool
	Requests int64 // sent, those that were redirected included
	Failed   int64 // that brought no data, or less than they announced
	Bytes    int64 // of the file, received
	// LastError is empty if there was none.
	LastError   string
	LastErrorAt time.Time
}

// Stats says how the servers have served the file so far: that of the URL that was opened
// first. It never waits for them.
func (s *Source) Stats() []Stats {
	var all []Stats
	for _, v := range s.servers {
		st := v.count.stats(v.shown())
		st.State, st.LastError = s.group.state(v, st)
		all = append(all, st)
	}
	return all
}

// Sum is what all servers have done together.
func Sum(all []Stats) (requests, failed, bytes int64) {
	for _, s := range all {
		requests, failed, bytes = requests+s.Requests, failed+s.Failed, bytes+s.Bytes
	}
	return requests, failed, bytes
}

// Overloaded says that the servers have answered 429 or 503, and nothing else since, each
// that is used.
func (s *Source) Overloaded() bool {
	for _, v := range s.group.joined() {
		if !v.count.overloaded.Load() {
			return false
		}
	}
	return true
}

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
