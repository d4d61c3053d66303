package main

import (
	"errors"
	"fmt"
	"io"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/internal/iso9660"
	"github.com/cloopfs/cloopfs/internal/partition"
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

func usage(err error) error { return &failure{code: exitUsage, err: err} }

// flagError is what is wrong with a flag. The flags' library would show the
// value as it is, and a forgotten value makes that the next argument.
func flagError(_ *cobra.Command, err error) error {
	if f, ok := errors.AsType[*failure](err); ok {
		return f // the flag has said it all
	}
	if value, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		given := shown(value.GetValue())
		if given == "" {
			given = "''"
		}
		err = fmt.Errorf("--%s %s: %w", value.GetFlag().Name, given, valueError(value))
	}
	return usage(err)
}

// valueError is what is wrong with a flag's value, without that. What package strconv
// says would show it, and a function's name.
func valueError(err *pflag.InvalidValueError) error {
	var num *strconv.NumError
	switch inner := errors.Unwrap(err); {
	case !errors.As(inner, &num):
		return inner
	case num.Func == "ParseBool":
		return errors.New("neither true nor false")
	}
	return errors.New("not a usable number")
}

// exitCode is the exit status that err stands for.
func exitCode(err error) int {
	if f, ok := errors.AsType[*failure](err); ok {
		return f.code
	}
	return exitFailure
}

// sourceFailure says that an image could not be opened or read.
func sourceFailure(err error) error {
	f := &failure{code: exitSource, err: err, hint: sourceHint(err)}
	var notDisk *notDiskError
	var notInside *notInsideError
	switch {
	case notProven(err):
		f.code, f.hint = exitImage, proofHint(err)
	case errors.As(err, &notDisk):
		f.code, f.hint = exitImage, notDisk.kind.Hint
		if notDisk.kind.Name == "" {
			f.hint = "--format raw presents it as it is"
		}
	case errors.As(err, &notInside):
		f.hint = fmt.Sprintf("cloopfs info %s lists the images inside", quote(notInside.outer.String()))
	case errors.Is(err, cloop.ErrUnsupported):
		f.code, f.hint = exitImage, "unpack it with the tools that made it: the disk can be mounted as it is"
	case errors.Is(err, cloop.ErrFormat), errors.Is(err, cloop.ErrCorrupt), errors.Is(err, iso9660.ErrFormat), errors.Is(err, iso9660.ErrDamaged),
		errors.Is(err, partition.ErrDamaged), errors.Is(err, blockio.ErrBeyondEnd), errors.Is(err, blockio.ErrEmpty):
		f.code = exitImage
	case errors.Is(err, httpblock.ErrOptions):
		f.code = exitUsage
	}
	return f
}

// imageFault says that err is about what is in the image, and not about getting it.
func imageFault(err error) bool {
	return exitCode(sourceFailure(err)) == exitImage || errors.Is(err, iso9660.ErrNotFound)
}

// report prints err as users see errors.
func report(w io.Writer, err error) {
	say(w, "%s", err.Error())
	var f *failure
	if errors.As(err, &f) && f.hint != "" {
		say(w, "hint: %s", f.hint)
	}
}
