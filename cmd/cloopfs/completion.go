package main

import (
	"errors"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
)

// What the shell completes an argument with by itself.
const (
	completeFile = cobra.ShellCompDirectiveDefault
	completeDir  = cobra.ShellCompDirectiveFilterDirs
)

// completeArgs completes each argument in its way, and none beyond.
func completeArgs(ways ...cobra.ShellCompDirective) cobra.CompletionFunc {
	return func(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
		if len(args) < len(ways) {
			return nil, ways[len(args)]
		}
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
}

// completeMountpoint completes one argument with the mounts that are the user's.
func completeMountpoint(_ *cobra.Command, args []string, _ string) ([]cobra.Completion, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	list, err := mountsToAsk(nil)
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var points []cobra.Completion
	for _, m := range list {
		points = append(points, m.Point)
	}
	return points, cobra.ShellCompDirectiveNoFileComp
}

// completeFlags completes the values of flags of a command and those below it.
func completeFlags(cmd *cobra.Command) {
	completeFlag(cmd, "log-level", "debug", "info", "warn", "error")
	completeFlag(cmd, "format", line.Formats()...)
	completeFlag(cmd, "codec", codecs...)
	completeFlag(cmd, "layout", layouts...)
	completeFlag(cmd, "speculate", "auto", "off")
	for _, below := range cmd.Commands() {
		completeFlags(below)
	}
}

// addCompletion completes the values of flags, and adds the command that prints
// the shells' scripts. That is cobra's, but for wrong arguments, which are usage
// errors here.
func addCompletion(root *cobra.Command) {
	completeFlags(root)
	root.InitDefaultCompletionCmd()
	for _, cmd := range root.Commands() {
		if cmd.Name() != "completion" {
			continue
		}
		cmd.Args = args(cobra.NoArgs)
		cmd.RunE = func(*cobra.Command, []string) error {
			return &cli.Error{Code: cli.ExitUsage, Err: errors.New("no shell given"), Hint: "cloopfs completion --help"}
		}
		for _, shell := range cmd.Commands() {
			shell.Args = args(cobra.NoArgs)
		}
	}
}

// completeFlag completes a flag, if cmd has it.
func completeFlag(cmd *cobra.Command, name string, values ...string) {
	// The error is that it has not.
	_ = cmd.RegisterFlagCompletionFunc(name, cobra.FixedCompletions(values, cobra.ShellCompDirectiveNoFileComp))
}
