package main

import (
	"fmt"
	"io"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/units"
	"github.com/cloopfs/cloopfs/overlay"
)

func newOverlayCmd() *cobra.Command {
	return group("overlay", "Look after what was written with mount --overlay",
		newOverlayInfoCmd(), newOverlayDiscardCmd(), newOverlayCommitCmd())
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
	cli.Row(t, "base", "%s", info.Source)
	cli.Row(t, "disk", "%s", units.ExactSize(info.Size))
	state, changed := "clean", units.ExactSize(info.Changed)
	switch {
	case info.InUse:
		state, changed = "in use", changed+" at the last flush"
	case !info.Clean:
		state = "not closed: what its last user had not flushed may be missing"
	}
	cli.Row(t, "changed", "%s", changed)
	cli.Row(t, "takes", "%s", units.FormatSize(info.Room))
	cli.Row(t, "state", "%s", state)
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
