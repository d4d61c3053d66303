package errno_test

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/cloopfs/cloopfs/internal/errno"
)

func TestFrom(t *testing.T) {
	for _, c := range []struct {
		err  error
		want syscall.Errno
	}{
		{nil, 0},
		{fmt.Errorf("read block 1: %w", context.Canceled), syscall.EINTR},
		{context.DeadlineExceeded, syscall.EIO},
		{errors.New("anything"), syscall.EIO},
		{fmt.Errorf("dial: %w", syscall.ECONNREFUSED), syscall.EIO},
	} {
		if got := errno.From(c.err); got != c.want {
			t.Errorf("From(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}
