package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/signal"
	"time"

	"github.com/coreos/go-systemd/v22/daemon"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/fusefs"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/control"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/internal/mounts"
)

// readiness is what a mount has to say when it can be used.
type readiness struct {
	// Disk is what is on the disk, as far as somebody wants to know and it
	// could be read.
	Disk line.Contents
	// Inside is the SOURCE of the best of the images inside the disk, if any.
	Inside string
	// Warning is about the cache, and Hint is what helps; they may be empty.
	Warning, Hint string
	// Unclean says that the overlay was not closed by its last user.
	Unclean bool
	// Undone is what could not be done for --root-disk.
	Undone []string
}

// serveMount opens the image, mounts the disk, calls ready, and returns when
// the disk has been unmounted and its last user has let go. ctx ends the
// opening; from then on the process's signals count.
func serveMount(ctx context.Context, o mountOptions, log *slog.Logger, ready func(readiness)) error {
	var undone []string
	if o.RootDisk {
		for _, err := range readyForRootDisk() {
			log.Warn(err.Error())
			undone = append(undone, err.Error())
		}
	}
	d, err := openServed(ctx, o.DiskOptions, log)
	if err != nil {
		return err
	}
	defer d.line.Close()

	signals := make(chan os.Signal, 2)
	signal.Notify(signals, endSignals...)
	defer signal.Stop(signals)
	if ctx.Err() != nil {
		return ctx.Err() // the signal came before somebody was here to hear it
	}
	if err := d.begin(ctx); err != nil {
		return err
	}
	// Not later: readers of the disk may get threads stuck.
	if err := dropRights(o.rights()); err != nil {
		log.Warn("this process keeps rights that it does not need", "error", err)
	}
	server, disk, err := o.present(ctx, d.line, d.written, log)
	if err != nil {
		d.written.giveUp()
		return err
	}
	ended := make(chan struct{})
	go func() {
		server.Wait()
		close(ended)
	}()
	m, found, err := mounts.At(o.Mountpoint)
	if err == nil && !found {
		err = errors.New("not in /proc/self/mountinfo")
	}
	if err == nil && o.RootDisk {
		m, err = m.Hold()
	}
	var socket *control.Listener
	if err == nil {
		socket, err = control.Listen(m.Device, reporter(o, d.line, disk, d.written, server, ended))
	}
	if err != nil {
		log.Warn("umount will not be able to wait for this process", "error", err)
	} else {
		defer func() { _ = socket.Remove() }()
	}
	if _, err := daemon.SdNotify(true, daemon.SdNotifyReady); err != nil {
		log.Warn("systemd was not told", "error", err)
	}
	log.Info("mounted", "source", o.Source.String(), "mountpoint", o.Mountpoint, "size", disk.Size())
	d.warn()
	r := o.firstContact(ctx, d.line, disk)
	r.Unclean, r.Undone = d.written.unclean, undone
	ready(r)
	defer d.beside(ctx)()

	if err := awaitEnd(ended, signals, m, d.written.flush, log); err != nil {
		return err // somebody may be writing still
	}
	if err = d.written.Close(); err != nil && socket != nil {
		socket.Last(err.Error())
	}
	return err
}

// present mounts the line's disk, with what was written to it, or the partition of it
// that is asked for.
func (o *mountOptions) present(ctx context.Context, l *line.Line, written *writes, log *slog.Logger) (*fusefs.Server, blockio.ReaderAt, error) {
	disk, start := written.over(l.Disk()), int64(0)
	if o.Partition > 0 {
		var err error
		if disk, start, err = o.onePartition(ctx, l, disk); err != nil {
			return nil, nil, err
		}
	}
	if _, err := o.checkMountpoint(); err != nil {
		return nil, nil, err // again: somebody else may have been faster
	}
	server, err := o.show(l, disk, start, written, log)
	return server, disk, err
}

// show mounts the disk, which is written or a partition of it, or l's own. It begins at
// the byte start of that.
func (o *mountOptions) show(l *line.Line, disk blockio.ReaderAt, start int64, written *writes, log *slog.Logger) (*fusefs.Server, error) {
	options := fusefs.Options{
		Source:     o.Source.Mounted(),
		ModTime:    l.ModTime(),
		Timeout:    time.Duration(o.Line.Timeout),
		AllowOther: o.AllowOther,
		UID:        o.UID,
		GID:        o.GID,
		Mode:       o.Mode,
		BlockOf:    func(off int64) int64 { return (start + off) / int64(l.Index().BlockSize()) },
		Logger:     log,
	}
	if o.Partition == 0 {
		options.Partitions = partitionFiles(disk)
	}
	var server *fusefs.Server
	var err error
	if device, ok := disk.(blockio.Device); ok {
		if t := written.modTime(); !t.IsZero() {
			options.ModTime = t
		}
		server, err = fusefs.MountWritable(o.Mountpoint, device, options)
	} else {
		server, err = fusefs.Mount(o.Mountpoint, disk, options)
	}
	if err != nil {
		return nil, mountFailure(err)
	}
	return server, nil
}

// awaitEnd returns when the mount has ended. The first signal unmounts, lazily
// if the mount is in use; the second aborts what is still going on.
func awaitEnd(ended <-chan struct{}, signals <-chan os.Signal, m mounts.Mount, flush func(), log *slog.Logger) error {
	select {
	case <-ended:
		return nil
	case <-signals:
	}
	go flush() // whoever ends the machine may not wait for the end of this process
	err := m.Unmount(false)
	if errors.Is(err, mounts.ErrBusy) {
		log.Warn("in use: detached, serving on until the last user lets go", "mountpoint", m.Point)
		err = m.Unmount(true)
	}
	if err != nil {
		log.Error("unmount failed", "mountpoint", m.Point, "error", err)
	}
	select {
	case <-ended:
		return nil
	case <-signals:
		// The process's end is the end of its connection to the kernel:
		// whoever still waits gets an error.
		return &cli.Error{Code: cli.ExitFailure, Err: fmt.Errorf("%s: aborted while in use", m.Point)}
	}
}
