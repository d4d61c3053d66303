package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/cache"
)

func newCacheVerifyCmd() *cobra.Command {
	var c cacheCommand
	return c.command(&cobra.Command{
		Use:   "verify [flags] [SOURCE...]",
		Short: "Compare what is in the cache with its checksums",
		Long: `Compare every block in the cache with its checksum, decode it, and throw it away if
it is bad: it is fetched again when it is read. The exit status is 3 if there are such
blocks.`,
	}, func(cmd *cobra.Command) error {
		bad := int64(0)
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
			bad += v.bad
		}
		if bad > 0 {
			return &failure{code: exitImage, err: fmt.Errorf("bad blocks: %d", bad), hint: "they were thrown away: reading fetches them again, and cloopfs prefetch does"}
		}
		return nil
	})
}

// verified is what was found in an entry.
type verified struct{ right, bad, absent int64 }

func (v verified) String() string {
	return fmt.Sprintf("%d blocks are right, %d were bad, %d are not there", v.right, v.bad, v.absent)
}

// verify looks at all that an entry has of its images.
func (c *cacheCommand) verify(ctx context.Context, s cache.Stat) (verified, error) {
	var sum verified
	for _, source := range s.Sources {
		v, err := c.verifyImage(ctx, s, source)
		sum = verified{sum.right + v.right, sum.bad + v.bad, sum.absent + v.absent}
		if err != nil && !errors.Is(err, errOffline) {
			return sum, err
		}
	}
	return sum, nil
}

// verifyImage looks at all that an entry has of one of its images. It stops where
// the image's index is not there.
func (c *cacheCommand) verifyImage(ctx context.Context, s cache.Stat, source string) (v verified, err error) {
	at, err := parseSource(source)
	if err != nil {
		return v, err
	}
	entry, err := c.dir.OpenNamed(s.Name)
	if err != nil {
		return v, err
	}
	defer entry.Close()
	kept := alone(c.dir, entry)
	l := &line{at: at, file: &file{source: kept, cached: kept}}
	if err := l.join(ctx, sourceOptions{Format: formatAuto, Connections: 1}, 0); err != nil {
		return v, err
	}
	defer l.fetch.Close()
	err = segments(ctx, l.index, 0, func(error) {}, func(s segment) error { return v.compare(ctx, l, s) })
	if v.bad > 0 {
		err = errors.Join(err, entry.Incomplete())
	}
	return v, err
}

// compare looks at the blocks of a segment.
func (v *verified) compare(ctx context.Context, l *line, s segment) error {
	check, err := l.index.Checker(ctx, s.first, s.count)
	if err != nil {
		return err
	}
	for n := s.first; n < s.first+s.count; n++ {
		if err := ctx.Err(); err != nil {
			return err
		}
		e, err := l.index.Extent(ctx, n)
		if err != nil {
			return err
		}
		if e.Len > 0 && !l.store.Here(n, e) {
			v.absent++
			continue
		}
		buf := make([]byte, e.Len)
		if (e.Len == 0 || l.store.Get(n, e, buf)) && check(n, buf) == nil {
			v.right++
			continue
		}
		l.store.Forget(n, e)
		v.bad++
	}
	return nil
}
