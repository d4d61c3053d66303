//go:build integration

package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
)

// The tests with this tag mount disks in this process, and need root. Only other
// processes use those mounts: a page fault of our own would be served by nobody.

// limit is how long a command may take before it is given up as stuck. No command
// comes near it.
const limit = time.Minute

// mountDevice mounts dev until the test's end and returns the path of disk.img.
func mountDevice(t *testing.T, dev blockio.Device, opt Options) (file string, server *Server) {
	t.Helper()
	opt.Source = "test"
	return mountBy(t, func(dir string) (*Server, error) { return MountWritable(dir, dev, opt) })
}

func mountBy(t *testing.T, mount func(dir string) (*Server, error)) (file string, server *Server) {
	t.Helper()
	dir, err := os.MkdirTemp("", "fusefs-test-") // not t.TempDir, which could not be removed from below a mount
	if err != nil {
		t.Fatal(err)
	}
	server, err = mount(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		err := unix.Unmount(dir, 0)
		for deadline := time.Now().Add(5 * time.Second); errors.Is(err, unix.EBUSY) && time.Now().Before(deadline); {
			time.Sleep(10 * time.Millisecond)
			err = unix.Unmount(dir, 0)
		}
		if err != nil {
			t.Errorf("unmount %s: %v", dir, err)
			_ = unix.Unmount(dir, unix.MNT_DETACH)
			return
		}
		server.Wait()
		_ = os.Remove(dir)
	})
	return filepath.Join(dir, DiskName), server
}

// sh runs a script, in which $1 and so on are args, and returns what it printed and
// whether it succeeded.
func sh(t *testing.T, script string, args ...string) (out string, ok bool) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), limit) // also when the test cleans up
	defer cancel()
	cmd := exec.CommandContext(ctx, "sh", append([]string{"-c", script, "sh"}, args...)...)
	cmd.Env = append(os.Environ(), "LC_ALL=C")
	cmd.WaitDelay = 5 * time.Second
	var all bytes.Buffer
	cmd.Stdout, cmd.Stderr = &all, &all
	err := cmd.Run()
	var exit *exec.ExitError
	if err != nil && !errors.As(err, &exit) || ctx.Err() != nil {
		t.Fatalf("%s: %v\n%s", script, err, all.String())
	}
	return all.String(), err == nil
}

// must runs a script that has to succeed.
func must(t *testing.T, script string, args ...string) string {
	t.Helper()
	out, ok := sh(t, script, args...)
	if !ok {
		t.Fatalf("%s: %s", script, out)
	}
	return out
}

// refused runs a script that has to fail, and to say why.
func refused(t *testing.T, why, script string, args ...string) {
	t.Helper()
	if out, ok := sh(t, script, args...); ok || !strings.Contains(out, why) {
		t.Errorf("%s: succeeded %v: %q, want %q", script, ok, out, why)
	}
}

// checkHolds checks that the disk behind the mount, and whoever reads the file, sees want.
func checkHolds(t *testing.T, file string, dev interface{ Bytes() []byte }, want []byte) {
	t.Helper()
	if i := firstDifference(dev.Bytes(), want); i >= 0 {
		t.Errorf("the device has another byte at %d", i)
	}
	if i := firstDifference([]byte(must(t, `cat "$1"`, file)), want); i >= 0 {
		t.Errorf("the file has another byte at %d", i)
	}
}

// firstDifference is where a and b begin to differ; negative if they don't.
func firstDifference(a, b []byte) int {
	if bytes.Equal(a, b) {
		return -1
	}
	for i := range min(len(a), len(b)) {
		if a[i] != b[i] {
			return i
		}
	}
	return min(len(a), len(b))
}

// soon waits until cond holds.
func soon(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !cond(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

func TestMain(m *testing.M) {
	if os.Geteuid() != 0 {
		fmt.Fprintln(os.Stderr, "the integration tests need root")
		os.Exit(1)
	}
	os.Exit(m.Run())
}
