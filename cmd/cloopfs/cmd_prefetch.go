package main

import (
	"context"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/blockio"
)

func newPrefetchCmd() *cobra.Command {
	var o sourceOptions
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "prefetch [flags] SOURCE...",
		Short: "Bring whole images into the cache, and keep them there",
		Long: `Bring the whole image at each SOURCE into the on-disk cache, decode every block, and
keep the image there until "cache remove" or "cache trim". What is there already is
compared, not fetched. An image that is complete can be mounted with --offline, and
"cloopfs cache list" says which file it is. If not all fits, nothing is fetched.`,
		Example: `  cloopfs prefetch https://example.org/KNOPPIX
  cloopfs mount --offline https://example.org/KNOPPIX /media/image`,
		Args:              args(cobra.MinimumNArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			ctx := cmd.Context()
			lines, err := o.openToPrefetch(ctx, args, cmd.ErrOrStderr())
			defer func() {
				for _, l := range lines {
					l.Close()
				}
			}()
			if err == nil {
				err = prefetchAll(ctx, lines, cmd.OutOrStdout(), cmd.ErrOrStderr(), asJSON)
			}
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		},
	}
	o.addFlags(cmd.Flags())
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs: an object now and then for each SOURCE, and a last one")
	return cmd
}

// prefetchWindow bounds how much is under way, and lost if the process is killed.
const prefetchWindow = 7 << 20

// openToPrefetch opens images and pins what is kept of them.
func (o *sourceOptions) openToPrefetch(ctx context.Context, sources []string, stderr io.Writer) (lines []*line, err error) {
	if err := o.validate(ctx); err != nil {
		return nil, err
	}
	o.window = prefetchWindow
	for _, source := range sources {
		at, err := parseSource(source)
		if err != nil {
			return lines, err
		}
		if at.URL == "" {
			return lines, usage(fmt.Errorf("prefetch %s: a local file needs no cache", at))
		}
		l, err := openLine(ctx, at, *o, 0, warnings(stderr))
		if err != nil {
			return lines, err
		}
		lines = append(lines, l)
		if err := l.pin(); err != nil {
			return lines, fmt.Errorf("prefetch %s: %w", at, err)
		}
	}
	return lines, nil
}

var errNoCache = errors.New("there is no on-disk cache (--cache-size 0)")

// pin keeps what is in the cache of the image, and what will be.
func (l *line) pin() error {
	if l.store != nil {
		return l.file.cached.entry.Pin()
	}
	if err := l.file.uncached; err != nil {
		return &failure{code: exitFailure, err: err, hint: sourceHint(err)}
	}
	return errNoCache
}

// prefetchAll brings the images into the cache, if all of them fit.
func prefetchAll(ctx context.Context, lines []*line, stdout, stderr io.Writer, asJSON bool) error {
	var full *roomError
	switch err := fit(ctx, lines); {
	case errors.As(err, &full):
		return &failure{code: exitFailure, err: fmt.Errorf("prefetch: %w", err), hint: "see --cache-size and --min-free, and cloopfs cache list"}
	case err != nil:
		return sourceFailure(fmt.Errorf("prefetch: %w", err))
	}
	// One that can't be had is no reason to leave out the others.
	var first error
	for _, l := range lines {
		p := newProgress(l, stdout, stderr, asJSON)
		err := prefetch(ctx, l, p)
		p.end(err)
		if first == nil {
			first = err
		} else if err != nil && ctx.Err() == nil {
			report(stderr, err)
		}
	}
	return first
}

// prefetchWorkers is how many segments are brought at a time: several times what
// is under way, as some are being decoded; fewer if blocks are very large.
func prefetchWorkers(blockSize int) int {
	return min(3*prefetchWindow/segmentBytes, max(2, copyMemory/blockSize))
}

// prefetch brings one image into the cache.
func prefetch(ctx context.Context, l *line, p *progress) error {
	b := &bringing{line: l, class: blockio.ReadAhead, workers: prefetchWorkers(l.index.BlockSize())}
	stop := p.follow(b)
	err := b.run(ctx)
	stop()
	fail := func(err error) error { return fmt.Errorf("prefetch %s: %w", l.at, err) }
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, errNotStored):
		return fail(err)
	case err != nil:
		return sourceFailure(fail(err))
	case b.bad > 0:
		return &failure{code: exitImage, err: fail(fmt.Errorf("%d of %d blocks are bad at the source: %w", b.bad, l.index.Blocks(), b.why))}
	}
	if err := l.file.cached.entry.Completed(l.wholeFile(), true); err != nil {
		return fail(err)
	}
	return nil
}

// wholeFile says that the image is all of the file.
func (l *line) wholeFile() bool { return l.source.Size() == l.file.Size() }
