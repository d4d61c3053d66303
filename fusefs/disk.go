package fusefs

import (
	"context"
	"io"
	"log/slog"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/errno"
)

// device is the disk behind the files: they share its bounds.
type device struct {
	dev     blockio.ReaderAt
	timeout time.Duration
	parking parking
	log     *slog.Logger
	// failures is of reads, quiet of the partition table.
	failures *failures
	quiet    limiter
	count    counter
}

// disk is disk.img, or a partition of it.
type disk struct {
	fs.Inode
	*device
	off  int64 // of the file's first byte on the device
	attr fuse.Attr
}

// newDisk returns the file that shows a part of a device. attr says the rest.
func newDisk(dev *device, attr fuse.Attr, part blockio.Extent) *disk {
	attr.Size, attr.Blocks = uint64(part.Len), blocksOf(part.Len, sectorSize)
	return &disk{device: dev, off: part.Off, attr: attr}
}

var (
	_ = fs.NodeGetattrer((*disk)(nil))
	_ = fs.NodeOpener((*disk)(nil))
	_ = fs.NodeReader((*disk)(nil))
	_ = fs.NodeFsyncer((*disk)(nil))
	_ = fs.NodeLseeker((*disk)(nil))
)

// attributes are what stat(2) shows, but for the inode number.
func (d *disk) attributes() fuse.Attr { return d.attr }

func (d *disk) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Attr = d.attr
	return 0
}

// Open lets the kernel keep what it has read of the file: it never changes.
func (d *disk) Open(_ context.Context, flags uint32) (fs.FileHandle, uint32, syscall.Errno) {
	if flags&syscall.O_ACCMODE != syscall.O_RDONLY {
		return nil, 0, syscall.EROFS
	}
	return nil, fuse.FOPEN_KEEP_CACHE, 0
}

// Fsync succeeds: there is nothing to write. cp and dd ask for it.
func (d *disk) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return 0 }

func (d *disk) Read(ctx context.Context, _ fs.FileHandle, dest []byte, off int64) (fuse.ReadResult, syscall.Errno) {
	dest, _ = blockio.Clip(dest, off, int64(d.attr.Size))
	off += d.off
	wait := d.parking.enter(ctx, d, d.timeout, off, len(dest))
	defer wait.leave()
	n, err := d.dev.ReadAtContext(wait, dest, off)
	if err == nil || err == io.EOF {
		d.count.read(n)
		d.failures.clear(off, n)
		return fuse.ReadResultData(dest[:n]), 0
	}
	e := errno.From(err)
	if wait.evicted() {
		err, e = errCrowded, syscall.EIO
	} else if e != syscall.EINTR {
		wait.failed()
	}
	if e != syscall.EINTR {
		d.count.failed(&d.count.errors, err)
		d.failures.add(off, len(dest), err)
	}
	return nil, e
}
