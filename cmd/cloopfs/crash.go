package main

import (
	"bufio"
	"encoding/gob"
	"io"
	"log/slog"
	"os"
	"os/exec"
	"os/signal"
	"runtime/debug"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/daemonlog"
	"github.com/cloopfs/cloopfs/internal/line"
)

// A process that crashes says why on its standard error, where in the background nobody
// listens, and can't write to syslog any more. So each process in the background has another
// one of this program that waits for its end, and writes what it said to the log.
const (
	crashEnv  = "CLOOPFS_CRASH" // set for that process, and for nothing else
	crashName = "cloopfs-crashlog"
	// maxCrash bounds what is logged, in bytes: the stacks of some thousand goroutines.
	maxCrash = 1 << 20
	// crashLogTime is how long the end of the process may wait for the other one's.
	crashLogTime = time.Second
)

// crashLog is the other process.
type crashLog struct {
	pipe  *os.File
	ended chan struct{} // closed at its end
}

// startCrashLog starts the process that logs a crash of this one, where the log of o is. Close
// it at the end.
func startCrashLog(o mountOptions) (*crashLog, error) {
	read, write, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{crashName, o.Mountpoint}
	if o.RootDisk {
		cmd.Args[0] = rootDiskMark + crashName
	}
	cmd.Env = append(line.WithoutProxies(os.Environ()), crashEnv+"=1")
	cmd.Stdin = read
	err = cmd.Start()
	read.Close()
	if err != nil {
		write.Close()
		return nil, err
	}
	c := &crashLog{pipe: write, ended: make(chan struct{})}
	go func() {
		_ = cmd.Wait() // it has nothing to say
		close(c.ended)
	}()
	err = gob.NewEncoder(write).Encode(o.Log)
	if err == nil {
		err = debug.SetCrashOutput(write, debug.CrashOptions{})
	}
	if err != nil {
		c.Close()
		return nil, err
	}
	// A crash, and with it the readers of the disk, must not wait for the other process, which
	// may be stopped: what has no room is lost.
	fd := write.Fd() // makes it one that waits
	_, _ = unix.FcntlInt(fd, unix.F_SETPIPE_SZ, maxCrash)
	if err := unix.SetNonblock(int(fd), true); err != nil {
		c.Close()
		return nil, err
	}
	return c, nil
}

// Close says that there was no crash, and waits until the other process has let go of the
// log, for as long as that may take.
func (c *crashLog) Close() {
	_ = debug.SetCrashOutput(nil, debug.CrashOptions{}) // fails not for nil
	c.pipe.Close()
	select {
	case <-c.ended:
	case <-time.After(crashLogTime):
	}
}

func inCrashLog() bool { return os.Getenv(crashEnv) != "" }

// runCrashLog is the other process's main function.
func runCrashLog() int {
	signal.Ignore(endSignals...) // whoever ends both means the mount
	pid := os.Getppid()
	in := bufio.NewReader(os.Stdin)
	var o daemonlog.Options
	if err := gob.NewDecoder(in).Decode(&o); err != nil {
		return cli.ExitUsage // started by hand
	}
	h, err := o.Handler(nil)
	if err != nil {
		return cli.ExitCode(err)
	}
	_ = dropRights(nil) // it has nobody whom it could tell
	text, _ := io.ReadAll(io.LimitReader(in, maxCrash))
	go func() { _, _ = io.Copy(io.Discard, in) }() // the rest
	if len(text) == 0 {
		return cli.ExitOK
	}
	log := slog.New(h)
	log.Error("crashed: please report the lines that follow", "pid", pid, "mountpoint", os.Args[len(os.Args)-1])
	for said := range strings.Lines(string(text)) {
		if said = strings.TrimRight(said, "\n"); said != "" {
			log.Error(said)
		}
	}
	return cli.ExitOK
}
