package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
)

func newVerifyCmd() *cobra.Command {
	var o line.Options
	cmd := &cobra.Command{
		Use:   "verify [flags] SOURCE",
		Short: "Decode every block of an image, and list the bad ones",
		Long: `Decode every block of the image at SOURCE, on all cores, and print the bad ones: a
line for each stretch that is bad for the same reason. The exit status is 3 if there
are any. Blocks without a checksum of their own (stored as they are, lz4, LZO) are
right if they decode.`,
		Example:           `  cloopfs verify https://example.org/KNOPPIX`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeArgs(completeFile),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := o.Open(cmd.Context(), cmd.ErrOrStderr(), args[0])
			if err != nil {
				return err
			}
			defer l.Close()
			return verify(cmd.Context(), l, cmd.OutOrStdout())
		},
	}
	o.AddFlags(cmd.Flags(), userAgent())
	return cmd
}

// badRun is adjacent blocks, [first, end), that do not decode for the same reason.
type badRun struct {
	first, end int64
	reason     string
}

// String is the run as a line.
func (r badRun) String() string {
	if r.end-r.first == 1 {
		return fmt.Sprintf("block %d: %s", r.first, r.reason)
	}
	return fmt.Sprintf("blocks %d-%d: %s", r.first, r.end-1, r.reason)
}

// badList prints the bad blocks that it is told of, in order. Of what it was told
// it remembers the last run alone: it may go on.
type badList struct {
	w     io.Writer
	last  badRun
	count int64
}

func (b *badList) add(r badRun) {
	b.count += r.end - r.first
	if r.first == b.last.end && r.reason == b.last.reason {
		b.last.end = r.end
		return
	}
	b.flush()
	b.last = r
}

// flush prints the last run.
func (b *badList) flush() {
	if b.last != (badRun{}) {
		fmt.Fprintln(b.w, b.last)
	}
	b.last = badRun{}
}

// verify reads the whole disk and prints the blocks that can't be decoded.
func verify(ctx context.Context, l *line.Line, w io.Writer) error {
	bad := &badList{w: w}
	err := findBad(ctx, l, bad.add)
	bad.flush()
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return line.Failure(err)
	}
	if bad.count > 0 {
		return &cli.Error{Code: cli.ExitImage, Err: fmt.Errorf("%d of %d blocks are bad", bad.count, l.Index().Blocks())}
	}
	said := ""
	if l.Proof() != nil {
		said = ", as the manifest says"
	}
	fmt.Fprintf(w, "%d blocks are right%s\n", l.Index().Blocks(), said)
	return nil
}

// findBad finds the blocks that can't be decoded and tells of them in order. An error is one
// that is not the image's fault.
func findBad(ctx context.Context, l *line.Line, tell func(badRun)) error {
	type found struct {
		bad []badRun
		err error
	}
	read := func(ctx context.Context, buf []byte, off int64) found {
		bad, err := badIn(ctx, l, buf, off)
		return found{bad, err}
	}
	return readInOrder(ctx, l.Disk(), l.Index().BlockSize(), read, func(_ []byte, f found) error {
		for _, r := range f.bad {
			tell(r)
		}
		return f.err
	})
}

// badIn fills buf from the disk at off: at once, and block by block if that fails. With an
// error bad is those that were found before it.
func badIn(ctx context.Context, l *line.Line, buf []byte, off int64) (bad []badRun, err error) {
	_, err = l.Disk().ReadAtContext(ctx, buf, off)
	if err == nil {
		return nil, nil
	}
	size := int64(l.Index().BlockSize())
	for n := off / size; n*size < off+int64(len(buf)); n++ {
		_, err := l.Disk().ReadAtContext(ctx, buf[:min(size, l.Disk().Size()-n*size)], n*size)
		var be *blockio.BlockError
		switch {
		case err == nil:
		case line.BadBlock(err) && errors.As(err, &be):
			reason := reasonOf(be.Err)
			if k := len(bad) - 1; k >= 0 && bad[k].end == n && bad[k].reason == reason {
				bad[k].end++
				continue
			}
			bad = append(bad, badRun{n, n + 1, reason})
		default:
			return bad, err
		}
	}
	return bad, nil
}

// reasonOf is why a block is bad, in the same words for all that are bad for the
// same reason.
func reasonOf(err error) string {
	if entry, ok := errors.AsType[*cloop.EntryError](err); ok {
		return fmt.Sprintf("%v: %s", cloop.ErrCorrupt, entry.Reason)
	}
	return cli.OneLine(err.Error())
}
