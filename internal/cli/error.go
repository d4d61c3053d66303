// Package cli is how the program speaks to people and scripts: exit statuses, errors with
// what may help, and messages of which no part looks like another's.
package cli

import (
	"errors"
	"io"
	"os"
)

// Exit statuses, part of the contract with scripts.
const (
	ExitOK          = 0
	ExitFailure     = 1   // any other failure
	ExitUsage       = 2   // wrong arguments
	ExitImage       = 3   // the image is invalid or corrupt, or not as signed
	ExitSource      = 4   // the source is unreachable, refuses, or has changed
	ExitMount       = 5   // the mount failed, or the mountpoint is not fit for it
	ExitInterrupted = 130 // ended by a signal
)

// Error is an error with its exit status, and what may help.
type Error struct {
	Code int
	Err  error
	Hint string // may be empty
}

func (e *Error) Error() string { return e.Err.Error() }

func (e *Error) Unwrap() error { return e.Err }

// Usage is an Error for wrong arguments.
func Usage(err error) error { return &Error{Code: ExitUsage, Err: err} }

// ExitCode is the exit status that err stands for.
func ExitCode(err error) int {
	if e, ok := errors.AsType[*Error](err); ok {
		return e.Code
	}
	return ExitFailure
}

// Report prints err as users see errors.
func Report(w io.Writer, err error) {
	Say(w, "%s", err.Error())
	var e *Error
	if errors.As(err, &e) && e.Hint != "" {
		Say(w, "hint: %s", e.Hint)
	}
}

// WithoutPath is the reason in an error of package os.
func WithoutPath(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}
