package main

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"

	"github.com/spf13/cobra"
	"golang.org/x/sync/errgroup"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
)

func newCacheVerifyCmd() *cobra.Command {
	var c cacheCommand
	return c.command(&cobra.Command{
		Use:   "verify [flags] [SOURCE...]",
		Short: "Compare what is in the cache with its checksums",
		Long: `Compare what is in the cache with its checksums, decode every block, and throw away
what is bad: it is fetched again when it is read. The exit status is 3 if there was
any. Blocks that can't be found because their image's index is not in the cache are
left as they are, and the exit status is 4. An image of which something is not there
is no longer said to be complete.`,
	}, func(cmd *cobra.Command) error {
		var bad, lost int64
		for _, s := range c.list {
			v, err := c.verify(cmd.Context(), s)
			if cmd.Context().Err() != nil {
				return cmd.Context().Err()
			}
			name := strings.Join(s.Sources, ", ")
			if err != nil {
				return fmt.Errorf("verify %s: %w", name, err)
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s\n", name, v)
			bad += v.bad.Load() + v.badPages
			lost += v.lost.Load()
		}
		if bad > 0 {
			return &cli.Error{Code: cli.ExitImage, Err: fmt.Errorf("bad blocks and pages: %d", bad), Hint: "they were thrown away: reading fetches them again, and cloopfs prefetch does"}
		}
		if lost > 0 {
			return &cli.Error{
				Code: cli.ExitSource, Err: fmt.Errorf("blocks that were not compared: %d", lost),
				Hint: "cloopfs info SOURCE brings the index that says where they lie",
			}
		}
		return nil
	})
}

// verified is what was found in an entry.
type verified struct {
	right, bad, absent   atomic.Int64 // blocks
	lost                 atomic.Int64 // blocks of which nobody knows where they lie
	rightPages, badPages int64        // of what is kept in pages: header, index, disks that are not compressed
	gone                 bool         // something is not there, and was said to be
}

func (v *verified) String() string {
	s := fmt.Sprintf("%d blocks are right, %d were bad, %d are not there; %d pages are right, %d were bad",
		v.right.Load(), v.bad.Load(), v.absent.Load(), v.rightPages, v.badPages)
	if n := v.lost.Load(); n > 0 {
		s += fmt.Sprintf("; %d blocks were not compared: the index that says where they lie is not there", n)
	}
	if v.gone {
		s += "; it is no longer complete"
	}
	return s
}

// verify looks at all that an entry has.
func (c *cacheCommand) verify(ctx context.Context, s cache.Stat) (*verified, error) {
	entry, err := c.dir.OpenNamed(s.Name)
	if err != nil {
		return nil, err
	}
	defer entry.Close()
	entry.Quiet()
	v := new(verified)
	if v.rightPages, v.badPages, err = entry.CheckChunks(ctx); err != nil {
		return nil, err
	}
	listed, err := entry.ListedBlocks()
	if err != nil {
		return nil, err
	}
	for _, source := range s.Sources {
		// Not all that was opened is an image, or has its index here.
		if err := c.verifyImage(ctx, entry, source, v, listed); err != nil && !errors.Is(err, line.ErrOffline) && !line.ImageFault(err) {
			return nil, err
		}
	}
	for _, n := range listed {
		v.lost.Add(n)
	}
	if entry.Complete() {
		if v.gone, err = c.isGone(ctx, entry, s.Sources); err != nil {
			return nil, err
		}
	}
	if v.bad.Load()+v.badPages > 0 || v.gone {
		return v, entry.Incomplete()
	}
	return v, nil
}

// isGone says whether something is not there of an entry that is complete, as it says: a table
// of checksums may have been lost.
func (c *cacheCommand) isGone(ctx context.Context, entry *cache.Entry, sources []string) (bool, error) {
	for _, source := range sources {
		at, err := line.Parse(source)
		if err != nil || at.Inside != "" {
			continue
		}
		l, err := line.OpenEntry(ctx, c.dir, entry, at)
		var missing int64
		if err == nil {
			missing, err = bytesMissing(ctx, l)
			l.Close()
		}
		switch {
		case errors.Is(err, line.ErrOffline):
			return true, nil
		case err == nil, !line.ImageFault(err):
			return missing > 0, err
		}
	}
	return false, nil
}

// verifyImage looks at the blocks that an entry has of one of its images, and takes
// these off the list. What is not on it was compared as pages.
func (c *cacheCommand) verifyImage(ctx context.Context, entry *cache.Entry, source string, v *verified, listed map[int64]int64) error {
	at, err := line.Parse(source)
	if err != nil {
		return err
	}
	l, err := line.OpenEntry(ctx, c.dir, entry, at)
	if err != nil {
		return err
	}
	defer l.Close()
	begin := l.Begin()
	if listed[begin] == 0 {
		return nil // or it was opened under another name, too
	}
	delete(listed, begin)
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(runtime.GOMAXPROCS(0) + 1)
	g.Go(func() error {
		notLocated := func(err *blockio.BlockError) error {
			if !errors.Is(err, line.ErrOffline) && !errors.Is(err, cloop.ErrCorrupt) {
				return err
			}
			if l.Store().Listed(err.Block) {
				v.lost.Add(1)
			}
			return nil
		}
		return segments(ctx, l.Index(), blockio.Span{Count: l.Index().Blocks()}, notLocated, func(s segment) error {
			g.Go(func() error { return v.compare(ctx, l, s) })
			return ctx.Err()
		})
	})
	return g.Wait()
}

// compare looks at the blocks of a segment.
func (v *verified) compare(ctx context.Context, l *line.Line, s segment) error {
	check, err := l.Index().Checker(ctx, s.first, s.count)
	if err != nil {
		return err
	}
	for n := s.first; n < s.first+s.count; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := l.Index().Extent(ctx, n)
		if err != nil {
			return err
		}
		if e.Len > 0 && !l.Store().Here(n, e) {
			v.absent.Add(1)
			continue
		}
		buf := make([]byte, e.Len)
		if (e.Len == 0 || l.Store().Get(n, e, buf)) && check(n, buf) == nil {
			v.right.Add(1)
			continue
		}
		l.Store().Drop(n, e)
		v.bad.Add(1)
	}
	return nil
}
