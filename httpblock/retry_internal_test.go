package httpblock

import (
	"context"
	"errors"
	"log/slog"
	"net"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

func TestStallTime(t *testing.T) {
	for timeout, want := range map[time.Duration]time.Duration{
		0: 10 * time.Second, time.Second: time.Second, 9 * time.Second: 3 * time.Second, time.Hour: 10 * time.Second,
	} {
		if got := stallTime(timeout); got != want {
			t.Errorf("timeout %v: got %v, want %v", timeout, got, want)
		}
	}
}

// A search ends with the patience, and in any case after resolveTime.
func TestBound(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for left, want := range map[time.Duration]time.Duration{0: resolveTime, time.Second: time.Second, time.Hour: resolveTime} {
			var p patience
			if left > 0 {
				p.until = time.Now().Add(left)
			}
			begin := time.Now()
			ctx, cancel := p.bound(t.Context())
			<-ctx.Done()
			if got := time.Since(begin); got != want || !errors.Is(context.Cause(ctx), errStalled) {
				t.Errorf("patience of %v: %v after %v, want %v", left, context.Cause(ctx), got, want)
			}
			cancel()
		}
	})
}

// An error says what was wrong before the time was over; what is for good at first is not
// so later.
func TestRetry(t *testing.T) {
	unknown := &net.DNSError{Err: "no such host", IsNotFound: true}
	tests := []struct {
		name   string
		opened bool
		errs   []error // of the attempts; the last goes on
		says   string
		tries  int
	}{
		{"cut short at the end", true, []error{&StatusError{Code: 503}, errStalled}, "gave up after 5s: server answered 503", 3},
		{"cut short at first", true, []error{errStalled}, "gave up after 5s: no data arrived", 2},
		{"an unknown name at first", false, []error{unknown}, "lookup : no such host", 1},
		{"an unknown name later", true, []error{unknown, unknown, unknown, &StatusError{Code: 404}}, "server answered 404", 4},
	}
	for _, test := range tests {
		synctest.Test(t, func(t *testing.T) {
			g := fakes(0)
			s := &Source{opt: Options{Timeout: 5 * time.Second, Logger: slog.New(slog.DiscardHandler)}, stall: 4 * time.Second, servers: g.servers}
			if test.opened {
				s.first = g.first
			}
			tries := 0
			_, err := s.retry(t.Context(), time.Now(), func(p patience) (int, error) {
				err := test.errs[min(tries, len(test.errs)-1)]
				tries++
				if err == errStalled {
					time.Sleep(p.wait())
				}
				return 0, err
			})
			if err == nil || !strings.HasPrefix(err.Error(), test.says) || tries != test.tries {
				t.Errorf("%s: after %d tries, want %d: %v", test.name, tries, test.tries, err)
			}
		})
	}
}

// Of two errors that one counts after which asking again may help, and sooner.
func TestWorse(t *testing.T) {
	busy, soon, later := &StatusError{Code: 500}, &StatusError{Code: 503, RetryAfter: 1}, &StatusError{Code: 503, RetryAfter: 2}
	gone, forbidden := &StatusError{Code: 410}, &StatusError{Code: 403}
	unknown := &net.DNSError{IsNotFound: true}
	tests := []struct {
		opening     bool
		before, err error
		want        error
	}{
		{false, nil, gone, gone},
		{false, gone, forbidden, gone},
		{false, gone, soon, soon},
		{false, soon, gone, soon},
		{false, soon, later, soon},
		{false, later, soon, soon},
		{false, busy, errStalled, busy},
		{false, unknown, busy, unknown},
		{true, unknown, busy, busy},
		{true, unknown, soon, soon},
		{true, soon, unknown, soon},
	}
	for _, test := range tests {
		s := &Source{first: new(server)}
		if test.opening {
			s.first = nil
		}
		if got := s.worse(test.before, test.err); got != test.want {
			t.Errorf("opening %v: of %v and %v: %v, want %v", test.opening, test.before, test.err, got, test.want)
		}
	}
}

// Pauses are short at first, and never a good part of the timeout.
func TestBackOff(t *testing.T) {
	for timeout, most := range map[time.Duration]time.Duration{
		0: 2 * time.Second, 100 * time.Millisecond: 100 * time.Millisecond, time.Second: 200 * time.Millisecond, time.Minute: 2 * time.Second,
	} {
		b := newBackOff(timeout)
		var longest time.Duration
		for i := range 100 {
			d := b.NextBackOff()
			if i == 0 && d > 150*time.Millisecond {
				t.Errorf("timeout %v: %v at first", timeout, d)
			}
			longest = max(longest, d)
		}
		// They are random, by a half.
		if longest > most*3/2 || longest < most {
			t.Errorf("timeout %v: at most %v, want %v and a half", timeout, longest, most)
		}
	}
}
