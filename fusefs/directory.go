package fusefs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// The directory never changes. On a read-only mount the kernel says so itself; what
// go-fuse would answer for a method that is missing is not always a refusal.
var (
	_ = fs.NodeSetattrer((*root)(nil))
	_ = fs.NodeFsyncer((*root)(nil))
	_ = fs.NodeCreater((*root)(nil))
	_ = fs.NodeMknoder((*root)(nil))
	_ = fs.NodeMkdirer((*root)(nil))
	_ = fs.NodeSymlinker((*root)(nil))
	_ = fs.NodeLinker((*root)(nil))
	_ = fs.NodeUnlinker((*root)(nil))
	_ = fs.NodeRmdirer((*root)(nil))
	_ = fs.NodeRenamer((*root)(nil))
	_ = fs.NodeTmpfiler((*root)(nil))
)

// Setattr accepts times, without effect, and nothing else.
func (r *root) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID|fuse.FATTR_SIZE) != 0 {
		return syscall.EPERM
	}
	out.Attr = r.attr
	out.Ino = rootIno
	return 0
}

// Fsync succeeds: there is nothing to write.
func (r *root) Fsync(context.Context, fs.FileHandle, uint32) syscall.Errno { return 0 }

// Create is refused.
func (r *root) Create(context.Context, string, uint32, uint32, *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EPERM
}

// Tmpfile is refused.
func (r *root) Tmpfile(context.Context, uint32, uint32, *fuse.EntryOut) (*fs.Inode, fs.FileHandle, uint32, syscall.Errno) {
	return nil, nil, 0, syscall.EPERM
}

// Mknod is refused.
func (r *root) Mknod(context.Context, string, uint32, uint32, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// Mkdir is refused.
func (r *root) Mkdir(context.Context, string, uint32, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// Symlink is refused.
func (r *root) Symlink(context.Context, string, string, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// Link is refused.
func (r *root) Link(context.Context, fs.InodeEmbedder, string, *fuse.EntryOut) (*fs.Inode, syscall.Errno) {
	return nil, syscall.EPERM
}

// Unlink is refused.
func (r *root) Unlink(context.Context, string) syscall.Errno { return syscall.EPERM }

// Rmdir is refused.
func (r *root) Rmdir(context.Context, string) syscall.Errno { return syscall.EPERM }

// Rename is refused.
func (r *root) Rename(context.Context, string, fs.InodeEmbedder, string, uint32) syscall.Errno {
	return syscall.EPERM
}
