package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cloop"
)

func newVerifyCmd() *cobra.Command {
	var o sourceOptions
	cmd := &cobra.Command{
		Use:   "verify [flags] SOURCE",
		Short: "Decode every block of an image, and list the bad ones",
		Long: `Decode every block of the image at SOURCE, on all cores, and print the bad ones, a
line each. The exit status is 3 if there are any. Blocks without a checksum of
their own (stored as they are, lz4, LZO) are right if they decode.`,
		Example:           `  cloopfs verify https://example.org/KNOPPIX`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeArgs(completeFile),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := o.open(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			defer l.Close()
			return verify(cmd.Context(), l, cmd.OutOrStdout())
		},
	}
	o.addFlags(cmd.Flags())
	return cmd
}

// badBlock is a block that does not decode.
type badBlock struct {
	n   int64
	err error
}

// verify reads the whole disk and prints the blocks that can't be decoded.
func verify(ctx context.Context, l *line, w io.Writer) error {
	bad, err := findBad(ctx, l)
	if ctx.Err() != nil {
		return ctx.Err()
	}
	if err != nil {
		return sourceFailure(err)
	}
	for _, b := range bad {
		fmt.Fprintf(w, "block %d: %s\n", b.n, oneLine(b.err.Error()))
	}
	if len(bad) > 0 {
		return &failure{code: exitImage, err: fmt.Errorf("%d of %d blocks are bad", len(bad), l.index.Blocks())}
	}
	fmt.Fprintf(w, "%d blocks are right\n", l.index.Blocks())
	return nil
}

// findBad returns the blocks that can't be decoded, in order. An error is one
// that is not the image's fault.
func findBad(ctx context.Context, l *line) ([]badBlock, error) {
	chunk, readers := chunks(l.index.BlockSize())
	free := make(chan []byte, readers)
	for range readers {
		free <- nil
	}
	var mu sync.Mutex
	var bad []badBlock
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(readers)
	for off := int64(0); off < l.disk.Size() && ctx.Err() == nil; off += chunk {
		g.Go(func() error {
			buf := <-free
			if buf == nil {
				buf = make([]byte, chunk)
			}
			defer func() { free <- buf }()
			found, err := badIn(ctx, l, buf, off)
			mu.Lock()
			defer mu.Unlock()
			bad = append(bad, found...)
			return err
		})
	}
	err := g.Wait()
	slices.SortFunc(bad, func(a, b badBlock) int { return int(a.n - b.n) })
	return bad, err
}

// badIn reads as much of the disk at off as buf holds: at once, and block by
// block if that fails.
func badIn(ctx context.Context, l *line, buf []byte, off int64) ([]badBlock, error) {
	_, err := l.disk.ReadAtContext(ctx, buf, off)
	if err == nil || err == io.EOF {
		return nil, nil
	}
	size := int64(l.index.BlockSize())
	var bad []badBlock
	for n := off / size; n < min((off+int64(len(buf)))/size, l.index.Blocks()); n++ {
		_, err := l.disk.ReadAtContext(ctx, buf[:size], n*size)
		var be *blockio.BlockError
		switch {
		case err == nil, err == io.EOF:
		case errors.Is(err, cloop.ErrCorrupt) && errors.As(err, &be):
			bad = append(bad, badBlock{n, be.Err})
		default:
			return bad, err
		}
	}
	return bad, nil
}
