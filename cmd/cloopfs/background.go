package main

import (
	"context"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"github.com/spf13/pflag"
	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
)

// A mount in the background is served by a second process of this program in a
// session of its own. It gets its options over a pipe, since arguments and
// environment can be read by others, and answers once over another.
const (
	backgroundEnv = "CLOOPFS_BACKGROUND" // set for the second process, and for nothing else
	optionsFD     = 3
	answerFD      = 4
)

// answer is what the background process says once.
type answer struct {
	Ready readiness
	// Error is empty if the disk is mounted.
	Error string
	Hint  string
	Code  int
}

// mountBackground starts the background process, which shows args as its own,
// and returns when the disk is mounted or can't be.
func mountBackground(ctx context.Context, args []string, o mountOptions, stderr io.Writer) error {
	optionsRead, optionsWrite, err := os.Pipe()
	if err != nil {
		return err
	}
	defer optionsWrite.Close()
	answerRead, answerWrite, err := os.Pipe()
	if err != nil {
		optionsRead.Close()
		return err
	}
	defer answerRead.Close()

	cmd := exec.Command("/proc/self/exe")
	cmd.Args = args
	cmd.Env = append(line.WithoutProxies(os.Environ()), backgroundEnv+"=1")
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{optionsRead, answerWrite} // optionsFD, answerFD; 0-2 are /dev/null
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err = keepFromPrograms(); err == nil {
		err = cmd.Start()
	}
	optionsRead.Close()
	answerWrite.Close()
	if err != nil {
		return fmt.Errorf("start the background process: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = cmd.Process.Signal(syscall.SIGTERM) })
	defer stop()

	var a answer
	sendErr := gob.NewEncoder(optionsWrite).Encode(o)
	readErr := gob.NewDecoder(answerRead).Decode(&a)
	switch {
	case ctx.Err() != nil:
		return ctx.Err()
	case sendErr != nil || readErr != nil:
		return &cli.Error{Code: cli.ExitMount, Err: errors.New("the background process ended without a word")}
	case a.Error != "":
		awaitExit(cmd)
		return &cli.Error{Code: a.Code, Err: errors.New(a.Error), Hint: a.Hint}
	}
	announce(stderr, o, a.Ready)
	return nil
}

// keepFromPrograms makes programs that are started inherit the standard descriptors alone: what
// this process has inherited (a lock, the pipe of whoever waits for its output) must not live
// as long as the mount.
func keepFromPrograms() error {
	if unix.CloseRange(firstOther, math.MaxUint32, unix.CLOSE_RANGE_CLOEXEC) == nil {
		return nil
	}
	return keepEachFromPrograms() // Linux before 5.11, or a filter of system calls that knows none so new
}

// firstOther is the first descriptor that is not a standard one.
const firstOther = 3

// keepEachFromPrograms is keepFromPrograms, descriptor by descriptor.
func keepEachFromPrograms() error {
	entries, err := os.ReadDir("/proc/self/fd")
	for _, entry := range entries {
		if fd, err := strconv.Atoi(entry.Name()); err == nil && fd >= firstOther {
			unix.CloseOnExec(fd) // fails for the directory's own, which is closed by now
		}
	}
	return err
}

// exitTime is how long a process that has said its last word may take to be gone.
const exitTime = time.Second

// awaitExit waits until a process is gone that has nothing to do any more: who looks for it
// then must not find it. A thread of it may be stuck for good, on a file system that hangs.
func awaitExit(cmd *exec.Cmd) {
	gone := make(chan struct{})
	go func() {
		_ = cmd.Wait() // it has said why
		close(gone)
	}()
	select {
	case <-gone:
	case <-time.After(exitTime):
	}
}

// backgroundArgs is what ps(1) shows of the background process: the flags that
// were given, SOURCE as it may be shown, and MOUNTPOINT last.
func backgroundArgs(flags *pflag.FlagSet, o mountOptions) []string {
	args := []string{"cloopfs", "mount"}
	if o.RootDisk {
		args[0] = rootDiskMark + args[0]
	}
	flags.Visit(func(f *pflag.Flag) {
		if f.Name != optionsFlag { // it has set others
			args = append(args, "--"+f.Name+"="+f.Value.String())
		}
	})
	return append(args, o.Source.String(), o.Mountpoint)
}

func inBackground() bool { return os.Getenv(backgroundEnv) != "" }

// runBackground is the background process's main function.
func runBackground(ctx context.Context) int {
	os.Unsetenv(backgroundEnv)
	hideMemory()
	// Others that are started must not keep who waits for an answer waiting.
	unix.CloseOnExec(optionsFD)
	unix.CloseOnExec(answerFD)
	options, reply := os.NewFile(optionsFD, "options"), os.NewFile(answerFD, "answer")
	var o mountOptions
	err := gob.NewDecoder(options).Decode(&o)
	options.Close()
	if err != nil {
		return cli.ExitUsage // started by hand
	}
	o.Line.Access.SetProxies()
	say := func(a answer) {
		_ = gob.NewEncoder(reply).Encode(a) // the other end may have been interrupted
		reply.Close()
	}
	err = serveInBackground(ctx, o, func(r readiness) { say(answer{Ready: r}) })
	if err == nil {
		return cli.ExitOK
	}
	a := answer{Error: err.Error(), Code: cli.ExitCode(err)}
	if f, ok := errors.AsType[*cli.Error](err); ok {
		a.Hint = f.Hint
	}
	say(a)
	return a.Code
}

// serveInBackground serves the mount, and logs what happens. When it returns nothing is left
// but to say why.
func serveInBackground(ctx context.Context, o mountOptions, ready func(readiness)) error {
	log, queue, err := o.Log.Open(nil)
	if err != nil {
		return err
	}
	defer queue.Close()
	crash, err := startCrashLog(o)
	if err != nil {
		log.Warn("a crash of this process will not be in the log", "error", err)
		return serveMount(ctx, o, log, ready)
	}
	err = serveMount(ctx, o, log, ready)
	crash.Close() // not deferred: a panic would run it, which says that there was none
	return err
}
