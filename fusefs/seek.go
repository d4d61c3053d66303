package fusefs

import (
	"context"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
)

// Lseek answers SEEK_DATA and SEEK_HOLE by what the disk can tell of its zeros (which may
// take a look at what stands for them in an image); there is a hole at the end of the
// file, as lseek(2) has it. What is not known counts as data. So does all behind a place
// where the map can't be had, or not in time: who reads on learns why. Nobody is told
// EINTR: the kernel interrupts requests for completions of the caller's io_uring, too,
// not only for signals, and qemu-img(1) gives the map up.
//
// What was written through a shared mapping may be taken for a hole until
// munmap(2) or msync(2): the kernel has not sent it yet.
func (d *disk) Lseek(ctx context.Context, _ fs.FileHandle, off uint64, whence uint32) (uint64, syscall.Errno) {
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, syscall.EINVAL
	}
	size := d.attr.Size
	if off >= size {
		return 0, syscall.ENXIO
	}
	wait := d.parking.enterOnce(ctx, d, d.timeout)
	defer wait.leave()
	for off < size {
		n, zeros, err := blockio.MapAt(wait, d.dev, d.off+int64(off))
		unknown := err != nil || n <= 0 || wait.overdue() // a large disk has a large map
		switch {
		case unknown && whence == unix.SEEK_HOLE:
			return size, 0
		case unknown || zeros == (whence == unix.SEEK_HOLE):
			return off, 0
		}
		off += min(uint64(n), size-off)
	}
	if whence == unix.SEEK_DATA {
		return 0, syscall.ENXIO // nothing but a hole to the end
	}
	return size, 0
}
