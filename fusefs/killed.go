package fusefs

import (
	"bytes"
	"context"
	"fmt"
	"strconv"
	"syscall"
	"time"

	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/cloopfs/cloopfs/internal/proc"
)

// killTime is how long a process that was killed may go on to wait, if it was sent
// another signal before.
const killTime = 50 * time.Millisecond

// awaitKill returns when whoever sent a request, which has been interrupted, is about
// to die, when nobody waits for its answer any more, or when done is closed. The kernel
// interrupts a request once, for any signal, and then waits for its answer; but reads
// and writes of files do not fail with EINTR, and what was written would be lost with
// those who do not try again: User Mode Linux does not, and it gets signals all the
// time.
func awaitKill(ctx context.Context, from sender, done <-chan struct{}) {
	caller, ok := fuse.FromContext(ctx)
	for ok && !dying(caller.Pid) {
		gone := make(chan struct{})
		go func() {
			if from.gone() {
				close(gone)
			}
		}()
		select {
		case <-done:
			return
		case <-gone:
			return
		case <-time.After(killTime):
		}
	}
}

// gone says whether the kernel has closed the connection: that interrupts all requests,
// and says so no further. Asked for what it keeps of the file behind its end, it sends a
// request, for which there must be a connection. gone may block until the last other
// request has been answered.
func (d *disk) gone() bool {
	_, e := d.ReadCache(int64(d.attr.Size), make([]byte, 1))
	return e == syscall.ENODEV || e == syscall.ENOTCONN || e == syscall.ENOENT
}

// gone does not know of a connection that was closed as long as somebody uses the directory and
// nobody has looked for the disk: of a directory the kernel tells only whether it is there.
func (r *root) gone() bool {
	_, e := r.ReadCache(0, make([]byte, 1))
	if e == syscall.ENOENT {
		return true
	}
	_, e = r.disk.ReadCache(int64(r.disk.attr.Size), make([]byte, 1))
	return e == syscall.ENODEV || e == syscall.ENOTCONN
}

// dying says whether the thread with this number has been killed, be it by a signal
// that it has no handler for. One that can't be seen, because it is in no PID namespace of
// ours, counts as killed.
func dying(tid uint32) bool {
	status, err := proc.ReadFile(fmt.Sprintf("%d/status", tid))
	return err != nil || doomed(status)
}

// dumping are the signals that end a process, unless it handles them, and dump its core. Of
// any other that does the kernel makes a SIGKILL at once; these wait until the thread comes
// back from the kernel.
const dumping = 1<<(syscall.SIGQUIT-1) | 1<<(syscall.SIGILL-1) | 1<<(syscall.SIGTRAP-1) | 1<<(syscall.SIGABRT-1) |
	1<<(syscall.SIGBUS-1) | 1<<(syscall.SIGFPE-1) | 1<<(syscall.SIGSEGV-1) | 1<<(syscall.SIGXCPU-1) |
	1<<(syscall.SIGXFSZ-1) | 1<<(syscall.SIGSYS-1)

// doomed is dying, by a thread's status (proc_pid_status(5)).
func doomed(status []byte) bool {
	var pending, spared uint64
	for line := range bytes.Lines(status) {
		name, value, _ := bytes.Cut(bytes.TrimSpace(line), []byte(":"))
		value = bytes.TrimSpace(value)
		switch string(name) {
		case "State":
			if len(value) > 0 && (value[0] == 'Z' || value[0] == 'X') {
				return true
			}
		case "TracerPid":
			if string(value) != "0" { // a debugger may take any of them away, but SIGKILL
				spared = ^uint64(0)
			}
		case "SigPnd", "ShdPnd":
			pending |= signals(value)
		case "SigBlk", "SigIgn", "SigCgt":
			spared |= signals(value)
		}
	}
	return pending>>(syscall.SIGKILL-1)&1 == 1 || pending&^spared&dumping != 0
}

// signals is a set of signals, as status has them: bit 0 is signal 1.
func signals(hex []byte) uint64 {
	set, err := strconv.ParseUint(string(hex), 16, 64)
	if err != nil {
		return 0
	}
	return set
}
