package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/overlay"
)

func newOverlayCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "overlay",
		Short: "Look after what was written with mount --overlay",
	}
	cmd.AddCommand(newOverlayInfoCmd(), newOverlayDiscardCmd(), newOverlayCommitCmd())
	return cmd
}

func newOverlayInfoCmd() *cobra.Command {
	return &cobra.Command{
		Use:               "info DIR",
		Short:             "Say what an overlay lies over, and what is in it",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeArgs(completeDir),
		RunE: func(cmd *cobra.Command, args []string) error {
			info, err := overlay.Look(args[0])
			if err != nil {
				return overlayFailure(err)
			}
			return printOverlay(cmd.OutOrStdout(), info)
		},
	}
}

func printOverlay(w io.Writer, info overlay.Info) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	row(t, "base", "%s", info.Source)
	row(t, "disk", "%s", exactSize(info.Size))
	row(t, "changed", "%s", exactSize(info.Changed))
	row(t, "takes", "%s", formatSize(info.Room))
	state := "clean"
	switch {
	case info.InUse:
		state = "in use"
	case !info.Clean:
		state = "not closed: what its last user had not flushed may be missing"
	}
	row(t, "state", "%s", state)
	return t.Flush()
}

func newOverlayDiscardCmd() *cobra.Command {
	return &cobra.Command{
		Use:   "discard DIR",
		Short: "Throw away what was written",
		Long: `Throw away what was written with mount --overlay DIR. DIR stays, empty, and can be
used for a new overlay. It is refused while a mount uses it.`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeArgs(completeDir),
		RunE: func(_ *cobra.Command, args []string) error {
			dir, err := overlay.Open(args[0])
			if err != nil {
				return overlayFailure(err)
			}
			if err := dir.Discard(); err != nil {
				return overlayFailure(fmt.Errorf("discard the overlay: %w", err))
			}
			return nil
		},
	}
}
