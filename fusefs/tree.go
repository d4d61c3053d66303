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
	diskIno = 2
)

const (
	sectorSize = 512  // of st_blocks
	pageSize   = 4096 // of st_blksize and statfs
)

// root is the directory.
type root struct {
	fs.Inode
	attr fuse.Attr
	disk *disk
}

func newRoot(dev blockio.ReaderAt, opt Options) *root {
	owner := fuse.Owner{Uid: opt.UID, Gid: opt.GID}
	t := uint64(opt.ModTime.Unix())
	return &root{
		attr: fuse.Attr{
			Mode: opt.Mode | opt.Mode>>2&0o111, Nlink: 2, Owner: owner,
			Atime: t, Mtime: t, Ctime: t, Blksize: pageSize,
		},
		disk: &disk{
			dev:     dev,
			timeout: opt.Timeout,
			log:     opt.Logger,
			attr: fuse.Attr{
				Mode: opt.Mode, Nlink: 1, Owner: owner,
				Size: uint64(dev.Size()), Blocks: blocksOf(dev.Size(), sectorSize), Blksize: pageSize,
				Atime: t, Mtime: t, Ctime: t,
			},
		},
	}
}

// blocksOf is the number of blocks of the given size that size bytes take.
func blocksOf(size, block int64) uint64 { return uint64((size + block - 1) / block) }

var (
	_ = fs.NodeOnAdder((*root)(nil))
	_ = fs.NodeGetattrer((*root)(nil))
	_ = fs.NodeStatfser((*root)(nil))
)

// OnAdd hangs disk.img into the directory.
func (r *root) OnAdd(ctx context.Context) {
	child := r.NewPersistentInode(ctx, r.disk, fs.StableAttr{Mode: syscall.S_IFREG, Ino: diskIno})
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

// disk is disk.img.
type disk struct {
	fs.Inode
	dev     blockio.ReaderAt
	timeout time.Duration
	attr    fuse.Attr
	parking parking
	log     *slog.Logger
	quiet   limiter
}

var (
	_ = fs.NodeGetattrer((*disk)(nil))
	_ = fs.NodeOpener((*disk)(nil))
	_ = fs.NodeReader((*disk)(nil))
	_ = fs.NodeFsyncer((*disk)(nil))
)

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
	wait := d.parking.enter(ctx, d.timeout, off, len(dest))
	defer wait.leave()
	n, err := d.dev.ReadAtContext(wait, dest, off)
	if err == nil || err == io.EOF {
		return fuse.ReadResultData(dest[:n]), 0
	}
	if wait.evicted() {
		err = errCrowded
	}
	e := errno.From(err)
	if e != syscall.EINTR {
		d.complain(off, len(dest), err)
	}
	return nil, e
}

// complain logs a failed read.
func (d *disk) complain(off int64, n int, err error) {
	if more, ok := d.quiet.allow(); ok {
		d.log.Error("read failed", "offset", off, "length", n, "error", err, "more", more)
	}
}
