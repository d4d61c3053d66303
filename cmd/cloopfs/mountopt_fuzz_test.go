package main

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/internal/cli"
)

// FuzzOptions has -o take any list. What is wrong with it is a usage error of one line
// that shows no value; a list that was taken apart, put together again, is the same.
func FuzzOptions(f *testing.F) {
	for _, s := range []string{
		"", "rw", "ro,allow_other,,", `header="A: b,c",gid=7`, `log_file=/a\,b\\`, `"`, "=", "a=b=c", "gid=SECRET,uid=7", "remount", "\x00=\xff", "timeout",
	} {
		f.Add(s, false)
	}
	newMountCmd().Flags().VisitAll(func(flag *pflag.Flag) { f.Add(flag.Name+"=SECRET", true) })
	f.Fuzz(func(t *testing.T, list string, sloppy bool) {
		options, err := splitOptions(list)
		if err == nil {
			again, err := splitOptions(joined(options))
			if diff := cmp.Diff(options, again, cmp.AllowUnexported(mountOption{})); err != nil || diff != "" {
				t.Errorf("joined again: %v (-want +got):\n%s", err, diff)
			}
		}
		cmd := newMountCmd()
		cmd.Flags().Lookup(optionsFlag).Value.(*optionsValue).sloppy = sloppy
		err = cmd.ParseFlags([]string{"-o", list})
		if err == nil {
			return
		}
		err = flagError(cmd, err)
		if cli.ExitCode(err) != cli.ExitUsage {
			t.Errorf("got error %v, want one of usage", err)
		}
		said := err.Error()
		if strings.ContainsFunc(said, func(r rune) bool { return r < ' ' }) {
			t.Errorf("got error %q, want one line", said)
		}
		for _, o := range options {
			if strings.Contains(o.name, "SECRET") {
				return // it may be named
			}
		}
		if strings.Contains(said, "SECRET") {
			t.Errorf("got error %q, which shows a value", said)
		}
	})
}

// joined is the list of these options.
func joined(options []mountOption) string {
	var words []string
	escape := strings.NewReplacer(`\`, `\\`, `"`, `\"`, ",", `\,`, "=", `"="`)
	for _, o := range options {
		word := escape.Replace(o.name)
		if o.hasValue {
			word += "=" + escape.Replace(o.value)
		}
		words = append(words, word)
	}
	return strings.Join(words, ",")
}
