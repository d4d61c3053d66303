package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"strings"

	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/profile"
)

// profileOptions say what is fetched before it is asked for.
type profileOptions struct {
	Profile   profileValue // a file's path, absolute after complete, or URL, or one of the values below; empty: none
	Record    cli.Name     // absolute after complete; empty: nothing is recorded
	Speculate autoValue
}

// Values of --profile that are neither a file's path nor a URL.
const (
	profileAuto = "auto"
	profileNone = "none"
)

// profileValue is the value of --profile. It shows no secrets of a URL.
type profileValue string

func (v *profileValue) Set(s string) error { return (*cli.Name)(v).Set(s) }

func (v *profileValue) String() string {
	if v.isURL() {
		return line.Shown(string(*v))
	}
	return string(*v)
}

func (v *profileValue) Type() string { return "string" }

func (v *profileValue) isURL() bool { return strings.Contains(string(*v), "://") }

func (v *profileValue) isFile() bool {
	return !v.isURL() && *v != profileAuto && *v != profileNone && *v != ""
}

// autoValue is the value of a flag that is auto or off.
type autoValue bool

func (v *autoValue) Set(s string) error {
	if s != "auto" && s != "off" {
		return errors.New("neither auto nor off")
	}
	*v = s == "auto"
	return nil
}

func (v *autoValue) String() string {
	if *v {
		return "auto"
	}
	return "off"
}

func (v *autoValue) Type() string { return "auto|off" }

func (o *profileOptions) addFlags(f *pflag.FlagSet) {
	o.Profile, o.Speculate = profileAuto, true
	f.Var(&o.Profile, "profile", "access trace to replay: `FILE|URL`, auto (SOURCE.profile, if there is one) or none")
	f.Var(&o.Record, "record", "write which blocks are read, in the order of their first use, to `FILE`")
	f.Var(&o.Speculate, "speculate", "fetch what is likely to be read while the line is idle, or not")
}

func (o *profileOptions) complete() (err error) {
	switch {
	case o.Profile.isFile():
		err = (*cli.Name)(&o.Profile).MakeAbsolute()
	case o.Profile.isURL():
		_, err = line.Parse(string(o.Profile))
	}
	if err == nil && o.Record != "" {
		err = o.Record.MakeAbsolute()
	}
	return err
}

// file is the profile in the file that is asked for, nil if none is.
func (o *profileOptions) file() (*profile.Profile, error) {
	if !o.Profile.isFile() {
		return nil, nil
	}
	p, err := readProfile(string(o.Profile))
	if errors.Is(err, os.ErrNotExist) && string(o.Profile) == string(o.Record) {
		return nil, nil // the first session
	}
	if err != nil {
		return nil, profileFailure(fmt.Errorf("--profile: %w", err))
	}
	return p, nil
}

// profileFailure says that a profile can't be used.
func profileFailure(err error) error {
	f := &cli.Error{Code: cli.ExitFailure, Err: err}
	switch {
	case errors.Is(err, profile.ErrVersion):
		f.Hint = "record it again, with mount --record: another version of cloopfs has made it"
	case errors.Is(err, profile.ErrFormat), errors.Is(err, profile.ErrDamaged):
		f.Hint = "record it again, with mount --record"
	case errors.Is(err, profile.ErrOther):
		f.Hint = "each version of an image needs a profile of its own: mount --record"
	case errors.Is(err, os.ErrNotExist):
		f.Hint = "mount --record makes one"
	}
	return f
}

// readProfile reads the profile in a file.
func readProfile(path string) (*profile.Profile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := profile.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", cli.Quote(path), err)
	}
	return p, nil
}

// replayRemote replays the profile that is asked for by its URL, or that lies beside
// the image.
func (o *profileOptions) replayRemote(ctx context.Context, l *line.Line, opt line.Options, log *slog.Logger) {
	switch {
	case o.Profile.isURL():
		l.ReplayRemote(ctx, string(o.Profile), opt, log)
	case o.Profile == profileAuto:
		l.ReplayRemote(ctx, "", opt, log)
	}
}
