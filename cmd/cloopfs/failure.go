package main

import (
	"errors"
	"io"
	"os"
)

// Exit statuses, part of the contract with scripts.
const (
	exitOK          = 0
	exitFailure     = 1   // any other failure
	exitUsage       = 2   // wrong arguments
	exitImage       = 3   // the image is invalid or corrupt, or not as signed
	exitSource      = 4   // the source is unreachable, refuses, or has changed
	exitMount       = 5   // the mount failed, or the mountpoint is not fit for it
	exitInterrupted = 130 // ended by a signal
)

// failure is an error with its exit status, and what may help.
type failure struct {
	code int
	err  error
	hint string // may be empty
}

func (f *failure) Error() string { return f.err.Error() }

func (f *failure) Unwrap() error { return f.err }

// usage is a failure for wrong arguments.
func usage(err error) error { return &failure{code: exitUsage, err: err} }

// exitCode is the exit status that err stands for.
func exitCode(err error) int {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.code
	}
	return exitFailure
}

// report prints err as users see errors.
func report(w io.Writer, err error) {
	say(w, "%s", err.Error())
	var f *failure
	if errors.As(err, &f) && f.hint != "" {
		say(w, "hint: %s", f.hint)
	}
}

// withoutPath is the reason in an error of package os.
func withoutPath(err error) error {
	if p, ok := errors.AsType[*os.PathError](err); ok {
		return p.Err
	}
	return err
}
