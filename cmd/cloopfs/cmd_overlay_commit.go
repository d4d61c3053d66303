package main

import (
	"errors"
	"os"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/internal/units"
	"github.com/cloopfs/cloopfs/overlay"
)

// commitOptions are the flags of overlay commit.
type commitOptions struct {
	line   line.Options
	source string
	force  bool
}

func newOverlayCommitCmd() *cobra.Command {
	var o commitOptions
	cmd := &cobra.Command{
		Use:   "commit [flags] DIR OUTPUT",
		Short: "Make a new image of the base and what was written",
		Long: `Make a new cloop image of the overlay's base and what was written over it. Blocks
without a change are copied as they are compressed; the others are compressed with
zlib. The new image has version 2.0, or 4.0 if its base has other codecs. It needs
neither the overlay, which stays as it is, nor the base. It is refused while a mount uses
the overlay. OUTPUT gets its name when it is complete; what is there is replaced with
--force only.

The base is read where it was when the overlay was made, unless --source says where it
is now. Passwords and query values are not kept in the overlay.`,
		Example: `  cloopfs overlay commit ~/changes new.cloop
  cloopfs overlay commit --source ./KNOPPIX ~/changes new.cloop`,
		Args:              args(cobra.ExactArgs(2)),
		ValidArgsFunction: completeArgs(completeDir, completeFile),
		RunE: func(cmd *cobra.Command, args []string) error {
			return o.run(cmd, args[0], args[1])
		},
	}
	o.line.AddFlags(cmd.Flags(), userAgent())
	cmd.Flags().StringVar(&o.source, "source", "", "where the overlay's base is now (`SOURCE`)")
	cmd.Flags().BoolVar(&o.force, "force", false, "replace OUTPUT")
	return cmd
}

// commitMemory is how much is kept of blocks that are changed in several places.
const commitMemory = 64 << 20

func (o *commitOptions) run(cmd *cobra.Command, path, output string) error {
	ctx, stderr := cmd.Context(), cmd.ErrOrStderr()
	if output == "-" {
		return &cli.Error{
			Code: cli.ExitUsage, Err: errors.New("overlay commit: OUTPUT has to be a file"),
			Hint: "the image's header comes first and is written last; ./- is a file of that name",
		}
	}
	dir, err := overlay.Open(path)
	if err != nil {
		return overlayFailure(err)
	}
	defer dir.Close()
	if info, err := os.Stat(path); err == nil && inside(output, info) {
		return misplaced(output, "it lies in the overlay's directory")
	}
	if !dir.Clean() {
		cli.Say(stderr, notClosed)
	}
	source := o.source
	if source == "" {
		source = dir.Base().Source
	}
	l, err := o.line.OpenWith(ctx, stderr, source, commitMemory)
	if err != nil {
		return o.hinted(err)
	}
	defer l.Close()
	if isAt(l.At(), output) {
		return misplaced(output, "it is the overlay's base")
	}
	base, err := baseOf(ctx, l)
	if err != nil {
		return err
	}
	disk, err := dir.View(l.Disk(), base)
	if err != nil {
		return overlayFailure(err)
	}
	defer disk.Close()

	var sum cloop.Summary
	err = newFileOf(cmd, output, o.force, disk.Size(), func(out taggedOutput, done func(int64)) (err error) {
		sum, err = cloop.Commit(ctx, out, changesOf(l, disk), cloop.Zlib, 9, done)
		return err
	})
	if err != nil {
		return writeFailure("image", err)
	}
	if sum.Padding > 0 {
		sayPadding(stderr, sum)
	}
	if isTerminal(stderr) {
		cli.Say(stderr, "%s in %s; %d of %d blocks as they were", units.FormatSize(sum.DiskSize), units.FormatSize(sum.ImageSize), sum.Copied, sum.Blocks)
	}
	return nil
}

// hinted adds to err, the failure to open the base, what may help.
func (o *commitOptions) hinted(err error) error {
	var f *cli.Error
	if o.source == "" && errors.As(err, &f) && f.Hint == "" {
		f.Hint = "--source says where the overlay's base is now"
	}
	return err
}

// changesOf is what an overlay over the line's disk has changed.
func changesOf(l *line.Line, disk *overlay.Disk) cloop.Changes {
	size := int64(l.Index().BlockSize())
	return cloop.Changes{
		Base: l.Index(), Runs: l.Runs(), Disk: disk,
		Changed: func(n int64) bool {
			return disk.Differs(blockio.Extent{Off: n * size, Len: min(size, disk.Size()-n*size)})
		},
	}
}
