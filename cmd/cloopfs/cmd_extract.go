package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/blockio"
)

func newExtractCmd() *cobra.Command {
	var o sourceOptions
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
				return usage(errors.New("extract: not writing a disk to a terminal"))
			}
			l, err := o.open(cmd.Context(), cmd.ErrOrStderr(), args[0])
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
	o.addFlags(cmd.Flags())
	return cmd
}

// extractTo writes the disk to path. A regular file that is there, or that a
// link there leads to, is replaced when the disk is complete, and lends its
// mode; a device is written in place.
func extractTo(ctx context.Context, l *line, path string) (err error) {
	mode := 0o666 &^ umask()
	if target, err := filepath.EvalSymlinks(path); err == nil {
		path = target
	}
	if info, err := os.Stat(path); err == nil {
		if !info.Mode().IsRegular() {
			return extractInto(ctx, l, path)
		}
		mode = info.Mode().Perm()
	}
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+".*")
	if err != nil {
		return outputFailure(err)
	}
	defer func() {
		if err != nil {
			f.Close()
			os.Remove(f.Name())
		}
	}()
	w := &sparseWriter{f: f}
	if err := extract(ctx, l, w); err != nil {
		return err
	}
	if err := errors.Join(w.finish(), f.Chmod(mode), f.Close()); err != nil {
		return outputFailure(err)
	}
	return outputFailure(os.Rename(f.Name(), path))
}

// extractInto writes the disk to a device, or to whatever else is at path.
func extractInto(ctx context.Context, l *line, path string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return outputFailure(err)
	}
	err = extract(ctx, l, f)
	return errors.Join(err, outputFailure(f.Close()))
}

// extract writes the disk to w.
func extract(ctx context.Context, l *line, w io.Writer) error {
	err := copyDisk(ctx, w, l.disk, l.index.BlockSize())
	var out *outputError
	var block *blockio.BlockError
	switch {
	case err == nil, errors.Is(err, context.Canceled) && ctx.Err() != nil:
		return err
	case errors.As(err, &out):
		return outputFailure(out.err)
	case errors.As(err, &block):
		return sourceFailure(block)
	}
	return sourceFailure(err)
}

// outputFailure says that the output could not be written; nil stays nil.
func outputFailure(err error) error {
	if err == nil {
		return nil
	}
	return &failure{code: exitFailure, err: fmt.Errorf("write the disk: %w", err)}
}
