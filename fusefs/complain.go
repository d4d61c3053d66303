package fusefs

import (
	"sync"
	"time"
)

// complain logs that something failed.
func (d *device) complain(quiet *limiter, what string, args ...any) {
	if more, ok := quiet.allow(); ok {
		d.log.Error(what, append(args, "more", more)...)
	}
}

// limiter lets one event a second pass and counts the others. The zero value
// is ready.
type limiter struct {
	mu      sync.Mutex
	next    time.Time
	skipped int
}

// allow says whether this event passes, and how many have not since the last
// that did.
func (l *limiter) allow() (skipped int, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := time.Now()
	if now.Before(l.next) {
		l.skipped++
		return 0, false
	}
	skipped, l.skipped = l.skipped, 0
	l.next = now.Add(time.Second)
	return skipped, true
}
