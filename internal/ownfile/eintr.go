package ownfile

import "golang.org/x/sys/unix"

// IgnoringEINTR makes a system call again that a signal has ended. The runtime asks the
// kernel to do that (SA_RESTART), but not all file systems do.
func IgnoringEINTR(call func() error) error {
	for {
		if err := call(); err != unix.EINTR {
			return err
		}
	}
}
