package fusefs

import (
	"context"
	"fmt"
	"syscall"

	"github.com/hanwen/go-fuse/v2/fs"
	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
)

// Lseek answers SEEK_DATA and SEEK_HOLE by what the disk knows of its zeros without
// reading them: what it does not know is data. There is a hole at the end of the file,
// as lseek(2) has it. What was written through a shared mapping, and the kernel has
// not sent yet, may still be taken for a hole; the kernel sends it at munmap(2) or msync(2).
func (d *disk) Lseek(ctx context.Context, _ fs.FileHandle, off uint64, whence uint32) (uint64, syscall.Errno) {
	if whence != unix.SEEK_DATA && whence != unix.SEEK_HOLE {
		return 0, syscall.EINVAL
	}
	size := int64(d.attr.Size)
	if off >= uint64(size) {
		return 0, syscall.ENXIO
	}
	wait := d.parking.enterOnce(ctx, d.timeout)
	defer wait.leave()
	for at := int64(off); at < size; {
		n, zeros, err := blockio.MapAt(wait, d.dev, d.off+at)
		if err == nil && n <= 0 {
			err = fmt.Errorf("nothing is known of the disk at %d", d.off+at)
		}
		if err == nil {
			err = wait.Err() // a large disk has a large map
		}
		if err != nil {
			return 0, d.readFailed("seek failed", wait, err, "offset", d.off+at)
		}
		if zeros == (whence == unix.SEEK_HOLE) {
			return uint64(at), 0
		}
		at += min(n, size-at)
	}
	if whence == unix.SEEK_DATA {
		return 0, syscall.ENXIO // nothing but a hole to the end
	}
	return uint64(size), 0
}
