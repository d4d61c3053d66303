package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
)

func newPrefetchCmd() *cobra.Command {
	var o line.Options
	var trace cli.Name
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "prefetch [flags] SOURCE...",
		Short: "Bring whole images into the cache, and keep them there",
		Long: `Bring the whole image at each SOURCE into the on-disk cache, decode every block, and
keep the image there until "cache remove" or "cache trim". What is there already is
compared, not fetched. An image that is complete can be mounted with --offline, and
"cloopfs cache list" says which file it is. If not all fits, nothing is fetched.

With --profile bring only what a recorded session used, for one SOURCE: offline the
same session works again. All that is in the cache of this image is kept then.`,
		Example: `  cloopfs prefetch https://example.org/KNOPPIX
  cloopfs mount --offline https://example.org/KNOPPIX /media/image
  cloopfs prefetch --profile boot.profile https://example.org/KNOPPIX`,
		Args:              args(cobra.MinimumNArgs(1)),
		ValidArgsFunction: cobra.NoFileCompletions,
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := readTrace(trace, args)
			if err != nil {
				return err
			}
			list, err := openToPrefetch(cmd.Context(), o, args, cmd.ErrOrStderr())
			defer list.close()
			if err != nil {
				return err
			}
			if p != nil {
				list[0].only(cmd.Context(), p)
			}
			return list.prefetch(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr(), asJSON)
		},
	}
	o.AddFlags(cmd.Flags(), userAgent())
	cmd.Flags().Var(&trace, "profile", "bring only what the access trace in `FILE` names")
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs: an object now and then for each SOURCE, and a last one")
	return cmd
}

// prefetchWindow bounds how much is under way, and lost if the process is killed.
const prefetchWindow = 7 << 20

// wanted is an image to be prefetched.
type wanted struct {
	at   line.Location
	line *line.Line // nil if it can't be opened
	err  error      // why it can't be had
	part *part      // what is wanted of it; nil: all
}

// wantedList is the images to be prefetched. One that can't be had is no reason to
// leave out the others.
type wantedList []*wanted

// openToPrefetch opens images and pins what is kept of them. An error is one of
// usage.
func openToPrefetch(ctx context.Context, o line.Options, sources []string, stderr io.Writer) (list wantedList, err error) {
	if len(sources) > 1 && o.Proof.OfOneImage() {
		return nil, cli.Usage(errors.New("prefetch: a manifest is of one image: --manifest takes one SOURCE, or auto"))
	}
	var places []line.Location
	for _, source := range sources {
		at, err := line.Parse(source)
		if err != nil {
			return nil, err
		}
		if at.URL == "" {
			return nil, cli.Usage(fmt.Errorf("prefetch %s: a local file needs no cache", at))
		}
		list, places = append(list, &wanted{at: at}), append(places, at)
	}
	if err := o.Validate(ctx, places...); err != nil {
		return nil, err
	}
	o.Window = prefetchWindow
	for _, w := range list {
		if w.line, w.err = line.Open(ctx, w.at, o, 0, cli.Warnings(stderr)); w.err != nil {
			continue
		}
		if err := w.line.Pin(); err != nil {
			w.err = fmt.Errorf("prefetch %s: %w", w.at, err)
		}
	}
	return list, nil
}

func (list wantedList) close() {
	for _, w := range list {
		if w.line != nil {
			w.line.Close()
		}
	}
}

// lines are those images that can be had, as it seems.
func (list wantedList) lines() (lines []*line.Line) {
	for _, w := range list {
		if w.err == nil {
			lines = append(lines, w.line)
		}
	}
	return lines
}

// prefetch brings the images into the cache, if all of them fit. It says of each
// why it can't be had; the exit status is that of the first.
func (list wantedList) prefetch(ctx context.Context, stdout, stderr io.Writer, asJSON bool) error {
	if len(list) > 0 && list[0].part == nil {
		list.fit(ctx)
	}
	var first, last error
	for _, w := range list {
		p := newProgress(w, stdout, stderr, asJSON)
		if w.err == nil {
			w.err = w.prefetch(ctx, p)
		}
		if ctx.Err() != nil {
			w.err = ctx.Err()
		}
		p.end(w.err)
		if w.err == nil || ctx.Err() != nil {
			continue
		}
		if first == nil {
			first = w.err
		}
		if last != nil && last.Error() != w.err.Error() {
			cli.Report(stderr, last)
		}
		last = w.err
	}
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case last == nil:
		return nil
	}
	f := &cli.Error{Code: cli.ExitCode(first), Err: last} // whoever started us reports the last
	if hinted, ok := errors.AsType[*cli.Error](last); ok {
		f.Hint = hinted.Hint
	}
	return f
}

// fit finds out whether those images fit into the cache that can be had. If they do
// not, none of them can.
func (list wantedList) fit(ctx context.Context) {
	for lines := list.lines(); len(lines) > 0; lines = list.lines() {
		err := fit(ctx, lines)
		if err == nil {
			return
		}
		var one *lineError
		var full *roomError
		switch {
		case errors.As(err, &one):
			err = line.Failure(fmt.Errorf("prefetch %s: %w", one.line.At(), one.err))
			lines = []*line.Line{one.line}
		case errors.As(err, &full):
			err = noRoom(err)
		default:
			err = fmt.Errorf("prefetch: %w", err)
		}
		for _, w := range list {
			if slices.Contains(lines, w.line) {
				w.err = err
			}
		}
	}
}

// noRoom says that what is to be brought does not fit into the cache.
func noRoom(err error) error {
	return &cli.Error{Code: cli.ExitFailure, Err: fmt.Errorf("prefetch: %w", err), Hint: "see --cache-size and --min-free, and cloopfs cache list"}
}

// prefetchWorkers is how many segments are brought at a time: several times what
// is under way, as some are being decoded; fewer if blocks are very large.
func prefetchWorkers(blockSize int) int {
	return min(3*prefetchWindow/segmentBytes, max(2, copyMemory/blockSize))
}

// prefetch brings one image into the cache.
func (w *wanted) prefetch(ctx context.Context, p *progress) error {
	l := w.line
	b := &bringing{line: l, class: blockio.ReadAhead, workers: prefetchWorkers(l.Index().BlockSize())}
	if w.part != nil {
		b.only = w.part.spans
	}
	stop := p.follow(b)
	err := b.run(ctx)
	stop()
	fail := func(err error) error { return fmt.Errorf("prefetch %s: %w", l.At(), err) }
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case errors.Is(err, line.ErrNotStored):
		return fail(err)
	case err != nil:
		return line.Failure(fail(err))
	case b.bad > 0:
		return &cli.Error{Code: cli.ExitImage, Err: fail(fmt.Errorf("%d of %d blocks are bad at the source: %w", b.bad, l.Index().Blocks(), b.why))}
	}
	if err := l.Proof().Bring(ctx); errors.Is(err, line.ErrNotStored) {
		return fail(err)
	} else if err != nil {
		return line.Failure(fail(err))
	}
	if err := l.Entry().Completed(isWholeFile(l) && w.part == nil, true); err != nil {
		return fail(err)
	}
	return nil
}

// isWholeFile says that the image is all of the file.
func isWholeFile(l *line.Line) bool { return l.ImageSize() == l.FileSize() }
