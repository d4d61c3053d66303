package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/internal/cli"
)

// optionsFlag is the name of the flag -o, which stands for others.
const optionsFlag = "options"

// optionsValue is the value of -o: setting it sets the flags it names, so of -o
// and a flag the later one wins.
type optionsValue struct {
	flags    *pflag.FlagSet
	sloppy   bool // what is unknown is ignored
	readOnly bool // "ro" was among them, and no "rw" after it
}

func (v *optionsValue) String() string { return "" }
func (v *optionsValue) Type() string   { return "OPT[,OPT...]" }

// Set takes a list as mount(8) has it. What is wrong with it is a *cli.Error that
// shows no values: they may be secrets.
func (v *optionsValue) Set(list string) error {
	options, err := splitOptions(list)
	if err != nil {
		return cli.Usage(fmt.Errorf("-o: %w", err))
	}
	for i, o := range options {
		if err := v.setOption(o); err != nil {
			name := o.name
			if !isOptionName(name) {
				name = fmt.Sprintf("(option %d)", i+1)
			}
			return &cli.Error{Code: cli.ExitUsage, Err: fmt.Errorf("-o %s: %w", name, err), Hint: optionHints[name]}
		}
	}
	return nil
}

// setOption sets the flag that an option stands for.
func (v *optionsValue) setOption(o mountOption) error {
	name := strings.ReplaceAll(o.name, "_", "-")
	if why, ok := refusedOptions[name]; ok {
		return errors.New(why)
	}
	if o.name == "ro" || o.name == "rw" { // mount(8) always says one of them
		v.readOnly = o.name == "ro"
	}
	if isIgnored(o.name) {
		return nil
	}
	f := v.flags.Lookup(name)
	switch {
	case f == nil && v.sloppy:
		return nil
	case f == nil:
		return errors.New("unknown option")
	case !o.hasValue && f.NoOptDefVal == "":
		return errors.New("needs a value")
	case !o.hasValue:
		o.value = f.NoOptDefVal
	}
	err := v.flags.Set(name, o.value)
	if invalid, ok := errors.AsType[*pflag.InvalidValueError](err); ok {
		return valueError(invalid)
	}
	return err
}

// refusedOptions are refused even where unknown ones are ignored, and why.
var refusedOptions = map[string]string{
	"remount": "a mount can't be changed",
	// mount(8) would wait until the disk is unmounted, and a boot with it.
	"foreground": "mount(8) waits for its helper to end",
	"help":       "not an option of a mount",
	optionsFlag:  "not an option of a mount",
}

var optionHints = map[string]string{
	"remount": "unmount it, and mount it again with the new options",
}

// ignoredOptions are those of every file system that have no meaning here, or
// that mount(8) alone acts on.
var ignoredOptions = strings.Fields(`
	rw ro defaults auto noauto user nouser users nousers owner noowner group nogroup
	exec noexec suid nosuid dev nodev async sync dirsync
	atime noatime diratime nodiratime relatime norelatime strictatime nostrictatime lazytime nolazytime
	nofail _netdev comment`)

func isIgnored(name string) bool {
	return strings.HasPrefix(name, "x-") || strings.HasPrefix(name, "X-") || slices.Contains(ignoredOptions, name)
}

// isOptionName says whether s looks like an option's name, and not like what
// follows a comma in a value that should have been quoted.
func isOptionName(s string) bool {
	return s != "" && len(s) <= 32 && strings.Trim(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_-") == ""
}

// mountOption is NAME or NAME=VALUE.
type mountOption struct {
	name, value string
	hasValue    bool
}

// splitOptions takes a list of options apart, as mount(8) does: a comma between
// double quotes or after a backslash is none. The quotes go, and so does a
// backslash before a comma, a quote or a backslash; between quotes it stays.
func splitOptions(list string) (options []mountOption, err error) {
	var o mountOption
	var word []byte
	end := func() {
		if o.hasValue {
			o.value = string(word)
		} else {
			o.name = string(word)
		}
		if o != (mountOption{}) {
			options = append(options, o)
		}
		o, word = mountOption{}, nil
	}
	quoted := false
	for i := 0; i < len(list); i++ {
		c := list[i]
		switch {
		case c == '"':
			quoted = !quoted
		case quoted:
			word = append(word, c)
		case c == '\\' && i+1 < len(list) && strings.IndexByte(`,"\`, list[i+1]) >= 0:
			i++
			word = append(word, list[i])
		case c == ',':
			end()
		case c == '=' && !o.hasValue:
			o.name, o.hasValue, word = string(word), true, nil
		default:
			word = append(word, c)
		}
	}
	if quoted {
		return nil, errors.New("a quote is not closed")
	}
	end()
	return options, nil
}
