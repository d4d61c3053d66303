package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/units"
	"github.com/cloopfs/cloopfs/profile"
)

func newProfileCmd() *cobra.Command {
	return group("profile", "Look at access traces, and make one of several", newProfileShowCmd(), newProfileMergeCmd())
}

func newProfileShowCmd() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "show [flags] FILE",
		Short: "Say what is in an access trace",
		Long: `Say of which image the access trace in FILE is, and in which order its blocks were
used first: a line for each run of adjacent blocks, with how long nobody had been
waiting for a block when it was asked for.`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeArgs(completeFile),
		RunE: func(cmd *cobra.Command, args []string) error {
			p, err := readProfile(args[0])
			if err != nil {
				return profileFailure(fmt.Errorf("profile show: %w", err))
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(infoOf(p))
			}
			return printProfile(cmd.OutOrStdout(), p)
		},
	}
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs")
	return cmd
}

// profileInfo is what there is to say of a profile. Its JSON names are part of the
// contract with scripts. Gaps are microseconds.
type profileInfo struct {
	ImageSize   int64     `json:"image_size"`
	ImageBlocks int64     `json:"image_blocks"`
	Identity    string    `json:"identity"`
	Blocks      int64     `json:"blocks"`
	Gaps        int64     `json:"gaps"` // all together
	Runs        []runInfo `json:"runs"`
}

type runInfo struct {
	First int64 `json:"first"`
	Count int64 `json:"count"`
	Gap   int64 `json:"gap"`
}

func infoOf(p *profile.Profile) profileInfo {
	info := profileInfo{
		ImageSize: p.Image.Size, ImageBlocks: p.Image.Blocks, Identity: p.Image.Identity,
		Blocks: p.Blocks(), Gaps: p.Gaps().Microseconds(), Runs: make([]runInfo, len(p.Runs)),
	}
	for i, r := range p.Runs {
		info.Runs[i] = runInfo{r.First, r.Count, r.Gap.Microseconds()}
	}
	return info
}

func printProfile(w io.Writer, p *profile.Profile) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	cli.Row(t, "image", "%s, %d blocks", units.ExactSize(p.Image.Size), p.Image.Blocks)
	cli.Row(t, "identity", "%s", p.Image.Identity)
	cli.Row(t, "trace", "%d blocks in %d runs, gaps of %v in all", p.Blocks(), len(p.Runs), p.Gaps())
	if err := t.Flush(); err != nil || len(p.Runs) == 0 {
		return err
	}
	t = tabwriter.NewWriter(w, 0, 0, 2, ' ', tabwriter.AlignRight)
	fmt.Fprint(t, "\nfirst\tcount\tgap\t\n")
	for _, r := range p.Runs {
		fmt.Fprintf(t, "%d\t%d\t%v\t\n", r.First, r.Count, r.Gap)
	}
	return t.Flush()
}

func newProfileMergeCmd() *cobra.Command {
	var output cli.Name
	var force bool
	cmd := &cobra.Command{
		Use:   "merge [flags] FILE... -o OUT",
		Short: "Make one access trace of several",
		Long: `Make one access trace of several of one image: first what all of them have, in the
order of the first, then what all but one have, and so on. What is at OUT is replaced
with --force only.`,
		Example: `  cloopfs profile merge monday.profile tuesday.profile -o both.profile`,
		Args:    args(cobra.MinimumNArgs(1)),
		RunE: func(_ *cobra.Command, args []string) error {
			if output == "" {
				return cli.Usage(errors.New("profile merge: -o OUT missing"))
			}
			return mergeProfiles(args, string(output), force)
		},
	}
	cmd.Flags().VarP(&output, "output", "o", "the new trace (`OUT`)")
	cmd.Flags().BoolVar(&force, "force", false, "replace OUT")
	return cmd
}

func mergeProfiles(paths []string, output string, force bool) error {
	var list []*profile.Profile
	for _, path := range paths {
		p, err := readProfile(path)
		if err == nil && len(list) > 0 && p.Image != list[0].Image {
			err = fmt.Errorf("%s: %w than that of %s", cli.Quote(path), profile.ErrOther, cli.Quote(paths[0]))
		}
		if err != nil {
			return profileFailure(fmt.Errorf("profile merge: %w", err))
		}
		list = append(list, p)
	}
	merged, err := profile.Merge(list...)
	if err != nil {
		return err
	}
	err = newFile(output, force, func(f *os.File) error { return merged.Write(f) })
	if err == nil {
		return nil
	}
	f := &cli.Error{Code: cli.ExitFailure, Err: fmt.Errorf("profile merge: %w", err)}
	if errors.Is(err, os.ErrExist) {
		f.Hint = "--force replaces it"
	}
	return f
}
