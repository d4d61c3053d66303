package main

import (
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/cloopfs/cloopfs/internal/cli"
)

// With --root-disk the machine's own root lies on the disk that is served. Then this process
// must not end before the machine does, and must not wait for the disk itself: neither for
// its own program's pages nor for a file, an address or a time zone that some library
// looks up when it needs it first (docs/root-disk.md).

// rootDiskMark begins the first argument of a process that systemd does not kill when
// the machine is shut down, if it is root's (systemd: Storage Daemons for the Root File System).
const rootDiskMark = "@"

// readyForRootDisk readies this process for serving the disk that it may run from. It
// returns what could not be done.
func readyForRootDisk() (undone []error) {
	_, _ = time.Now().Zone()     // for the log
	_, _ = x509.SystemCertPool() // for https, which SOURCE may lead to later
	for _, s := range []struct {
		what string
		do   func() error
	}{
		{"the kernel may kill this process when memory is short", spareMe},
		{"memory that this process needs may be waited for until this process has written", flushIO},
		{"this program may be paged out, to be read from the disk that it serves", lockMemory},
	} {
		if err := s.do(); err != nil {
			undone = append(undone, fmt.Errorf("--root-disk: %s: %w", s.what, cli.WithoutPath(err)))
		}
	}
	return undone
}

// spareMe says that the kernel shall not kill this process when memory is short.
func spareMe() error {
	f, err := os.OpenFile("/proc/self/oom_score_adj", os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString("-1000")
	return errors.Join(err, f.Close())
}

// flushIO says of all threads that what they allocate must not wait for I/O: it may be
// theirs to do.
func flushIO() error {
	_, err := cap.Prctlw(unix.PR_SET_IO_FLUSHER, 1, 0, 0, 0)
	return err
}

// lockMemory reads all of this program into memory, and keeps that and whatever memory it
// uses from being paged out. Mapped is far more than used (docs/decisions/0013-root-disk.md), so
// only what comes from a file is read.
func lockMemory() error {
	if err := mayLock(); err != nil {
		return err
	}
	if err := unix.Mlockall(unix.MCL_CURRENT | unix.MCL_FUTURE | unix.MCL_ONFAULT); err != nil {
		return err
	}
	maps, err := os.ReadFile("/proc/self/maps")
	if err != nil {
		return err
	}
	for line := range strings.Lines(string(maps)) {
		var start, end, off, inode uint64
		var access, device string
		if _, err := fmt.Sscanf(line, "%x-%x %s %x %s %d", &start, &end, &access, &off, &device, &inode); err != nil {
			return err
		}
		if inode == 0 {
			continue
		}
		if _, _, e := unix.Syscall(unix.SYS_MLOCK, uintptr(start), uintptr(end-start), 0); e != 0 {
			return e
		}
	}
	return nil
}

// mayLock says whether this process may lock memory without bound: at a bound it would end.
// CAP_IPC_LOCK does not tell, since it means nothing in a user namespace; so more than the
// bound is locked for a try. Nothing of it is ever made.
func mayLock() error {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_MEMLOCK, &limit); err != nil || limit.Cur == unix.RLIM_INFINITY {
		return err
	}
	size := uintptr(limit.Cur) + uintptr(os.Getpagesize())
	try, err := unix.MmapPtr(-1, 0, nil, size, unix.PROT_NONE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_NORESERVE)
	if err != nil {
		return err
	}
	if _, _, e := unix.Syscall(unix.SYS_MLOCK2, uintptr(try), size, unix.MLOCK_ONFAULT); e != 0 {
		err = e
	}
	return errors.Join(err, unix.MunmapPtr(try, size))
}
