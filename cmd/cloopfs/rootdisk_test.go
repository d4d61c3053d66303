package main

import (
	"errors"
	"os"
	"os/exec"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

// In a user namespace this process has CAP_IPC_LOCK, and the bound holds all the same.
func TestMayLockInUserNamespace(t *testing.T) {
	const inside = "CLOOPFS_TEST_INSIDE"
	if os.Getenv(inside) != "" {
		bound := unix.Rlimit{Cur: 64 << 10, Max: 64 << 10}
		if err := unix.Setrlimit(unix.RLIMIT_MEMLOCK, &bound); err != nil {
			t.Fatal(err)
		}
		if err := mayLock(); !errors.Is(err, unix.ENOMEM) {
			t.Errorf("mayLock with a bound: %v, want ENOMEM", err)
		}
		return
	}
	cmd := exec.Command("/proc/self/exe", "-test.run=^"+t.Name()+"$", "-test.v")
	cmd.Env = append(os.Environ(), inside+"=1")
	cmd.SysProcAttr = &syscall.SysProcAttr{
		Cloneflags:  syscall.CLONE_NEWUSER,
		UidMappings: []syscall.SysProcIDMap{{ContainerID: 0, HostID: os.Getuid(), Size: 1}},
	}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Errorf("in a user namespace, which this machine has to allow: %v\n%s", err, out)
	}
}
