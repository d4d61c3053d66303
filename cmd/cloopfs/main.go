// Command cloopfs mounts compressed disk images straight from a web server.
//
// A command has a file of its own, cmd_*.go. The others:
//
//   - what is brought ahead: profiles.go, recording.go; the whole image: bring.go, part.go, fill.go
//   - the process that serves a mount: background.go, foreground.go, serve.go, served.go, partitions.go, writing.go, report.go,
//     outage.go, rootdisk.go, privileges.go; how a crash gets into the log: crash.go
//   - mount(8): mount8.go, mountopt.go; what is said after mounting: announce.go; what may not lie
//     below a mountpoint: below.go, namespace.go
//   - files that are written: newfile.go, copydisk.go
//   - what people see: flagerror.go (wrong flags), progress.go, completion.go
//
// SOURCE, its flags and the way from there to the disk are package line's, exit statuses and
// messages package cli's, the log of a mount package daemonlog's.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
)

// endSignals ask the program to end. From the start of main on they lack SIGHUP and SIGINT where
// whoever started it had them ignored: nohup(1), a script for what runs in the background.
// (Notify would undo that. Of other signals Ignored says no, so SIGTERM is always heard.)
var endSignals = []os.Signal{os.Interrupt, syscall.SIGTERM, syscall.SIGHUP}

func main() {
	if inCrashLog() {
		os.Exit(runCrashLog())
	}
	endSignals = slices.DeleteFunc(endSignals, signal.Ignored)
	ctx, stop := signal.NotifyContext(context.Background(), endSignals...)
	context.AfterFunc(ctx, stop) // a second signal kills
	if inBackground() {
		os.Exit(runBackground(ctx))
	}
	if inForeground() {
		os.Exit(runForeground(ctx))
	}
	if fromMount8(os.Args) {
		os.Exit(mount8Status(run(ctx, newMount8Cmd(), os.Args[1:], os.Stdout, os.Stderr)))
	}
	os.Exit(run(ctx, newRootCmd(), os.Args[1:], os.Stdout, os.Stderr))
}

// run is the whole program: it returns the exit status.
func run(ctx context.Context, root *cobra.Command, args []string, stdout, stderr io.Writer) int {
	root.SetArgs(args)
	root.SetOut(stdout)
	root.SetErr(stderr)
	return finish(ctx, root.ExecuteContext(ctx), stderr)
}

// finish says why the program failed, if it did, and returns its exit status.
func finish(ctx context.Context, err error, stderr io.Writer) int {
	if err == nil {
		return cli.ExitOK
	}
	if ctx.Err() != nil && errors.Is(err, context.Canceled) {
		return cli.ExitInterrupted
	}
	cli.Report(stderr, err)
	return cli.ExitCode(err)
}

func newRootCmd() *cobra.Command {
	root := &cobra.Command{
		Use:   "cloopfs",
		Short: "Mount compressed disk images straight from a web server",
		Long: `cloopfs mounts compressed disk images (cloop, KNOPPIX's format) straight from
a web server: blocks are fetched when they are read, decoded in memory, and
shown as one disk file for loop devices and guests.`,
		SilenceErrors: true,
		SilenceUsage:  true,
		Args:          cobra.ArbitraryArgs,
		RunE:          noCommand,

		SuggestionsMinimumDistance: 2, // letters
	}
	root.SetFlagErrorFunc(flagError)
	root.AddCommand(newMountCmd(), newUmountCmd(), newStatusCmd(), newInfoCmd(), newExtractCmd(), newVerifyCmd(), newCreateCmd(), newPrefetchCmd(), newCacheCmd(), newProfileCmd(), newOverlayCmd(), newManifestCmd(), newVersionCmd())
	addCompletion(root)
	return root
}

// noCommand is what runs when no command was given, or none that exists.
func noCommand(root *cobra.Command, args []string) error {
	if len(args) == 0 {
		return &cli.Error{Code: cli.ExitUsage, Err: errors.New("no command given"), Hint: "cloopfs --help"}
	}
	f := &cli.Error{Code: cli.ExitUsage, Err: fmt.Errorf("unknown command %q", line.Shown(args[0])), Hint: "cloopfs --help"}
	if like := root.SuggestionsFor(args[0]); len(like) > 0 {
		f.Hint = "cloopfs " + like[0]
	}
	return f
}

// args makes a wrong number of arguments a usage error.
func args(check cobra.PositionalArgs) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		err := check(cmd, args)
		if err == nil {
			return nil
		}
		if !cmd.HasSubCommands() { // else the argument was to be one
			err = wrongArgs(cmd, len(args))
		}
		return cli.Usage(err)
	}
}

// group is a command that stands for others.
func group(name, short string, commands ...*cobra.Command) *cobra.Command {
	cmd := &cobra.Command{
		Use:   name,
		Short: short,
		Args:  cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			f := &cli.Error{Code: cli.ExitUsage, Err: fmt.Errorf("%s: no command given", name), Hint: fmt.Sprintf("cloopfs %s --help", name)}
			if len(args) > 0 {
				f.Err = fmt.Errorf("%s: unknown command %q", name, line.Shown(args[0]))
			}
			return f
		},
	}
	cmd.AddCommand(commands...)
	return cmd
}

// wrongArgs says which arguments are missing, or that there are too many. Those are
// not quoted: the value of a flag may be among them.
func wrongArgs(cmd *cobra.Command, given int) error {
	var needed, all []string
	depth := 0 // of brackets
	for _, word := range strings.Fields(cmd.Use)[1:] {
		begin := depth
		depth += strings.Count(word, "[") - strings.Count(word, "]")
		name, _, _ := strings.Cut(strings.Trim(word, "[]."), "|")
		switch {
		case begin > 0, name == "flags", strings.HasPrefix(name, "-"):
			continue // a flag, or its value
		case word[0] != '[':
			needed = append(needed, name)
		}
		all = append(all, name)
	}
	_, path, _ := strings.Cut(cmd.CommandPath(), " ")
	if path != "" {
		path += ": "
	}
	switch {
	case given < len(needed):
		return fmt.Errorf("%s%s missing", path, strings.Join(needed[given:], " and "))
	case len(all) == 0:
		return fmt.Errorf("%stakes no arguments", path)
	}
	return fmt.Errorf("%stakes %s and no more, but %d arguments were given", path, strings.Join(all, " and "), given)
}
