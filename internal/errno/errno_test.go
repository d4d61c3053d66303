package errno_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
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
		{fmt.Errorf("flush: %w", syscall.ENOSYS), syscall.EIO},
		{fmt.Errorf("write: %w", &os.PathError{Op: "write", Path: "data", Err: syscall.ENOSPC}), syscall.ENOSPC},
		{fmt.Errorf("write: %w", syscall.EDQUOT), syscall.EDQUOT},
		{fmt.Errorf("write: %w", syscall.EROFS), syscall.EROFS},
		{errors.Join(errors.New("write"), fmt.Errorf("%w: bytes 1+1 of 1", blockio.ErrBeyondDevice)), syscall.ENOSPC},
	} {
		if got := errno.From(c.err); got != c.want {
			t.Errorf("From(%v) = %v, want %v", c.err, got, c.want)
		}
	}
}
