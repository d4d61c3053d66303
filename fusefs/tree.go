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

// DiskName is the file's name.
const DiskName = "disk.img"

// Inode numbers, the same on every mount: UML's and QEMU's overlay files
// remember what they lie above.
const (
	rootIno = 1
	diskIno = 2 // of partition N: diskIno+N
)

const (
	sectorSize = 512  // of st_blocks
	pageSize   = 4096 // of st_blksize and statfs
)

// root is the directory.
type root struct {
	fs.Inode
	attr       fuse.Attr
	disk       *disk
	file       fs.InodeEmbedder // the disk as it is shown
	partitions *partitions
}

// newRoot returns the directory of a disk that can only be read.
func newRoot(dev blockio.ReaderAt, opt Options) *root {
	file := fuse.Attr{
		Mode: opt.Mode, Nlink: 1, Owner: fuse.Owner{Uid: opt.UID, Gid: opt.GID}, Blksize: pageSize,
	}
	file.SetTimes(&opt.ModTime, &opt.ModTime, &opt.ModTime)
	dir := file
	dir.Mode, dir.Nlink = opt.Mode|opt.Mode>>2&0o111, 2
	device := &device{dev: dev, timeout: opt.Timeout, log: opt.Logger, failures: newFailures(opt.Logger, opt.BlockOf)}
	disk := newDisk(device, file, blockio.Extent{Len: dev.Size()})
	return &root{attr: dir, disk: disk, file: disk, partitions: newPartitions(opt.Partitions)}
}

// blocksOf is the number of blocks of the given size that size bytes take.
func blocksOf(size, block int64) uint64 { return uint64((size + block - 1) / block) }

var (
	_ = fs.NodeOnAdder((*root)(nil))
	_ = fs.NodeGetattrer((*root)(nil))
	_ = fs.NodeStatfser((*root)(nil))
	_ = fs.NodeLookuper((*root)(nil))
	_ = fs.NodeReaddirer((*root)(nil))
)

// OnAdd hangs disk.img into the directory.
func (r *root) OnAdd(ctx context.Context) {
	child := r.NewPersistentInode(ctx, r.file, fs.StableAttr{Mode: syscall.S_IFREG, Ino: diskIno})
	r.AddChild(DiskName, child, false)
}

func (r *root) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Attr = r.attr
	return 0
}

// Statfs says that the file system is as large as the disk, and full.
func (r *root) Statfs(_ context.Context, out *fuse.StatfsOut) syscall.Errno {
	*out = fuse.StatfsOut{
		Blocks: blocksOf(int64(r.disk.attr.Size), pageSize), Files: 2,
		Bsize: pageSize, Frsize: pageSize, NameLen: 255,
	}
	return 0
}

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
	if wait.evicted() {
		err = errCrowded
	}
	e := errno.From(err)
	if e != syscall.EINTR {
		d.count.failed(&d.count.errors, err)
		d.failures.add(off, len(dest), err)
	}
	return nil, e
}

// complain logs that something failed.
func (d *device) complain(quiet *limiter, what string, args ...any) {
	if more, ok := quiet.allow(); ok {
		d.log.Error(what, append(args, "more", more)...)
	}
}
