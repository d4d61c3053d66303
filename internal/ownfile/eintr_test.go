package ownfile

import (
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestIgnoringEINTR(t *testing.T) {
	other := errors.New("other")
	for _, end := range []error{nil, other, unix.EIO} {
		answers := []error{unix.EINTR, unix.EINTR, end, errors.New("called once more")}
		calls := 0
		err := IgnoringEINTR(func() error { calls++; return answers[calls-1] })
		if err != end || calls != 3 {
			t.Errorf("%v after %d calls, want %v after 3", err, calls, end)
		}
	}
}
