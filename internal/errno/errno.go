// Package errno turns errors into what the kernel and its users understand.
package errno

import (
	"context"
	"errors"
	"syscall"

	"github.com/cloopfs/cloopfs/blockio"
)

// told are the numbers that mean the same to a reader or writer of the disk as to us,
// who met them where the writes are kept.
var told = []syscall.Errno{syscall.ENOSPC, syscall.EDQUOT, syscall.EROFS}

// From returns the error number that stands for err at a reader or writer: EINTR if
// he gave up (his context was cancelled); ENOSPC, EDQUOT and EROFS if err wraps them;
// ENOSPC for what does not lie within the disk; EIO for everything else. A network
// error's own number must not reach cat(1), and ENOSYS would make the kernel take
// every later call of its kind for done.
func From(err error) syscall.Errno {
	switch {
	case err == nil:
		return 0
	case errors.Is(err, context.Canceled):
		return syscall.EINTR
	case errors.Is(err, blockio.ErrBeyondDevice):
		return syscall.ENOSPC
	}
	for _, e := range told {
		if errors.Is(err, e) {
			return e
		}
	}
	return syscall.EIO
}
