package localfile

import (
	"context"
	"errors"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"
)

// Who waits for a call that is stuck waits no longer than his context; no more than maxBusy
// are stuck at a time, and when they go on so do others.
func TestLeftBehind(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f := &File{busy: make(chan struct{}, maxBusy)}
		release := make(chan struct{})
		var calls atomic.Int64
		try := func() error {
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			n, err := aside(ctx, f, func() (int, error) {
				calls.Add(1)
				<-release
				return 7, nil
			})
			if err == nil && n != 7 {
				t.Errorf("a call has returned %d, want 7", n)
			}
			return err
		}
		for range maxBusy + 10 {
			begin := time.Now()
			if err := try(); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != time.Second {
				t.Errorf("%v after %v, want the context's end", err, time.Since(begin))
			}
		}
		if calls := calls.Load(); calls != maxBusy {
			t.Errorf("%d calls are stuck, want %d", calls, maxBusy)
		}
		close(release)
		if err := try(); err != nil {
			t.Errorf("after that: %v", err)
		}
	})
}
