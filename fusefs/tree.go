package fusefs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/cloopfs/cloopfs/blockio"
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
