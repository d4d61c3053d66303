package fusefs

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

func TestWaiterEnds(t *testing.T) {
	for _, c := range []struct {
		name    string
		timeout time.Duration
		cancel  time.Duration // when the reader gives up; 0 means never
		want    error
		after   time.Duration
	}{
		{"by timeout", 2 * time.Second, 0, context.DeadlineExceeded, 2*time.Second + timeoutSlack},
		{"by the reader", 2 * time.Second, time.Second, context.Canceled, time.Second},
		{"by the reader alone", 0, time.Hour, context.Canceled, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				if c.cancel > 0 {
					time.AfterFunc(c.cancel, cancel)
				}
				p := parking{most: 1}
				w := p.enter(ctx, nil, c.timeout, 0, 1)
				defer w.leave()
				start := time.Now()
				if err := w.Err(); err != nil {
					t.Errorf("Err() = %v at the start", err)
				}
				<-w.Done()
				if got := time.Since(start); got != c.after {
					t.Errorf("ended after %v, want %v", got, c.after)
				}
				err := w.Err()
				if !errors.Is(err, c.want) {
					t.Errorf("Err() = %v, want %v", err, c.want)
				}
				if late := errors.Is(err, context.DeadlineExceeded); late && err.Error() != "gave up after 2s" {
					t.Errorf("Err() says %q", err)
				}
				if w.evicted() {
					t.Error("evicted")
				}
			})
		})
	}
}

// A read that never asks for Done ends all the same for who asks for Err.
func TestWaiterErrWithoutDone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := parking{most: 1}
		w := p.enter(t.Context(), nil, time.Second, 0, 1)
		defer w.leave()
		time.Sleep(time.Second + timeoutSlack)
		if err := w.Err(); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("Err() = %v, want DeadlineExceeded", err)
		}
		if n := p.queue.Len(); n != 0 {
			t.Errorf("%d reads parked, want 0", n)
		}
	})
}

// When too many wait, the longest waits end, and no others; who has not waited
// for long stays, however many there are, until he has: also if nobody else comes.
func TestParkingIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const most = 100
		p := parking{most: most}
		var waiters []*waiter
		come := func(n int) {
			for range n {
				w := p.enter(t.Context(), nil, time.Hour, 0, 1)
				w.Done()
				waiters = append(waiters, w)
			}
		}
		check := func(when string, ended int) {
			t.Helper()
			synctest.Wait()
			for i, w := range waiters {
				got := w.Err() != nil
				if want := i < ended; got != want || w.evicted() != want {
					t.Errorf("%s: waiter %d: ended %v, evicted %v; want %v", when, i, got, w.evicted(), want)
				}
			}
		}
		come(most + 10)
		time.Sleep(minParked - 1)
		check("a crowd that has just come", 0)
		time.Sleep(time.Second)
		check("nobody else comes", 10)
		come(20)
		check("others come", 30)
		time.Sleep(2 * time.Second)
		come(most)
		check("a crowd comes", 30+most-20)
		time.Sleep(minParked - 2*time.Second)
		check("the others have waited for long", 30+most)
		time.Sleep(time.Hour / 2)
		check("no more than may wait", 30+most)
		for _, w := range waiters {
			w.leave()
		}
		if n := p.len(); n != 0 {
			t.Errorf("%d reads parked after all have left", n)
		}
	})
}

// The kernel repeats a read that timed out: the second one, and whoever else wants
// the same bytes, waits only for what is here, for a second.
func TestSecondQuestionIsShort(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		p := parking{most: 1}
		// wait fails when its time is over, or earlier: as the layers below give up.
		wait := func(off int64, n int, earlier time.Duration) time.Duration {
			w := p.enter(t.Context(), nil, 10*time.Second, off, n)
			defer w.leave()
			start := time.Now()
			select {
			case <-w.Done():
			case <-time.After(10*time.Second - earlier):
			}
			w.failed()
			return time.Since(start) - timeoutSlack
		}
		for _, c := range []struct {
			name  string
			off   int64
			n     int
			pause time.Duration // before the read
			want  time.Duration
		}{
			{"first", 1000, 100, 0, 10 * time.Second},
			{"page of it", 1000, 10, 0, latePatience},
			{"overlapping", 1099, 10, 0, latePatience},
			{"once more", 1000, 10, 300 * time.Millisecond, latePatience},
			{"given time again, however often it asked", 1000, 10, lateTime - 900*time.Millisecond, 10 * time.Second},
		} {
			time.Sleep(c.pause)
			if got := wait(c.off, c.n, -time.Second); got != c.want {
				t.Errorf("%s: waited %v, want %v", c.name, got, c.want)
			}
		}
		if got := wait(5000, 10, 0); got != 10*time.Second-timeoutSlack {
			t.Errorf("elsewhere: waited %v, want what it takes to fail", got)
		}
		if got := wait(5000, 10, -time.Second); got != latePatience {
			t.Errorf("after one below which all gave up at the timeout: waited %v, want %v", got, latePatience)
		}
		wait(7000, 10, time.Millisecond)
		if got := wait(7000, 10, -time.Second); got != 10*time.Second {
			t.Errorf("after one that has failed earlier: waited %v, want %v", got, 10*time.Second)
		}
		for off := range int64(1000) {
			w := p.enter(t.Context(), nil, time.Millisecond, 10*off, 10)
			<-w.Done()
			w.failed()
			w.leave()
		}
		if len(p.late) > maxLate {
			t.Errorf("%d late reads remembered", len(p.late))
		}
	})
}
