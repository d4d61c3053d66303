package main

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/fusefs"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/internal/signature"
)

// firstContactTime is how long a person waits at most to hear what the disk is.
const firstContactTime = 5 * time.Second

// firstContact finds out what a person wants to hear about a disk that has been
// mounted. What can't be read in a short time is left out.
func (o *mountOptions) firstContact(ctx context.Context, l *line.Line, disk blockio.ReaderAt) readiness {
	r := readiness{Disk: line.Contents{Size: disk.Size()}, Warning: l.Warning()}
	if err := l.Uncached(); o.Fill && r.Warning == "" && err != nil {
		r.Warning, r.Hint = fmt.Sprintf("nothing is filled in the background: %v", err), line.Hint(err)
	}
	if !o.Describe {
		return r
	}
	ctx, cancel := context.WithTimeout(ctx, firstContactTime)
	defer cancel()
	find := l.Contents
	if o.Partition > 0 {
		find = func(ctx context.Context) (line.Contents, error) { return line.Examine(ctx, disk, signature.Kind{}) }
	}
	c, err := find(ctx)
	if err != nil {
		return r
	}
	r.Disk = c
	if l.Index().Raw() && c.Kind.Name == signature.ISO9660 && o.Source.Inside == "" && o.Partition == 0 {
		if images, err := l.ImagesInside(ctx); err == nil && len(images) > 0 {
			r.Inside = o.Source.ForInside(images[0].Path)
		}
	}
	return r
}

// announce tells a person what there is and what to do next, and everybody what
// is wrong with it.
func announce(w io.Writer, o mountOptions, r readiness) {
	if n := r.Disk.Lost(); n > 0 {
		cli.Say(w, "the disk's size is no multiple of %d: its last %d bytes can't be read through a loop device", line.SectorSize, n)
	}
	if r.Unclean {
		cli.Say(w, notClosed)
	}
	for _, what := range r.Undone {
		cli.Say(w, "%s", what)
	}
	if len(r.Undone) > 0 && os.Geteuid() != 0 {
		cli.Say(w, "hint: --root-disk is for root")
	}
	if r.Warning != "" {
		cli.Say(w, "%s", r.Warning)
	}
	if r.Hint != "" {
		cli.Say(w, "hint: %s", r.Hint)
	}
	if !o.Describe {
		return
	}
	cli.Say(w, "mounted at %s: %s, %s", o.Mountpoint, fusefs.DiskName, r.Disk)
	if hint := o.nextStep(r.Disk); hint != "" {
		cli.Say(w, "hint: %s", hint)
	}
	if r.Inside != "" {
		cli.Say(w, "hint: to mount the system inside: cloopfs mount %s DIR", cli.Quote(r.Inside))
	}
}

// nextStep is the command that shows the files on the disk; empty if there is
// none.
func (o *mountOptions) nextStep(disk line.Contents) string {
	file, options := filepath.Join(o.Mountpoint, fusefs.DiskName), "loop,ro"
	if o.Write.writable() {
		options = "loop"
	}
	command := "mount -o " + options + " %s /mnt"
	switch tabled := disk.Tabled() && len(disk.Partitions) > 0; {
	case disk.Mountable():
	case tabled && o.Write.writable():
		command = "losetup --find --show --partscan %s"
	case tabled:
		file += fmt.Sprintf(".p%d", largest(disk))
	default:
		return ""
	}
	command = fmt.Sprintf(command, cli.Quote(file))
	switch {
	case os.Geteuid() == 0:
		return command
	case o.AllowOther:
		return "sudo " + command
	}
	return "root can't loop-mount it without --allow-other"
}

// largest is the number of a disk's largest partition.
func largest(disk line.Contents) int {
	best := disk.Partitions[0]
	for _, p := range disk.Partitions {
		if p.Len > best.Len {
			best = p
		}
	}
	return best.Number
}
