// Package daemonlog is the log of the process that serves a mount: its flags, where it goes,
// and the [Queue] by which nobody who logs waits for that.
package daemonlog

import (
	"fmt"
	"io"
	"log/slog"
	"log/syslog"
	"os"
	"path/filepath"

	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/internal/cli"
)

// Options are the flags about the log.
type Options struct {
	Level   string
	File    string // absolute, or empty
	Verbose bool
	Quiet   bool
}

// AddFlags adds the flags.
func (o *Options) AddFlags(f *pflag.FlagSet) {
	f.StringVar(&o.Level, "log-level", "info", "debug, info, warn or error")
	f.StringVar(&o.File, "log-file", "", "append the log to this file (default stderr, in the background syslog)")
	f.BoolVarP(&o.Verbose, "verbose", "v", false, "short for --log-level debug")
	f.BoolVarP(&o.Quiet, "quiet", "q", false, "short for --log-level error")
}

// Validate checks the flags, and makes File absolute.
func (o *Options) Validate() error {
	switch {
	case o.Verbose && o.Quiet:
		return cli.Usage(fmt.Errorf("--verbose and --quiet exclude each other"))
	case o.Verbose:
		o.Level = "debug"
	case o.Quiet:
		o.Level = "error"
	}
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.Level)); err != nil {
		return cli.Usage(fmt.Errorf("--log-level %s: not debug, info, warn or error", o.Level))
	}
	if o.File == "" {
		return nil
	}
	abs, err := filepath.Abs(o.File)
	o.File = abs
	return err
}

// Open returns the logger: to the file if one is given, else to w, else to syslog.
// A machine without syslog gets no log. Close the queue when nothing more is to be said.
func (o *Options) Open(w io.Writer) (*slog.Logger, *Queue, error) {
	h, err := o.Handler(w)
	if err != nil {
		return nil, nil, err
	}
	log, queue := newQueue(h)
	return log, queue, nil
}

// Handler returns what writes the log, as soon as it is told.
func (o *Options) Handler(w io.Writer) (slog.Handler, error) {
	var level slog.Level
	if err := level.UnmarshalText([]byte(o.Level)); err != nil {
		return nil, err
	}
	switch {
	case o.File != "":
		f, err := os.OpenFile(o.File, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
		if err != nil {
			return nil, &cli.Error{Code: cli.ExitFailure, Err: fmt.Errorf("open the log: %w", err)}
		}
		w = f
	case w == nil:
		s, err := syslog.New(syslog.LOG_DAEMON|syslog.LOG_INFO, "cloopfs")
		if err != nil {
			return slog.DiscardHandler, nil
		}
		return newSyslogHandler(s, level), nil
	}
	return slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}), nil
}
