package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"slices"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/profile"
)

// part is what is to be prefetched of an image: some blocks, and all that is no block.
type part struct {
	spans   []blockio.Span // in order
	size    int64          // bytes of the image
	missing int64          // of them, not in the cache, as it seems
}

// readTrace reads the profile that prefetch is given, nil if it is given none.
func readTrace(path cli.Name, sources []string) (*profile.Profile, error) {
	if path == "" {
		return nil, nil
	}
	if len(sources) > 1 {
		return nil, cli.Usage(errors.New("prefetch: a profile is of one image: --profile takes one SOURCE"))
	}
	p, err := readProfile(string(path))
	if err != nil {
		return nil, profileFailure(fmt.Errorf("prefetch: %w", err))
	}
	return p, nil
}

// only says that what a profile names is wanted, and nothing else.
func (w *wanted) only(ctx context.Context, p *profile.Profile) {
	w.part = new(part)
	if w.err != nil {
		return
	}
	fail := func(err error) error { return fmt.Errorf("prefetch %s: %w", w.at, err) }
	if err := w.line.CheckProfile(ctx, p); errors.Is(err, profile.ErrOther) {
		w.err = profileFailure(fail(err))
		return
	} else if err != nil {
		w.err = line.Failure(fail(err))
		return
	}
	var err error
	w.part.spans = inOrder(p)
	if w.part.size, w.part.missing, err = measure(ctx, w.line, w.part.spans); err != nil {
		w.err = line.Failure(fail(err))
		return
	}
	if w.part.missing == 0 || !w.line.Remote() {
		return // then no bound matters
	}
	var full *roomError
	if err := fits([]*line.Line{w.line}, w.part.missing); errors.As(err, &full) {
		w.err = noRoom(err)
	} else if err != nil {
		w.err = fail(err)
	}
}

// inOrder is the blocks of a profile as they lie on the disk: those that are adjacent
// come together.
func inOrder(p *profile.Profile) []blockio.Span {
	spans := p.Spans()
	slices.SortFunc(spans, func(a, b blockio.Span) int { return cmp.Compare(a.First, b.First) })
	joined := spans[:0]
	for _, s := range spans {
		if last := len(joined) - 1; last >= 0 && joined[last].First+joined[last].Count == s.First {
			joined[last].Count += s.Count
		} else {
			joined = append(joined, s)
		}
	}
	return joined
}
