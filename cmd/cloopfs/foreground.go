package main

import (
	"context"
	"encoding/gob"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
)

// A mount in the foreground starts the program anew in its process: arguments and
// environment can be read by others for as long as the mount lasts, so secrets go
// into a file that exists in memory alone, until it has been read.

// foregroundEnv is set for the program started anew: the descriptor of that file.
const foregroundEnv = "CLOOPFS_FOREGROUND"

// mountForeground starts the program anew, with args as what ps(1) shows. It only
// returns if that fails.
func mountForeground(args []string, o mountOptions) error {
	fail := func(err error) error { return fmt.Errorf("start in the foreground: %w", err) }
	fd, err := unix.MemfdCreate("options", 0)
	if err != nil {
		return fail(err)
	}
	options := os.NewFile(uintptr(fd), "options")
	defer options.Close()
	if err := gob.NewEncoder(options).Encode(o); err != nil {
		return fail(err)
	}
	if _, err := options.Seek(0, io.SeekStart); err != nil {
		return fail(err)
	}
	env := append(line.WithoutProxies(os.Environ()), foregroundEnv+"="+strconv.Itoa(fd))
	return fail(syscall.Exec("/proc/self/exe", args, env))
}

func inForeground() bool { return os.Getenv(foregroundEnv) != "" }

// runForeground is the main function of the program started anew: it serves the
// mount until it is unmounted.
func runForeground(ctx context.Context) int {
	// Whoever reads the log may go: that must not end the mount. (Notify, since others that
	// are started must not inherit it.)
	signal.Notify(make(chan os.Signal, 1), syscall.SIGPIPE)
	fd, err := strconv.Atoi(os.Getenv(foregroundEnv))
	os.Unsetenv(foregroundEnv)
	hideMemory()
	if err != nil {
		return cli.ExitUsage // started by hand
	}
	options := os.NewFile(uintptr(fd), "options")
	var o mountOptions
	err = gob.NewDecoder(options).Decode(&o)
	options.Close()
	if err != nil {
		return cli.ExitUsage
	}
	o.Line.Access.SetProxies()
	log, queue, err := o.Log.Open(os.Stderr)
	if err == nil {
		err = serveMount(ctx, o, log, func(r readiness) { announce(os.Stderr, o, r) })
		queue.Close() // before what finish says
	}
	return finish(ctx, err, os.Stderr)
}
