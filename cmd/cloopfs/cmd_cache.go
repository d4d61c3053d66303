package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/internal/units"
)

func newCacheCmd() *cobra.Command {
	return group("cache", "Look after the on-disk cache",
		newCacheListCmd(), newCacheVerifyCmd(), newCacheTrimCmd(), newCacheRemoveCmd())
}

// cacheCommand is what the commands have in common.
type cacheCommand struct {
	line.Options
	dir  *cache.Dir   // nil if there is none
	all  []cache.Stat // of all images
	list []cache.Stat // of those that were named, or of all
}

// command returns a command that does run for the images that its arguments name. It
// takes all flags of a SOURCE, so that what names an image for one command does for
// the others, and shows those that mean something: more and the image's name.
func (c *cacheCommand) command(cmd *cobra.Command, run func(cmd *cobra.Command) error, more ...string) *cobra.Command {
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := c.open(args, cmd.ErrOrStderr()); err != nil {
			return err
		}
		if c.dir != nil {
			defer c.dir.Close()
		}
		return run(cmd)
	}
	c.AddFlags(cmd.Flags(), userAgent())
	shown := slices.Concat(more, []string{"cache-dir", "cache-key"})
	cmd.Flags().VisitAll(func(f *pflag.Flag) { f.Hidden = !slices.Contains(shown, f.Name) })
	return cmd
}

// open opens the cache directory and finds the images.
func (c *cacheCommand) open(sources []string, stderr io.Writer) (err error) {
	c.Cache.Offline = false // nobody is asked in any case, and --cache-size 0 is a bound like others
	keys, err := c.keys(sources)
	if err != nil {
		return err
	}
	if err := c.Cache.Complete(); err != nil {
		return err
	}
	c.dir, err = c.Cache.OpenDir(slog.New(slog.DiscardHandler), true)
	switch {
	case errors.Is(err, fs.ErrNotExist) && len(keys) == 0:
		cli.Say(stderr, "there is no cache in %s", c.Cache.Dir)
		return nil
	case err != nil && !errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("open the cache: %w", err)
	case err == nil:
		var others int
		if c.all, others, err = c.dir.List(); err != nil {
			return fmt.Errorf("list the cache: %w", err)
		}
		if others > 0 {
			cli.Say(stderr, "%d images in %s are of another version of the cache: left alone", others, c.dir.Path())
		}
	}
	if len(keys) == 0 {
		c.list = c.all
		return nil
	}
	for _, key := range keys {
		found := slices.DeleteFunc(slices.Clone(c.all), func(s cache.Stat) bool { return !slices.Contains(s.Keys, key) })
		if len(found) == 0 {
			return &cli.Error{Code: cli.ExitSource, Err: fmt.Errorf("%s: not in the cache in %s", strings.TrimPrefix(key, "key "), c.Cache.Dir)}
		}
		for _, s := range found {
			if !slices.ContainsFunc(c.list, func(have cache.Stat) bool { return have.Name == s.Name }) {
				c.list = append(c.list, s)
			}
		}
	}
	return nil
}

// keys are the names in the cache of the images that were named.
func (c *cacheCommand) keys(sources []string) (keys []string, err error) {
	if c.Cache.Key != "" {
		if len(sources) > 1 {
			return nil, cli.Usage(errors.New("--cache-key stands for one SOURCE"))
		}
		return []string{c.Cache.NameOf("")}, nil
	}
	for _, source := range sources {
		at, err := line.Parse(source)
		if err != nil {
			return nil, err
		}
		if at.URL == "" {
			return nil, cli.Usage(fmt.Errorf("%s: a local file is never in the cache", at))
		}
		keys = append(keys, c.Cache.NameOf(at.URL))
	}
	return keys, nil
}

// versions is how many entries have one of the entry's keys: its versions.
func (c *cacheCommand) versions(s cache.Stat) (n int) {
	for _, other := range c.all {
		if slices.ContainsFunc(other.Keys, func(key string) bool { return slices.Contains(s.Keys, key) }) {
			n++
		}
	}
	return n
}

func newCacheListCmd() *cobra.Command {
	var c cacheCommand
	var asJSON bool
	cmd := c.command(&cobra.Command{
		Use:   "list [flags] [SOURCE...]",
		Short: "List the images in the cache",
		Long: `List the images in the cache, what was used last first: how much of each is there,
and where. The file of an image that is complete is the image itself, byte for byte.`,
	}, func(cmd *cobra.Command) error {
		reports := []entryReport{} // an empty list in JSON too
		for _, s := range c.list {
			reports = append(reports, entryReport{
				Sources: s.Sources, Size: s.Size, Bytes: s.Allocated, Kept: s.Kept, Complete: s.Complete,
				InUse: s.InUse, Used: s.Used, Path: s.Path,
				ModTime: s.ModTime, Validators: s.Validators, versions: c.versions(s),
			})
		}
		if asJSON {
			enc := json.NewEncoder(cmd.OutOrStdout())
			enc.SetIndent("", "  ")
			return enc.Encode(reports)
		}
		t := tabwriter.NewWriter(cmd.OutOrStdout(), 0, 0, 2, ' ', 0)
		for _, r := range reports {
			r.print(t)
		}
		return t.Flush()
	})
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs")
	return cmd
}

// entryReport is what is in the cache of one file. Its JSON names are part of the
// contract with scripts. Sizes are bytes.
type entryReport struct {
	Sources  []string  `json:"sources"`
	Size     int64     `json:"size"`
	Bytes    int64     `json:"bytes"`    // of the file that take room, in whole pages; some may be damaged
	Kept     bool      `json:"kept"`     // not thrown away before "cache remove" or "cache trim"
	Complete bool      `json:"complete"` // all of the file is there
	InUse    bool      `json:"in_use"`
	Used     time.Time `json:"used"`
	Path     string    `json:"path"`
	// ModTime and Validators tell versions of an image apart, as far as servers do.
	ModTime    time.Time `json:"mod_time,omitzero"`
	Validators []string  `json:"validators,omitempty"`

	versions int // of the image in the cache
}

func (r *entryReport) print(w io.Writer) {
	state := []string{}
	for _, s := range []struct {
		is   bool
		name string
	}{{r.Complete, "complete"}, {r.Kept, "kept"}, {r.InUse, "in use"}} {
		if s.is {
			state = append(state, s.name)
		}
	}
	for _, source := range r.Sources {
		cli.Row(w, "image", "%s", source)
	}
	if r.versions > 1 {
		version := r.Validators
		if !r.ModTime.IsZero() {
			version = append([]string{"changed " + r.ModTime.Local().Format(time.DateTime)}, version...)
		}
		cli.Row(w, "version", "%s", strings.Join(version, ", "))
	}
	cli.Row(w, "cached", "%s of %s", units.FormatSize(r.Bytes), units.ExactSize(r.Size))
	if len(state) > 0 {
		cli.Row(w, "state", "%s", strings.Join(state, ", "))
	}
	cli.Row(w, "used", "%s", r.Used.Local().Format(time.DateTime))
	cli.Row(w, "file", "%s", r.Path)
	fmt.Fprintln(w)
}

func newCacheTrimCmd() *cobra.Command {
	var c cacheCommand
	return c.command(&cobra.Command{
		Use:   "trim [flags] [SOURCE...]",
		Short: "Throw away what the cache has too much of",
		Long: `Throw away what a full cache would throw away first, of all images, until it keeps to
--cache-size and --min-free; nothing if it does. Images that prefetch has brought go
last. Those named as SOURCE are no longer kept: they go like all others, now or
later; cloopfs cache remove removes them at once.`,
	}, func(cmd *cobra.Command) error {
		if c.dir == nil {
			return nil
		}
		if cmd.Flags().NArg() > 0 || c.Cache.Key != "" {
			for _, s := range c.list {
				if err := c.dir.Unkeep(s.Name); err != nil {
					return fmt.Errorf("trim the cache: %w", err)
				}
			}
		}
		freed, err := c.dir.Trim(cmd.Context())
		if err != nil {
			return fmt.Errorf("trim the cache: %w", err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s freed\n", units.FormatSize(freed))
		return nil
	}, "cache-size", "min-free")
}

func newCacheRemoveCmd() *cobra.Command {
	var c cacheCommand
	return c.command(&cobra.Command{
		Use:   "remove [flags] [SOURCE...]",
		Short: "Remove images from the cache, all if none is named",
		Long: `Remove images from the cache, those too that prefetch has brought; all of them if
none is named. A mount of such an image goes on, without a cache; what it held is
free when it has ended.`,
	}, func(cmd *cobra.Command) error {
		if c.dir != nil && cmd.Flags().NArg() == 0 && c.Cache.Key == "" {
			if freed, err := c.dir.RemoveDamaged(); err != nil {
				return fmt.Errorf("remove damaged entries: %w", err)
			} else if freed > 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "damaged entries: %s freed\n", units.FormatSize(freed))
			}
		}
		for _, s := range c.list {
			if err := c.dir.Remove(s.Name); err != nil {
				return fmt.Errorf("remove %s: %w", s.Path, err)
			}
			note := ""
			if s.InUse {
				note = ", once it is unmounted"
			}
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s freed%s\n", strings.Join(s.Sources, ", "), units.FormatSize(s.Allocated), note)
		}
		return nil
	})
}
