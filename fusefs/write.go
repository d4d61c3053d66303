package fusefs

import (
	"context"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/errno"
)

// writable is disk.img of a disk that can be written to.
type writable struct {
	*disk
	to      blockio.Device // the disk, once more
	changed atomic.Int64   // when it was written to last, in Unix nanoseconds; 0 means not yet
	// quietWrites is of writes: failed reads must not keep them out of the log.
	quietWrites limiter
}

// newWritableRoot returns the directory of a disk that can be written to.
func newWritableRoot(dev blockio.Device, opt Options) *root {
	opt.Partitions = nil
	r := newRoot(dev, opt)
	r.file = &writable{disk: r.disk, to: dev}
	return r
}

var (
	_ = fs.NodeGetattrer((*writable)(nil))
	_ = fs.NodeSetattrer((*writable)(nil))
	_ = fs.NodeOpener((*writable)(nil))
	_ = fs.NodeWriter((*writable)(nil))
	_ = fs.NodeFsyncer((*writable)(nil))
	_ = fs.NodeAllocater((*writable)(nil))
)

// attributes has the time of the last write. The kernel asks anew after each write;
// what it has read it keeps all the same (ExplicitDataCacheControl).
func (w *writable) attributes() fuse.Attr {
	a := w.attr
	if ns := w.changed.Load(); ns != 0 {
		t := time.Unix(0, ns)
		a.SetTimes(nil, &t, &t)
	}
	return a
}

func (w *writable) Getattr(_ context.Context, _ fs.FileHandle, out *fuse.AttrOut) syscall.Errno {
	out.Attr = w.attributes()
	return 0
}

// Setattr refuses whatever would change the file. Its own size is accepted, and
// times are, without effect: dd(1), cp(1) and touch(1) set them.
func (w *writable) Setattr(_ context.Context, _ fs.FileHandle, in *fuse.SetAttrIn, out *fuse.AttrOut) syscall.Errno {
	if size, ok := in.GetSize(); ok && size != w.attr.Size {
		return syscall.EPERM
	}
	if in.Valid&(fuse.FATTR_MODE|fuse.FATTR_UID|fuse.FATTR_GID) != 0 {
		return syscall.EPERM
	}
	out.Attr = w.attributes()
	out.Ino = diskIno
	return 0
}

// Open lets the kernel keep what it has read of the file: it changes only by what
// the kernel itself writes. An O_TRUNC comes as a Setattr.
//
// Closing the file does nothing. By default it would write back, and wait for, what
// others have changed through their mappings, and on older kernels for every
// other writer as well: a reader would hang with them. A mapping's own end writes back what it
// has changed.
func (w *writable) Open(context.Context, uint32) (fs.FileHandle, uint32, syscall.Errno) {
	return nil, fuse.FOPEN_KEEP_CACHE | fuse.FOPEN_NOFLUSH, 0
}

// Write treats the end of the disk as block devices do: of a write across it, what
// lies within the disk is written, and the writer is told how much that was; for one
// beyond it there is no space. (The kernel sends a large write in pieces of
// maxRequest, so the first of them are done in any case.)
//
// If the writer is killed while the write waits for bytes to complete its ends, it
// fails with EINTR. Whatever the error, some of the bytes may be written.
func (w *writable) Write(ctx context.Context, _ fs.FileHandle, data []byte, off int64) (uint32, syscall.Errno) {
	p, _ := blockio.Clip(data, off, int64(w.attr.Size))
	if len(p) == 0 && len(data) > 0 {
		return 0, syscall.ENOSPC
	}
	wait := w.parking.enterOnce(ctx, w, w.timeout)
	defer wait.leave()
	n, err := w.to.WriteAtContext(wait, p, off)
	w.hasChanged()
	if err != nil {
		return 0, w.writeFailed("write failed", wait, err, "offset", off, "length", len(p))
	}
	w.count.wrote(n)
	return uint32(n), 0
}

const (
	punchHole = unix.FALLOC_FL_PUNCH_HOLE | unix.FALLOC_FL_KEEP_SIZE
	zeroRange = unix.FALLOC_FL_ZERO_RANGE // within the file KEEP_SIZE makes no difference
)

// Allocate makes zeros of a range where that is asked for: a loop device does for
// discarded and zeroed sectors. There is nothing to allocate. It waits as Write does.
func (w *writable) Allocate(ctx context.Context, _ fs.FileHandle, off, size uint64, mode uint32) syscall.Errno {
	switch mode {
	case 0, unix.FALLOC_FL_KEEP_SIZE, punchHole, zeroRange, zeroRange | unix.FALLOC_FL_KEEP_SIZE:
	default:
		return syscall.EOPNOTSUPP
	}
	if size > w.attr.Size || off > w.attr.Size-size {
		return syscall.EFBIG
	}
	if mode == 0 || mode == unix.FALLOC_FL_KEEP_SIZE {
		return 0
	}
	wait := w.parking.enterOnce(ctx, w, w.timeout)
	defer wait.leave()
	e := blockio.Extent{Off: int64(off), Len: int64(size)}
	err := w.to.ZeroContext(wait, e)
	w.hasChanged()
	if err != nil {
		return w.writeFailed("zeroing failed", wait, err, "offset", e.Off, "length", e.Len)
	}
	return 0
}

// Fsync returns when what was written is durable, and never reports that too early.
// It has no timeout and can't be interrupted, as on a local file system: it waits for
// nothing but the local disk, and whoever was told EINTR would have to give up
// all that he has written.
func (w *writable) Fsync(ctx context.Context, _ fs.FileHandle, _ uint32) syscall.Errno {
	if err := w.to.Flush(context.WithoutCancel(ctx)); err != nil {
		return w.writeFailed("flush failed", nil, err)
	}
	w.count.flushes.Add(1)
	return 0
}

// hasChanged notes that bytes of the disk may be others now.
func (w *writable) hasChanged() { w.changed.Store(time.Now().UnixNano()) }

// writeFailed counts and logs that a write failed, unless the writer gave up. wait is
// the write's, if it has one.
func (w *writable) writeFailed(what string, wait *waiter, err error, args ...any) syscall.Errno {
	if wait != nil && wait.evicted() {
		err = errCrowded
	}
	e := errno.From(err)
	if e != syscall.EINTR {
		w.count.failed(&w.count.writeErrors, err)
		w.complain(&w.quietWrites, what, append(args, "error", err)...)
	}
	return e
}
