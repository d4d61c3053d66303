package main

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
	"kernel.org/pub/linux/libs/security/libcap/cap"

	"github.com/cloopfs/cloopfs/internal/mounts"
)

// hideMemory keeps this process's memory, which holds credentials, from core dumps and from
// the user's other processes.
func hideMemory() { _ = unix.Prctl(unix.PR_SET_DUMPABLE, 0, 0, 0, 0) } // fails never

// rights are the capabilities that the mount needs for as long as it is served.
func (o *mountOptions) rights() []cap.Value {
	// To unmount, wherever the mountpoint is.
	needed := []cap.Value{cap.SYS_ADMIN, cap.DAC_READ_SEARCH}
	if o.Profile.Record != "" {
		needed = append(needed, cap.DAC_OVERRIDE) // in anybody's directory
	}
	if mounts.ProcHidden() {
		needed = append(needed, cap.SYS_PTRACE) // to see whether a reader was killed
	}
	if o.RootDisk {
		needed = append(needed, cap.IPC_LOCK) // its memory is locked as it grows
	}
	return needed
}

// dropRights gives up, in all threads and for good, all capabilities but those needed. It
// waits for all of them, and so does the rest of the process (syscall.AllThreadsSyscall): no
// context could bound that. A thread that is stuck in the kernel, in a file of another file
// system that hangs, holds it up; the disk, which is not mounted yet, can't.
func dropRights(needed []cap.Value) error {
	had, err := cap.GetPID(0)
	if err != nil {
		return err
	}
	kept := cap.NewSet()
	has := func(v cap.Value) bool {
		ok, err := had.GetFlag(cap.Permitted, v)
		return err == nil && ok
	}
	needed = slices.DeleteFunc(slices.Clone(needed), func(v cap.Value) bool { return !has(v) })
	err = errors.Join(
		kept.SetFlag(cap.Permitted, true, needed...),
		kept.SetFlag(cap.Effective, true, needed...),
	)
	if has(cap.SETPCAP) {
		var others []cap.Value
		for v := range cap.MaxBits() {
			if bound, err := cap.GetBound(v); err == nil && bound && !slices.Contains(needed, v) {
				others = append(others, v)
			}
		}
		err = errors.Join(err, cap.DropBound(others...))
	}
	err = errors.Join(err, cap.ResetAmbient(), kept.SetProc())
	if has(cap.SYS_ADMIN) { // others unmount by a set-uid program
		_, e := cap.Prctlw(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		err = errors.Join(err, e)
	}
	return err
}
