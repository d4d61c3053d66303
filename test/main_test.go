//go:build integration

// Package test runs the built program against real mounts, loop devices, web
// servers and tools. The tests need root, /dev/fuse and the packages listed in
// packages.txt; what is missing is a failure.
//
// A file of a mount is never opened by the test process itself, which could
// get stuck: separate processes read it, and those can be killed.
package test

import (
	"bytes"
	"errors"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"testing"
)

// Set by TestMain, constant afterwards.
var (
	cloopfs string // the program under test
	scratch string // holds every mountpoint and temporary file
)

func TestMain(m *testing.M) {
	if os.Getenv(mmapEnv) != "" {
		os.Exit(mmapMain(os.Args[1:]))
	}
	if os.Getenv(writerEnv) != "" {
		os.Exit(writerMain(os.Args[1:]))
	}
	if os.Getenv(bulkEnv) != "" {
		os.Exit(bulkMain())
	}
	if os.Getenv(crewEnv) != "" {
		os.Exit(crewMain())
	}
	if os.Getenv(bareEnv) != "" {
		os.Exit(bareMain(os.Args[1:]))
	}
	code, err := testMain(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

// testMain builds the program from the tree, runs the tests, and looks for what
// they left behind.
func testMain(m *testing.M) (code int, err error) {
	if os.Geteuid() != 0 {
		return 1, fmt.Errorf("the integration tests need root")
	}
	scratch, err = os.MkdirTemp("", "cloopfs-test-")
	if err != nil {
		return 1, err
	}
	mayRemove := true
	defer func() {
		if mayRemove {
			err = errors.Join(err, os.RemoveAll(scratch))
		}
	}()
	if err := os.Chmod(scratch, 0o755); err != nil { // for tests as another user
		return 1, err
	}
	cloopfs = filepath.Join(scratch, "cloopfs")
	// Without a cache unless a test asks for one, and never in that of this machine.
	variables := "-X github.com/cloopfs/cloopfs/internal/line.DefaultCacheSize=0 -X github.com/cloopfs/cloopfs/internal/line.RootCacheDir=" + filepath.Join(scratch, "cache")
	build := exec.Command("go", "build", "-ldflags", variables, "-o", cloopfs, "./cmd/cloopfs")
	build.Dir = ".."
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		return 1, fmt.Errorf("build: %w\n%s", err, out)
	}
	// The linker lets names pass that are no variable.
	help, err := exec.Command(cloopfs, "mount", "--help").Output()
	if err == nil && !bytes.Contains(help, []byte(scratch)) {
		err = errors.New("it would use this machine's cache")
	}
	if err != nil {
		return 1, fmt.Errorf("cloopfs mount --help: %w", err)
	}
	for name, value := range map[string]string{
		"TMPDIR": scratch, "GOTMPDIR": scratch, // where T.TempDir makes directories
		"LC_ALL": "C", // what tools say is compared
	} {
		if err := os.Setenv(name, value); err != nil {
			return 1, err
		}
	}
	// Tests that run side by side wait most of the time. -parallel still counts.
	if err := flag.Set("test.parallel", "16"); err != nil {
		return 1, err
	}
	code = m.Run()
	for _, what := range leftovers() {
		mayRemove = false // there may be a mount in scratch
		fmt.Fprintln(os.Stderr, "left behind:", what)
		code = 1
	}
	return code, nil
}

// leftovers describes the processes, mounts and loop devices of the tests that
// are still there.
func leftovers() []string {
	var left []string
	for _, pid := range processes("") {
		left = append(left, fmt.Sprintf("process %d: %q", pid, arguments(pid)))
	}
	for _, point := range mountpoints("fuse.cloopfs") {
		if within(point, scratch) {
			left = append(left, "mount "+point)
		}
	}
	attached.Range(func(device, file any) bool {
		if !detached(device.(string)) {
			left = append(left, fmt.Sprintf("%s on %s", device, file))
		}
		return true
	})
	return left
}
