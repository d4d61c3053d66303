package fusefs

import (
	"cmp"
	"context"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/errno"
)

// Partition is a part of the disk that is shown as a file of its own.
type Partition struct {
	Number int // from 1
	blockio.Extent
}

// partitionPrefix and a partition's number are its file's name.
const partitionPrefix = DiskName + ".p"

// partitions is the disk's partition table, read when it is needed first.
type partitions struct {
	read func(context.Context) ([]Partition, error)
	// reading is held by who reads the table.
	reading chan struct{}
	known   atomic.Bool // the files are in the directory
}

func newPartitions(read func(context.Context) ([]Partition, error)) *partitions {
	p := &partitions{read: read, reading: make(chan struct{}, 1)}
	p.known.Store(read == nil)
	return p
}

// showPartitions puts the partitions' files into the directory, if they are not there yet. It
// waits as a write does: whoever looks for a file does not expect EINTR either.
func (r *root) showPartitions(ctx context.Context) error {
	if r.partitions.known.Load() {
		return nil
	}
	wait := r.disk.parking.enterOnce(ctx, r, r.disk.timeout)
	defer wait.leave()
	err := r.readPartitions(wait)
	if err != nil && wait.evicted() {
		return errCrowded
	}
	return err
}

// readPartitions is showPartitions within the time that ctx gives it.
func (r *root) readPartitions(ctx context.Context) error {
	p := r.partitions
	select {
	case p.reading <- struct{}{}:
		defer func() { <-p.reading }()
	case <-ctx.Done():
		return ctx.Err()
	}
	if p.known.Load() {
		return nil
	}
	table, err := p.read(ctx)
	if err != nil {
		return err
	}
	for _, part := range table {
		file := newDisk(r.disk.device, r.disk.attr, part.Extent)
		ino := uint64(diskIno + part.Number)
		child := r.NewPersistentInode(ctx, file, fs.StableAttr{Mode: syscall.S_IFREG, Ino: ino})
		r.AddChild(partitionPrefix+strconv.Itoa(part.Number), child, false)
	}
	p.known.Store(true)
	return nil
}

// Lookup finds a file. Only that of a partition may have to wait for the table.
func (r *root) Lookup(ctx context.Context, name string, out *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	if strings.HasPrefix(name, partitionPrefix) {
		if err := r.showPartitions(ctx); err != nil {
			return nil, r.tableFailed(err)
		}
	}
	child := r.GetChild(name)
	if child == nil {
		return nil, syscall.ENOENT
	}
	if file, ok := child.Operations().(interface{ attributes() fuse.Attr }); ok {
		out.Attr = file.attributes()
	}
	return child, 0
}

// Readdir waits for the table, so that the listing is complete. If the table
// can't be read there is the disk to be listed still. Opening the directory, as
// df(1) does, waits for nothing.
func (r *root) Readdir(ctx context.Context) (fs.DirStream, syscall.Errno) {
	if err := r.showPartitions(ctx); err != nil {
		if e := r.tableFailed(err); e == syscall.EINTR {
			return nil, e
		}
	}
	var list []fuse.DirEntry
	for name, child := range r.Children() {
		list = append(list, fuse.DirEntry{Name: name, Mode: child.Mode(), Ino: child.StableAttr().Ino})
	}
	slices.SortFunc(list, func(a, b fuse.DirEntry) int { return cmp.Compare(a.Ino, b.Ino) })
	return fs.NewListDirStream(list), 0
}

// tableFailed logs that the table could not be read, unless the reason is that
// who wanted it gave up.
func (r *root) tableFailed(err error) syscall.Errno {
	e := errno.From(err)
	if e != syscall.EINTR {
		r.disk.complain(&r.disk.quiet, "partition table not read", "error", err)
	}
	return e
}
