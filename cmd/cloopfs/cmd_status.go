package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/control"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/internal/mounts"
	"github.com/cloopfs/cloopfs/internal/units"
)

func newStatusCmd() *cobra.Command {
	var why, asJSON bool
	cmd := &cobra.Command{
		Use:   "status [flags] [MOUNTPOINT]",
		Short: "Say how mounts are: what was read, fetched and failed",
		Long: `Say how the mount at MOUNTPOINT is, or each of the user's mounts; of everybody's for
root. The answers come from the processes that serve the mounts: a server that does
not answer does not delay them. All counts are since the mount: with --why, used is
what a reader of the mount has had since of what was fetched.`,
		Example: `  cloopfs status
  cloopfs status --json /media/image`,
		Args:              args(cobra.MaximumNArgs(1)),
		ValidArgsFunction: completeMountpoint,
		RunE: func(cmd *cobra.Command, args []string) error {
			list, err := mountsToAsk(args)
			if err != nil {
				return err
			}
			reports, failed := ask(list)
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				err = enc.Encode(reports)
			} else {
				err = printReports(cmd.OutOrStdout(), reports, why)
			}
			if err != nil || len(failed) == 0 {
				return err
			}
			for _, f := range failed[1:] {
				cli.Report(cmd.ErrOrStderr(), f)
			}
			return failed[0]
		},
	}
	cmd.Flags().BoolVar(&why, "why", false, "what was fetched for which reason, and what of it was used")
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs: a list, with the reasons")
	return cmd
}

// mountsToAsk returns the mount at the path given, else all that are the user's,
// or everybody's for root.
func mountsToAsk(args []string) ([]mounts.Mount, error) {
	if len(args) == 0 {
		all, err := mounts.All()
		if err != nil {
			return nil, err
		}
		own := all[:0]
		for _, m := range all {
			if uid := os.Geteuid(); uid == 0 || m.Owner == uid {
				own = append(own, m)
			}
		}
		return own, nil
	}
	m, found, err := mounts.At(args[0])
	if err == nil && !found {
		err = errors.New("not a cloopfs mount")
	}
	if err != nil {
		return nil, fmt.Errorf("status of %s: %w", line.Shown(args[0]), cli.WithoutPath(err))
	}
	return []mounts.Mount{m}, nil
}

// ask asks the daemons of mounts. The failures are of those that do not answer.
func ask(list []mounts.Mount) (reports []mountReport, failed []*cli.Error) {
	reports = []mountReport{} // an empty list in JSON too
	for _, m := range list {
		r, err := askOne(m)
		if err != nil {
			f := &cli.Error{Code: cli.ExitFailure, Err: fmt.Errorf("status of %s: its process does not answer: %w", m.Point, err)}
			if !alive(m) {
				f.Err, f.Hint = fmt.Errorf("status of %s: its process is gone", m.Point), "cloopfs umount "+cli.Quote(m.Point)
			}
			failed = append(failed, f)
			continue
		}
		r.Mountpoint = m.Point // it may have been moved
		reports = append(reports, r)
	}
	return reports, failed
}

func askOne(m mounts.Mount) (mountReport, error) {
	var r mountReport
	daemon, err := control.Dial(m.Device, m.Owner)
	if err != nil {
		return r, err
	}
	defer daemon.Close()
	answer, err := daemon.Status()
	if err != nil {
		return r, err
	}
	return r, json.Unmarshal(answer, &r)
}

// printReports writes reports for people.
func printReports(w io.Writer, reports []mountReport, why bool) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	for i, r := range reports {
		if i > 0 {
			fmt.Fprintln(t)
		}
		r.print(t, why)
	}
	return t.Flush()
}

// pace is how fast the server is, as far as that is known.
func (s *serverReport) pace() string {
	text := ""
	if s.AnswerTime > 0 {
		text += fmt.Sprintf(", answers in %.0f ms", 1000*s.AnswerTime)
	}
	if s.Rate > 0 {
		text += fmt.Sprintf(", %s a second", units.FormatSize(s.Rate))
	}
	return text
}

func (r *mountReport) print(w io.Writer, why bool) {
	cli.Row(w, "mountpoint", "%s", r.Mountpoint)
	cli.Row(w, "source", "%s", r.Source)
	cli.Row(w, "disk", "%s", units.ExactSize(r.DiskSize))
	cli.Row(w, "mounted", "%s, process %d", r.Since.Local().Format(time.DateTime), r.PID)
	for _, s := range r.Servers {
		cli.Row(w, "server", "%s: %s, %d requests, %d failed%s", s.URL, s.State, s.Requests, s.Failed, s.pace())
		if s.LastErrorAt != nil {
			cli.Row(w, "", "last error %s: %s", s.LastErrorAt.Local().Format(time.DateTime), s.LastError)
		}
	}
	if m := r.Manifest; m != nil {
		cli.Row(w, "manifest", "%s", m)
		cli.Row(w, "", "%d blocks compared and right, %d refused", m.Proven, m.Refused)
	}
	if r.Offline {
		cli.Row(w, "server", "none is asked (offline)")
	}
	cli.Row(w, "fetched", "%s in %d requests", units.FormatSize(r.Fetched.Bytes), r.Fetched.Requests)
	if why {
		for _, c := range r.Causes {
			cli.Row(w, "", "%s: %s in %d requests, %s of it used", c.Cause, units.FormatSize(c.Bytes), c.Requests, units.FormatSize(c.Used))
		}
	}
	if c := r.Cache; c != nil {
		if c.Removed {
			cli.Row(w, "cache", "removed; %s of %s until the unmount", units.FormatSize(c.Bytes), units.FormatSize(c.FileSize))
		} else {
			cli.Row(w, "cache", "%s of %s in %s", units.FormatSize(c.Bytes), units.FormatSize(c.FileSize), c.Path)
		}
		cli.Row(w, "", "%s found there in %d reads, %s stored, %d mismatches", units.FormatSize(c.HitBytes), c.Hits, units.FormatSize(c.Stored), c.Mismatches)
	}
	cli.Row(w, "memory", "%d blocks, %s; %d found there, %d loaded", r.Memory.Blocks, units.FormatSize(r.Memory.Bytes), r.Memory.Hits, r.Memory.Loads)
	cli.Row(w, "reads", "%d, %s; %d waiting, %d failed", r.Reads.Count, units.FormatSize(r.Reads.Bytes), r.Reads.Waiting, r.Reads.Errors)
	if o, wr := r.Overlay, r.Writes; o != nil && wr != nil {
		cli.Row(w, "writes", "%d, %s; %d flushes, %d failed", wr.Count, units.FormatSize(wr.Bytes), wr.Flushes, wr.Errors)
		where := "not to be kept"
		if o.Path != "" {
			where = "in " + o.Path
		}
		cli.Row(w, "overlay", "%s changed, %s", units.FormatSize(o.Changed), where)
	}
	if r.Reads.LastErrorAt != nil {
		cli.Row(w, "last error", "%s: %s", r.Reads.LastErrorAt.Local().Format(time.DateTime), r.Reads.LastError)
	}
}
