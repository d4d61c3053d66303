package fusefs

import (
	"os"
	"os/exec"
	"syscall"
	"testing"
)

func TestDying(t *testing.T) {
	if dying(uint32(os.Getpid())) {
		t.Error("this process is said to be dying")
	}
	cmd := exec.Command("sleep", "1000")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := uint32(cmd.Process.Pid)
	if dying(pid) {
		t.Error("a process is said to be dying")
	}
	if err := cmd.Process.Signal(syscall.SIGTERM); err != nil { // it has no handler
		t.Fatal(err)
	}
	for !dying(pid) { // a zombie in the end
	}
	_ = cmd.Wait()
	if !dying(pid) || !dying(0) {
		t.Error("a process that is gone is said to live")
	}
}
