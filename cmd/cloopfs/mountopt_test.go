package main

import (
	"errors"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/internal/cli"
)

func TestSplitOptions(t *testing.T) {
	flag := func(name string) mountOption { return mountOption{name: name} }
	pair := func(name, value string) mountOption { return mountOption{name: name, value: value, hasValue: true} }
	tests := []struct {
		in   string
		want []mountOption
	}{
		{"", nil},
		{",", nil},
		{",,ro,,", []mountOption{flag("ro")}},
		{"rw", []mountOption{flag("rw")}},
		{"ro,allow_other", []mountOption{flag("ro"), flag("allow_other")}},
		{"a=1,b=2", []mountOption{pair("a", "1"), pair("b", "2")}},
		{"a=,b", []mountOption{pair("a", ""), flag("b")}},
		{"=a", []mountOption{pair("", "a")}},
		{"=", []mountOption{pair("", "")}},
		{"a=b=c==", []mountOption{pair("a", "b=c==")}},
		{`h="A: b,c",d`, []mountOption{pair("h", "A: b,c"), flag("d")}},
		{`"h=A: b,c",d`, []mountOption{flag("h=A: b,c"), flag("d")}},
		{`h=A" "b","c,d`, []mountOption{pair("h", "A b,c"), flag("d")}},
		{`h="",d`, []mountOption{pair("h", ""), flag("d")}},
		{`h=a\,b,d`, []mountOption{pair("h", "a,b"), flag("d")}},
		{`h=a\\,d`, []mountOption{pair("h", `a\`), flag("d")}},
		{`h=a\\\,d`, []mountOption{pair("h", `a\,d`)}},
		{`h=\"a,d`, []mountOption{pair("h", `"a`), flag("d")}},
		{`h=DOMAIN\user,d`, []mountOption{pair("h", `DOMAIN\user`), flag("d")}},
		{`h="a\,b\\",d`, []mountOption{pair("h", `a\,b\\`), flag("d")}},
		{`h="a\",d`, []mountOption{pair("h", `a\`), flag("d")}},
		{`h=a\`, []mountOption{pair("h", `a\`)}},
		{"h=a b\tc", []mountOption{pair("h", "a b\tc")}},
		{"h=Grüße\xff", []mountOption{pair("h", "Grüße\xff")}},
	}
	for _, tt := range tests {
		got, err := splitOptions(tt.in)
		if err != nil {
			t.Errorf("%q: %v", tt.in, err)
		}
		if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(mountOption{})); diff != "" {
			t.Errorf("options of %q (-want +got):\n%s", tt.in, diff)
		}
	}
	for _, in := range []string{`"`, `a="b,c`, `a="b",c="`} {
		if got, err := splitOptions(in); err == nil {
			t.Errorf("%q: got %v, want an error", in, got)
		}
	}
}

// What -o does to the flags, and that its messages show no values.
func TestOptions(t *testing.T) {
	tests := []struct {
		name   string
		args   []string
		sloppy bool
		want   string // the flags that are set
		err    string // or the error
	}{
		{name: "none", args: nil},
		{name: "empty", args: []string{"-o", ""}},
		{name: "underscores", args: []string{"-o", "allow_other,log_level=warn"}, want: "--allow-other=true --log-level=warn"},
		{name: "dashes", args: []string{"-o", "allow-other,log-level=warn"}, want: "--allow-other=true --log-level=warn"},
		{name: "boolean with value", args: []string{"-o", "allow_other=false,quiet=1"}, want: "--allow-other=false --quiet=true"},
		{name: "units", args: []string{"-o", "memory=1G,timeout=5"}, want: "--memory=1GiB --timeout=5s"},
		{name: "quoted", args: []string{"-o", `log_file="/a,b",gid=7`}, want: "--gid=7 --log-file=/a,b"},
		{name: "escaped", args: []string{"-o", `log_file=/a\,b`}, want: "--log-file=/a,b"},
		{name: "attached", args: []string{"-ogid=7"}, want: "--gid=7"},
		{name: "long", args: []string{"--options=gid=7"}, want: "--gid=7"},
		{name: "repeated", args: []string{"-o", "gid=7", "-o", "uid=8"}, want: "--gid=7 --uid=8"},
		{name: "later option wins", args: []string{"-o", "gid=7,gid=8"}, want: "--gid=8"},
		{name: "later list wins", args: []string{"-o", "gid=7", "-o", "gid=8"}, want: "--gid=8"},
		{name: "later flag wins", args: []string{"-o", "gid=7", "--gid=8"}, want: "--gid=8"},
		{name: "later option wins over a flag", args: []string{"--gid=8", "-o", "gid=7"}, want: "--gid=7"},
		{name: "read-only and back", args: []string{"-o", "ro,rw"}},
		{name: "ignored", args: []string{"-o", "defaults,auto,noauto,user,nouser,users,owner,exec,noexec,suid,nosuid,dev,nodev,async,sync"}},
		{name: "ignored times", args: []string{"-o", "atime,noatime,relatime,diratime,nodiratime,strictatime,lazytime"}},
		{name: "ignored, for mount(8)", args: []string{"-o", "nofail,_netdev,comment=a b,x-systemd.automount,x-systemd.requires=/a,X-mount.mkdir,user=bob"}},
		{name: "unknown", args: []string{"-o", "colour=SECRET"}, err: "-o colour: unknown option"},
		{name: "unknown, sloppy", args: []string{"-o", "colour=SECRET,gid=7"}, sloppy: true, want: "--gid=7"},
		{name: "one letter", args: []string{"-o", "f"}, err: "-o f: unknown option"},
		{name: "upper case", args: []string{"-o", "GID=7"}, err: "-o GID: unknown option"},
		{name: "no name", args: []string{"-o", "gid=7,=SECRET"}, err: "-o (option 2): unknown option"},
		{name: "end of an unquoted value", args: []string{"-o", "log_file=a, Bearer SECRET"}, err: "-o (option 2): unknown option"},
		{name: "URL", args: []string{"-o", "http://u:SECRET@h/f?SECRET"}, err: "-o (option 1): unknown option"},
		{name: "no value", args: []string{"-o", "timeout"}, err: "-o timeout: needs a value"},
		{name: "no value, sloppy", args: []string{"-o", "timeout"}, sloppy: true, err: "-o timeout: needs a value"},
		{name: "bad value", args: []string{"-o", "timeout=SECRET"}, err: "-o timeout: not a duration such as 30s"},
		{name: "bad number", args: []string{"-o", "gid=SECRET"}, err: "-o gid: not a usable number"},
		{name: "bad boolean", args: []string{"-o", "allow_other=SECRET"}, err: "-o allow_other: neither true nor false"},
		{name: "bad value, sloppy", args: []string{"-o", "memory=SECRET"}, sloppy: true, err: "-o memory: not a size such as 64MiB"},
		{name: "open quote", args: []string{"-o", `log_file="SECRET`}, err: "-o: a quote is not closed"},
		{name: "remount", args: []string{"-o", "remount,gid=7"}, sloppy: true, err: "-o remount: a mount can't be changed"},
		{name: "foreground", args: []string{"-o", "foreground"}, sloppy: true, err: "-o foreground: mount(8) waits for its helper to end"},
		{name: "help", args: []string{"-o", "help"}, sloppy: true, err: "-o help: not an option of a mount"},
		{name: "options", args: []string{"-o", "options=gid=7"}, sloppy: true, err: "-o options: not an option of a mount"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			cmd := newMountCmd()
			cmd.Flags().Lookup(optionsFlag).Value.(*optionsValue).sloppy = tt.sloppy
			err := cmd.ParseFlags(tt.args)
			if tt.err != "" {
				err = flagError(cmd, err)
				if err == nil || err.Error() != tt.err || cli.ExitCode(err) != cli.ExitUsage {
					t.Errorf("got error %v, want the usage error %q", err, tt.err)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			args := backgroundArgs(cmd.Flags(), mountOptions{})
			if got := strings.Join(args[2:len(args)-2], " "); got != tt.want {
				t.Errorf("got the flags %q, want %q", got, tt.want)
			}
		})
	}
}

// Every flag is an option, but for those that are refused.
func TestEveryFlagIsAnOption(t *testing.T) {
	cmd := newMountCmd()
	cmd.Flags().VisitAll(func(f *pflag.Flag) {
		_, refused := refusedOptions[f.Name]
		o := mountOption{name: strings.ReplaceAll(f.Name, "-", "_"), value: f.DefValue, hasValue: f.NoOptDefVal == ""}
		err := (&optionsValue{flags: cmd.Flags()}).setOption(o)
		if !f.Changed && !refused && err == nil {
			t.Errorf("-o %s does not set --%s", o.name, f.Name)
		}
	})
}

// What an option has to say is not lost on its way through the flags' library.
func TestFlagErrorKeepsFailure(t *testing.T) {
	cmd := newMountCmd()
	err := flagError(cmd, cmd.ParseFlags([]string{"-o", "remount"}))
	var f *cli.Error
	if !errors.As(err, &f) || f.Hint == "" {
		t.Errorf("got %v, want a failure with a hint", err)
	}
}

// What is ignored is no flag: it would be ignored, too.
func TestIgnoredOptionsAreNoFlags(t *testing.T) {
	newMountCmd().Flags().VisitAll(func(f *pflag.Flag) {
		if isIgnored(strings.ReplaceAll(f.Name, "-", "_")) || isIgnored(f.Name) {
			t.Errorf("-o %s is ignored", f.Name)
		}
	})
}
