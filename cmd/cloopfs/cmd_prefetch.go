package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"

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
			lines, err := o.openToPrefetch(ctx, args)
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

// prefetchRequests bounds how much is under way, and lost if the process is
// killed: seven requests of a megabyte.
const prefetchRequests = 7

// openToPrefetch opens images and pins what is kept of them.
func (o *sourceOptions) openToPrefetch(ctx context.Context, sources []string) (lines []*line, err error) {
	if err := o.validate(ctx); err != nil {
		return nil, err
	}
	o.Connections = min(o.Connections, prefetchRequests)
	for _, source := range sources {
		at, err := parseSource(source)
		if err != nil {
			return lines, err
		}
		if at.URL == "" {
			return lines, usage(fmt.Errorf("prefetch %s: a local file needs no cache", at))
		}
		l, err := openLine(ctx, at, *o, 0, slog.New(slog.DiscardHandler))
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
	if l.file.uncached != nil {
		return l.file.uncached
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
	for _, l := range lines {
		p := newProgress(l, stdout, stderr, asJSON)
		if err := prefetch(ctx, l, p); err != nil {
			p.end(false)
			return err
		}
		p.end(true)
	}
	return nil
}

// prefetch brings one image into the cache.
func prefetch(ctx context.Context, l *line, p *progress) error {
	b := &bringing{line: l, class: blockio.Demand, workers: 3 * prefetchRequests}
	stop := p.follow(b)
	err := b.run(ctx)
	stop()
	fail := func(err error) error { return fmt.Errorf("prefetch %s: %w", l.at, err) }
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case err != nil:
		return sourceFailure(fail(err))
	case b.bad > 0:
		return &failure{code: exitImage, err: fail(fmt.Errorf("%d of %d blocks are bad at the source: %w", b.bad, l.index.Blocks(), b.why))}
	}
	missing, err := l.missing(ctx)
	if err == nil && missing > 0 {
		err = fmt.Errorf("%s could not be stored in %s", formatSize(missing), l.file.cached.dir.Path())
	}
	if err == nil {
		err = l.file.cached.entry.Completed(l.wholeFile(), true)
	}
	if err != nil {
		return fail(err)
	}
	return nil
}

// wholeFile says that the image is all of the file.
func (l *line) wholeFile() bool { return l.source.Size() == l.file.Size() }
