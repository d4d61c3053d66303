package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
)

func newExtractCmd() *cobra.Command {
	var o line.Options
	cmd := &cobra.Command{
		Use:   "extract [flags] SOURCE OUTPUT|-",
		Short: "Write the decoded disk to a file",
		Long: `Write the disk that the image at SOURCE decodes to into the file OUTPUT, with
holes where the disk has zeros, or to the standard output. A regular file gets
its name when it is complete.`,
		Example: `  cloopfs extract https://example.org/KNOPPIX knoppix.raw
  cloopfs extract https://example.org/KNOPPIX - | sha256sum`,
		Args:              args(cobra.ExactArgs(2)),
		ValidArgsFunction: completeArgs(completeFile, completeFile),
		RunE: func(cmd *cobra.Command, args []string) error {
			if args[1] == "-" && isTerminal(cmd.OutOrStdout()) {
				return cli.Usage(errors.New("extract: not writing a disk to a terminal"))
			}
			l, err := o.Open(cmd.Context(), cmd.ErrOrStderr(), args[0])
			if err != nil {
				return err
			}
			defer l.Close()
			if args[1] == "-" {
				return extract(cmd.Context(), l, cmd.OutOrStdout())
			}
			return extractTo(cmd.Context(), l, args[1])
		},
	}
	o.AddFlags(cmd.Flags(), userAgent())
	return cmd
}

// extractTo writes the disk to path. A regular file that is there, or that a
// link there leads to, is replaced when the disk is complete, and lends its
// mode; a device is written in place.
func extractTo(ctx context.Context, l *line.Line, path string) error {
	if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() {
		return extractInto(ctx, l, path)
	}
	var failed error // of extract, which says it all
	err := newFile(path, true, func(f *os.File) error {
		w := &sparseWriter{f: f}
		if failed = extract(ctx, l, w); failed != nil {
			return failed
		}
		return w.finish()
	})
	if failed != nil {
		return failed
	}
	return outputFailure(err)
}

// extractInto writes the disk to a device, or to whatever else is at path.
func extractInto(ctx context.Context, l *line.Line, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return outputFailure(err)
	}
	return errors.Join(extract(ctx, l, f), outputFailure(f.Close()))
}

// extract writes the disk to w, and makes it durable if w is a file.
func extract(ctx context.Context, l *line.Line, w io.Writer) error {
	err := copyDisk(ctx, w, l.Disk(), l.Index().BlockSize())
	if err == nil {
		err = tagOutput(syncOutput(w))
	}
	var out *outputError
	var block *blockio.BlockError
	switch {
	case err == nil, errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return err
	case errors.As(err, &out):
		return outputFailure(out.err)
	case errors.As(err, &block):
		return line.Failure(block)
	}
	return line.Failure(err)
}

// outputFailure says that the output could not be written; nil stays nil.
func outputFailure(err error) error {
	if err == nil {
		return nil
	}
	return &cli.Error{Code: cli.ExitFailure, Err: fmt.Errorf("write the disk: %w", err)}
}
