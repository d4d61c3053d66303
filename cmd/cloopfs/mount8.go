package main

import (
	"fmt"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/internal/cli"
)

// mount8Name is the name under which mount(8) looks in /sbin for who mounts the
// type cloopfs.
const mount8Name = "mount.cloopfs"

// fromMount8 says whether mount(8) has called the program: under that name, or
// for the type fuse.cloopfs through mount.fuse(8), which runs exactly
// "cloopfs SOURCE DIR -o OPTIONS". mount(8) makes the paths of files absolute,
// so SOURCE has a slash, and a mistyped command is never taken for one.
func fromMount8(argv []string) bool {
	if len(argv) > 0 && filepath.Base(argv[0]) == mount8Name {
		return true
	}
	return len(argv) == 5 && argv[3] == "-o" && strings.Contains(argv[1], "/") &&
		!strings.HasPrefix(argv[1], "-") && !strings.HasPrefix(argv[2], "-")
}

// mount8Status is the exit status, in mount(8)'s terms, for one of ours.
func mount8Status(code int) int {
	switch code {
	case cli.ExitOK:
		return 0
	case cli.ExitUsage:
		return 1
	}
	return 32 // the mount failed
}

// mount8Options are the flags that mount(8) hands on.
type mount8Options struct {
	sloppy, fake, verbose bool
	options               []string
	namespace             string
}

// newMount8Cmd is the mount command with the arguments that mount(8) gives to
// its helpers.
func newMount8Cmd() *cobra.Command {
	var o mount8Options
	cmd := &cobra.Command{
		Use:   mount8Name + " [-sfnv] [-N NAMESPACE] [-o OPT[,OPT...]] SOURCE DIR",
		Short: "Mount an image for mount(8)",
		Long: `This is how mount(8) mounts the type cloopfs. The options are the flags of
"cloopfs mount" without dashes; see cloopfs mount --help.`,
		SilenceErrors:         true,
		SilenceUsage:          true,
		DisableFlagsInUseLine: true,
		Args:                  args(cobra.ExactArgs(2)),
		RunE:                  o.run,
	}
	cmd.SetFlagErrorFunc(flagError)
	f := cmd.Flags()
	f.BoolVarP(&o.sloppy, "sloppy", "s", false, "ignore unknown options")
	f.BoolVarP(&o.fake, "fake", "f", false, "check the arguments, and mount nothing")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log everything, unless the options say how much")
	f.BoolP("no-mtab", "n", false, "ignored: there is no /etc/mtab to write")
	f.StringP("types", "t", "", "ignored: the type, if it has a subtype")
	f.StringVarP(&o.namespace, "namespace", "N", "", "file of the mount namespace to mount in")
	f.StringArrayVarP(&o.options, "options", "o", nil, "options, separated by commas")
	return cmd
}

func (o *mount8Options) run(cmd *cobra.Command, args []string) error {
	if o.namespace != "" {
		err := execInNamespace(o.namespace, o.argv(args))
		return &cli.Error{Code: cli.ExitMount, Err: fmt.Errorf("enter the mount namespace %s: %w", o.namespace, cli.WithoutPath(err))}
	}
	mount := newMountCmd()
	mount.SetContext(cmd.Context())
	mount.SetErr(cmd.ErrOrStderr())
	flags := mount.Flags()
	options := flags.Lookup(optionsFlag).Value.(*optionsValue)
	options.sloppy = o.sloppy
	for _, list := range o.options {
		if err := options.Set(list); err != nil {
			return err
		}
	}
	if o.verbose && !flags.Changed("quiet") && !flags.Changed("log-level") {
		if err := flags.Set("verbose", "true"); err != nil {
			return err
		}
	}
	if err := mount.PreRunE(mount, args); err != nil || o.fake {
		return err
	}
	return mount.RunE(mount, args)
}

// argv is what the program was called with, without the namespace.
func (o *mount8Options) argv(args []string) []string {
	argv := []string{mount8Name}
	for flag, given := range map[string]bool{"-s": o.sloppy, "-f": o.fake, "-v": o.verbose} {
		if given {
			argv = append(argv, flag)
		}
	}
	for _, list := range o.options {
		argv = append(argv, "-o", list)
	}
	return append(append(argv, "--"), args...)
}
