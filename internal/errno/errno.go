// Package errno turns errors into what the kernel and its users understand.
package errno

import (
	"context"
	"errors"
	"syscall"
)

// From returns the error number that stands for err at a reader: EINTR if the
// reader gave up (its context was cancelled), EIO for everything else. A
// network error's own number must not reach cat(1).
func From(err error) syscall.Errno {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	}
	return syscall.EIO
}
