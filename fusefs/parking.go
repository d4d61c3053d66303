package fusefs

import (
	"container/list"
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"
)

// minParked is how long every read may wait, however many there are: readers that were
// killed leave theirs behind, many readers of a distant server are a healthy crowd.
const minParked = 5 * time.Second

// maxParked is how many reads may wait for longer if the kernel has at most background
// of them under way: it has room for reads that need not wait.
func maxParked(background int) int { return max(1, background*3/4) }

// timeoutSlack is added to a read's timeout: the layers below give up after
// the timeout by themselves, and then can say why.
const timeoutSlack = 250 * time.Millisecond

const (
	// lateTime is how long a read that failed late makes others of the same
	// bytes impatient: the kernel repeats a failed read-ahead page by page,
	// and each page would wait as long again.
	lateTime = time.Second
	// latePatience is how long those wait, beside timeoutSlack: enough for
	// what is here.
	latePatience = 50 * time.Millisecond
	// maxLate is how many such reads are remembered.
	maxLate = 64
)

var errCrowded = errors.New("too many reads and writes are waiting")

// lateError ends a read or write that has waited for its timeout, which it is. It is a
// [context.DeadlineExceeded] that its reader can understand.
type lateError time.Duration

func (e lateError) Error() string { return fmt.Sprintf("gave up after %v", time.Duration(e)) }

func (lateError) Is(target error) bool { return target == context.DeadlineExceeded }

// parking is the reads and writes that wait. A reader that was killed may leave its reads
// behind (the kernel tells only of O_DIRECT reads), so when there are too many
// those that have waited longest fail. The zero value is ready, and has room for none but
// those that have just come.
type parking struct {
	most int // may wait for longer than minParked; not to be changed once there are waiters

	// mu guards the fields below and each waiter's place.
	mu    sync.Mutex
	queue list.List // of *waiter, the longest wait first
	timed bool      // room will be made when the longest wait has taken minParked
	late  []late    // reads that failed late, the oldest first
}

// late is a read that failed when its timeout was over.
type late struct {
	off, end int64
	until    time.Time // when it is forgotten
}

// sender is the kernel, as the one who sends requests for a file.
type sender interface {
	// gone says whether it does not want the answers any more.
	gone() bool
}

// enter returns the context of a read of n bytes at off, which ends after timeout (0
// means never), or when ctx has and the reader is killed or the sender is gone. The
// caller must leave.
func (p *parking) enter(ctx context.Context, from sender, timeout time.Duration, off int64, n int) *waiter {
	w := &waiter{parent: ctx, parking: p, from: from, off: off, end: off + int64(n), late: lateError(timeout)}
	if timeout > 0 {
		now := time.Now()
		w.forgotten = p.isLate(now, w.off, w.end)
		if w.forgotten {
			timeout = min(timeout, latePatience)
		}
		w.deadline = now.Add(timeout + timeoutSlack)
	}
	return w
}

// enterOnce returns the context of a write, or of anything else that the kernel does
// not repeat if it fails: it has all of timeout, whatever has timed out before, and
// makes nobody impatient. The caller must leave.
func (p *parking) enterOnce(ctx context.Context, from sender, timeout time.Duration) *waiter {
	w := &waiter{parent: ctx, parking: p, from: from, forgotten: true, late: lateError(timeout)}
	if timeout > 0 {
		w.deadline = time.Now().Add(timeout + timeoutSlack)
	}
	return w
}

// isLate says whether a read of [off, end) has failed late, a moment ago.
func (p *parking) isLate(now time.Time, off, end int64) bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	for len(p.late) > 0 && !now.Before(p.late[0].until) {
		p.late = p.late[1:]
	}
	return slices.ContainsFunc(p.late, func(l late) bool { return off < l.end && l.off < end })
}

// failed says that the read has failed, and was not evicted. If the layers below have given up
// by themselves that is timeoutSlack before the wait would have ended.
func (w *waiter) failed() {
	// A second question is not remembered: else whoever asks again and again
	// would never be given time.
	if w.forgotten || w.deadline.IsZero() || time.Until(w.deadline) > timeoutSlack {
		return
	}
	p := w.parking
	p.mu.Lock()
	defer p.mu.Unlock()
	p.late = append(p.late, late{off: w.off, end: w.end, until: time.Now().Add(lateTime)})
	if len(p.late) > maxLate {
		p.late = p.late[1:]
	}
}

// waiter is the context of one read or write. Only one that asks for Done is waiting:
// until then it costs no timer, no goroutine and no place in the parking.
type waiter struct {
	parent   context.Context
	parking  *parking
	from     sender
	off, end int64     // what is read
	deadline time.Time // zero means none
	late     lateError // what it is then
	// forgotten says that its failure is not remembered: it is no read, or follows
	// one that failed late.
	forgotten bool

	// mu guards the fields below.
	mu      sync.Mutex
	parked  context.Context // nil until Done was called
	cancel  context.CancelFunc
	stop    func() bool   // nobody is to look any more whether the reader is killed
	since   time.Time     // set with place
	place   *list.Element // guarded by parking.mu; nil if not in its queue
	crowded bool          // guarded by parking.mu: the parking ended the wait
}

func (w *waiter) Deadline() (time.Time, bool) { return w.deadline, !w.deadline.IsZero() }

func (w *waiter) Done() <-chan struct{} {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.parked == nil {
		parent := context.WithoutCancel(w.parent)
		if w.deadline.IsZero() {
			w.parked, w.cancel = context.WithCancel(parent)
		} else {
			w.parked, w.cancel = context.WithDeadline(parent, w.deadline)
		}
		parked, cancel := w.parked, w.cancel
		w.stop = context.AfterFunc(w.parent, func() {
			awaitKill(parent, w.from, parked.Done())
			cancel()
		})
		w.parking.park(w)
	}
	return w.parked.Done()
}

func (w *waiter) Err() error {
	w.mu.Lock()
	defer w.mu.Unlock()
	switch {
	case w.parked == nil && w.overdue(), w.parked != nil && errors.Is(w.parked.Err(), context.DeadlineExceeded):
		return w.late
	case w.parked != nil:
		return w.parked.Err()
	}
	return nil
}

// overdue says whether the time for it is over.
func (w *waiter) overdue() bool { return !w.deadline.IsZero() && !time.Now().Before(w.deadline) }

func (w *waiter) Value(key any) any { return w.parent.Value(key) }

// park puts w into the queue.
func (p *parking) park(w *waiter) {
	p.mu.Lock()
	defer p.mu.Unlock()
	w.since = time.Now()
	w.place = p.queue.PushBack(w)
	p.makeRoomLocked(w.since)
}

// makeRoomLocked ends the longest waits if there are too many. Of those that are too short
// yet it does so later: when the kernel has as many reads under way as it can, nobody else
// comes to park.
func (p *parking) makeRoomLocked(now time.Time) {
	for p.queue.Len() > p.most {
		oldest := p.queue.Front().Value.(*waiter)
		if left := minParked - now.Sub(oldest.since); left > 0 {
			if !p.timed {
				p.timed = true
				time.AfterFunc(left, p.makeRoom)
			}
			return
		}
		p.queue.Remove(oldest.place)
		oldest.place, oldest.crowded = nil, true
		oldest.cancel()
	}
}

// makeRoom is what the timer calls.
func (p *parking) makeRoom() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.timed = false
	p.makeRoomLocked(time.Now())
}

// len is the number of reads and writes that wait.
func (p *parking) len() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.queue.Len()
}

// leave ends the read or write.
func (w *waiter) leave() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if w.parked == nil {
		return
	}
	w.stop()
	w.cancel()
	w.parking.mu.Lock()
	defer w.parking.mu.Unlock()
	if w.place != nil {
		w.parking.queue.Remove(w.place)
		w.place = nil
	}
}

// evicted says that the wait was ended because too many others wait.
func (w *waiter) evicted() bool {
	w.parking.mu.Lock()
	defer w.parking.mu.Unlock()
	return w.crowded
}
