package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/control"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/internal/mounts"
)

func newUmountCmd() *cobra.Command {
	var lazy, force bool
	cmd := &cobra.Command{
		Use:               "umount [flags] MOUNTPOINT",
		Aliases:           []string{"unmount"},
		Short:             "Unmount a disk, and wait until its process has ended",
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeMountpoint,
		RunE: func(cmd *cobra.Command, args []string) error {
			if lazy && force {
				return cli.Usage(errors.New("--lazy and --force exclude each other"))
			}
			return umount(cmd, args[0], lazy, force)
		},
	}
	cmd.Flags().BoolVarP(&lazy, "lazy", "l", false, "detach now, end when the last user lets go")
	cmd.Flags().BoolVar(&force, "force", false, "abort: every read and write under way fails at once")
	return cmd
}

// busyTime is how long a mount may be in use by somebody who only looked in,
// such as a device manager.
const busyTime = 300 * time.Millisecond

// endTime is how long to wait for the end of a process before it is asked whether its mount has
// one. A variable for the tests' sake.
var endTime = 10 * time.Second

func umount(cmd *cobra.Command, path string, lazy, force bool) error {
	m, found, err := mounts.At(path)
	if err == nil && !found {
		err = errors.New("not a cloopfs mount")
	}
	if err != nil {
		return umountFailure(line.Shown(path), cli.WithoutPath(err), "")
	}
	// Shown would look at the mount, which may wait for a daemon that is stopped.
	fail := func(err error, hint string) error { return umountFailure(path, err, hint) }
	if lazy {
		if err := m.Unmount(true); err != nil {
			return fail(err, "")
		}
		return nil
	}
	daemon, dialErr := control.Dial(m.Device, m.Owner)
	dead := dialErr != nil && !mayLive(m, dialErr)
	if dialErr == nil {
		defer daemon.Close()
		_ = daemon.Follow() // one that does not answer has no last word either
	}
	if force {
		if err := m.Abort(); err != nil {
			return fail(fmt.Errorf("abort: %w", err), "")
		}
	}
	err = m.Unmount(force)
	for deadline := time.Now().Add(busyTime); errors.Is(err, mounts.ErrBusy) && time.Now().Before(deadline); {
		time.Sleep(busyTime / 10)
		err = m.Unmount(force)
	}
	if errors.Is(err, mounts.ErrBusy) {
		return busy(m, fail)
	}
	if err != nil {
		return fail(err, "")
	}
	switch {
	case dead:
		return nil
	case dialErr != nil:
		return fail(fmt.Errorf("unmounted, but can't wait for its process: %w", dialErr),
			"what it can't flush is in its log: journalctl -t cloopfs, or its --log-file")
	}
	if err := awaitDaemon(cmd.Context(), daemon, m); err != nil {
		return fail(err, "")
	}
	return nil
}

func umountFailure(path string, err error, hint string) error {
	return &cli.Error{Code: cli.ExitFailure, Err: fmt.Errorf("umount %s: %w", path, err), Hint: hint}
}

// mayLive says whether a mount that Dial gave err for may have a daemon all the same: its socket
// may have been removed, or lie where only its user's session looks.
func mayLive(m mounts.Mount, err error) bool {
	if m.Owner != os.Geteuid() && errors.Is(err, syscall.ECONNREFUSED) {
		return false // it was killed; the mount itself tells only its owner
	}
	return alive(m)
}

// awaitDaemon waits until the daemon of a mount that is no more has ended, for as
// long as that may take.
func awaitDaemon(ctx context.Context, daemon *control.Conn, m mounts.Mount) error {
	for {
		short, cancel := context.WithTimeout(ctx, endTime)
		err := daemon.AwaitEnd(short)
		cancel()
		if !errors.Is(err, context.DeadlineExceeded) {
			return err
		}
		// What it has to write yet takes as long as its disks take.
		if r, err := askOne(m); err == nil && !r.Unmounted {
			return errors.New("unmounted here, but still in use: by another mount namespace or a bind mount")
		}
	}
}

// busy says who uses the mount.
func busy(m mounts.Mount, fail func(error, string) error) error {
	users := m.Users()
	if len(users) == 0 {
		return fail(mounts.ErrBusy, "cloopfs umount --lazy "+cli.Quote(m.Point))
	}
	u := users[0]
	return fail(fmt.Errorf("%s is in use by %s", u.Path, u.Name), u.Hint)
}
