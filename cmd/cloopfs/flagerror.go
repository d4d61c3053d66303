package main

import (
	"errors"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
)

// flagError is what is wrong with a flag. The flags' library would show the
// value as it is, and a forgotten value makes that the next argument.
func flagError(_ *cobra.Command, err error) error {
	if f, ok := errors.AsType[*cli.Error](err); ok {
		return f // the flag has said it all
	}
	if value, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		given := line.Shown(value.GetValue())
		if given == "" {
			given = "''"
		}
		err = fmt.Errorf("--%s %s: %w", value.GetFlag().Name, given, valueError(value))
	}
	return cli.Usage(err)
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
