package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/cache"
)

func newCacheCmd() *cobra.Command {
	cmd := &cobra.Command{
		Use:   "cache",
		Short: "Look after the on-disk cache",
		Args:  cobra.ArbitraryArgs,
		RunE: func(_ *cobra.Command, args []string) error {
			f := &failure{code: exitUsage, err: errors.New("cache: no command given"), hint: "cloopfs cache --help"}
			if len(args) > 0 {
				f.err = fmt.Errorf("cache: unknown command %q", shown(args[0]))
			}
			return f
		},
	}
	cmd.AddCommand(newCacheListCmd(), newCacheVerifyCmd(), newCacheTrimCmd(), newCacheRemoveCmd())
	return cmd
}

// cacheCommand is what the commands have in common.
type cacheCommand struct {
	cacheOptions
	dir  *cache.Dir
	list []cache.Stat // of the images that were named, or of all
}

// command returns a command that does run for the images that its arguments name.
func (c *cacheCommand) command(cmd *cobra.Command, run func(cmd *cobra.Command) error) *cobra.Command {
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		if err := c.open(args, cmd.ErrOrStderr()); err != nil {
			return err
		}
		defer c.dir.Close()
		return run(cmd)
	}
	c.addDirFlags(cmd.Flags())
	c.addKeyFlag(cmd.Flags())
	return cmd
}

// open opens the cache directory and finds the images.
func (c *cacheCommand) open(sources []string, stderr io.Writer) (err error) {
	if err := c.complete(); err != nil {
		return err
	}
	if c.dir, err = c.openDir(slog.New(slog.DiscardHandler)); err != nil {
		return fmt.Errorf("open the cache: %w", err)
	}
	all, others, err := c.dir.List()
	if err != nil {
		return fmt.Errorf("list the cache: %w", err)
	}
	if others > 0 {
		say(stderr, "%d images in %s are of another version of the cache: left alone", others, c.dir.Path())
	}
	if len(sources) == 0 && c.Key == "" {
		c.list = all
		return nil
	}
	if c.Key != "" {
		if len(sources) > 0 {
			return usage(errors.New("--cache-key stands for a SOURCE: give no other"))
		}
		sources = []string{""}
	}
	for _, source := range sources {
		key := c.key(source)
		if c.Key == "" {
			at, err := parseSource(source)
			if err != nil {
				return err
			}
			if at.URL == "" {
				return usage(fmt.Errorf("%s: a local file is never in the cache", at))
			}
			key = c.key(at.URL)
		}
		found := slices.DeleteFunc(slices.Clone(all), func(s cache.Stat) bool { return !slices.Contains(s.Keys, key) })
		if len(found) == 0 {
			return &failure{code: exitSource, err: fmt.Errorf("%s: not in the cache in %s", strings.TrimPrefix(key, "key "), c.dir.Path())}
		}
		for _, s := range found {
			if !slices.ContainsFunc(c.list, func(have cache.Stat) bool { return have.Name == s.Name }) {
				c.list = append(c.list, s)
			}
		}
	}
	return nil
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
	Bytes    int64     `json:"bytes"`    // of the file that are there, in whole pages
	Kept     bool      `json:"kept"`     // not thrown away before "cache remove" or "cache trim"
	Complete bool      `json:"complete"` // all of the file is there
	InUse    bool      `json:"in_use"`
	Used     time.Time `json:"used"`
	Path     string    `json:"path"`
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
		row(w, "image", "%s", source)
	}
	row(w, "cached", "%s of %s", formatSize(r.Bytes), exactSize(r.Size))
	if len(state) > 0 {
		row(w, "state", "%s", strings.Join(state, ", "))
	}
	row(w, "used", "%s", r.Used.Local().Format(time.DateTime))
	row(w, "file", "%s", r.Path)
	fmt.Fprintln(w)
}

func newCacheTrimCmd() *cobra.Command {
	var c cacheCommand
	return c.command(&cobra.Command{
		Use:   "trim [flags] [SOURCE...]",
		Short: "Throw away what was used longest ago",
		Long: `Throw away what was used longest ago until the cache keeps to --cache-size and
--min-free. Images that prefetch has brought go last. Those named as SOURCE are no
longer kept: they go like all others, now or later.`,
	}, func(cmd *cobra.Command) error {
		if cmd.Flags().NArg() > 0 || c.Key != "" {
			for _, s := range c.list {
				if err := c.dir.Unkeep(s.Name); err != nil {
					return fmt.Errorf("trim the cache: %w", err)
				}
			}
		}
		freed, err := c.dir.Trim()
		if err != nil {
			return fmt.Errorf("trim the cache: %w", err)
		}
		fmt.Fprintf(cmd.OutOrStdout(), "%s freed\n", formatSize(freed))
		return nil
	})
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
		if cmd.Flags().NArg() == 0 && c.Key == "" {
			if freed, err := c.dir.RemoveDamaged(); err != nil {
				return fmt.Errorf("remove damaged entries: %w", err)
			} else if freed > 0 {
				fmt.Fprintf(cmd.OutOrStdout(), "damaged entries: %s freed\n", formatSize(freed))
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
			fmt.Fprintf(cmd.OutOrStdout(), "%s: %s freed%s\n", strings.Join(s.Sources, ", "), formatSize(s.Allocated), note)
		}
		return nil
	})
}
