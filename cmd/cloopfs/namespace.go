package main

import (
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"
)

// execInNamespace runs this program anew, with other arguments, in the mount
// namespace of the file at path. It returns only if that can't be done.
func execInNamespace(path string, argv []string) error {
	namespace, err := os.Open(path)
	if err != nil {
		return err
	}
	defer namespace.Close()
	// A namespace is entered by one thread, which must have a root and a
	// working directory of its own; the new program goes on as that thread.
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return err
	}
	if err := unix.Setns(int(namespace.Fd()), unix.CLONE_NEWNS); err != nil {
		return err
	}
	return syscall.Exec("/proc/self/exe", argv, os.Environ())
}
