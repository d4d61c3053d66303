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

func TestDoomed(t *testing.T) {
	const alive = "Name:\tdd\nState:\tD (disk sleep)\nTracerPid:\t0\n"
	for _, c := range []struct {
		name, status string
		want         bool
	}{
		{"nothing pending", alive + "SigPnd:\t0000000000000000\nShdPnd:\t0000000000000000\nSigBlk:\t0000000000000000\n", false},
		{"a zombie", "State:\tZ (zombie)\n", true},
		{"SIGKILL", alive + "SigPnd:\t0000000000000100\n", true},
		{"SIGKILL of a traced process", alive + "TracerPid:\t7\nShdPnd:\t0000000000000100\n", true},
		{"SIGQUIT for the thread", alive + "SigPnd:\t0000000000000004\nSigBlk:\t0000000000000000\nSigIgn:\t0000000000000000\nSigCgt:\t0000000000000200\n", true},
		{"SIGABRT for the process", alive + "ShdPnd:\t0000000000000020\n", true},
		{"SIGQUIT and SIGABRT, one with a handler", alive + "ShdPnd:\t0000000000000024\nSigCgt:\t0000000000000004\n", true},
		{"with a handler", alive + "ShdPnd:\t0000000000000004\nSigBlk:\t0000000000000000\nSigCgt:\t0000000000000004\n", false},
		{"blocked", alive + "ShdPnd:\t0000000000000004\nSigBlk:\t0000000000000004\n", false},
		{"ignored", alive + "ShdPnd:\t0000000000000004\nSigIgn:\t0000000000000004\n", false},
		{"a debugger's", alive + "TracerPid:\t7\nSigPnd:\t0000000000000010\n", false},
		{"SIGCHLD, which does nothing", alive + "ShdPnd:\t0000000000010000\n", false},
		{"SIGTSTP, which stops", alive + "ShdPnd:\t0000000000080000\n", false},
		{"what is no number", alive + "ShdPnd:\tnone\n", false},
		{"nothing", "", false},
	} {
		if got := doomed([]byte(c.status)); got != c.want {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}
