//go:build integration

package fusefs

import (
	"context"
	"os/exec"
	"path/filepath"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A signal that a process has a handler for does not end its wait for the partition table;
// one that kills it does, also after another, and so does the connection's end, where the
// kernel can tell of that.
func TestKernelTableInterrupted(t *testing.T) {
	for name, script := range map[string]string{
		"lookup":  `trap : USR1; test -e "$1"/disk.img.p5 || exec sleep 1000`,
		"readdir": `trap : USR1; set -- "$1"/disk.img.p*; test $# = 2 || exec sleep 1000`,
	} {
		for _, end := range []string{"answered", "killed", "aborted", "unmounted"} {
			t.Run(name+", "+end, func(t *testing.T) {
				var asked, ended atomic.Int64
				release := make(chan struct{})
				table := func(ctx context.Context) ([]Partition, error) {
					asked.Add(1)
					select {
					case <-release:
						return twoParts, nil
					case <-ctx.Done():
						ended.Add(1)
						return nil, ctx.Err()
					}
				}
				file, _ := mountBy(t, func(dir string) (*Server, error) {
					return Mount(dir, numbered(), Options{Source: "test", Partitions: table})
				})
				dir := filepath.Dir(file)
				if end == "aborted" {
					must(t, `test -e "$1"`, file)
				}
				cmd := exec.Command("sh", "-c", script, "sh", dir)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = cmd.Process.Kill() })
				soon(t, "it waits", func() bool { return asked.Load() == 1 })
				for range 3 {
					if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil {
						t.Fatal(err)
					}
					time.Sleep(2 * killTime)
				}
				if asked.Load() != 1 || ended.Load() != 0 {
					t.Errorf("a signal has ended it: the table was asked for %d times", asked.Load())
				}
				switch end {
				case "answered":
					close(release)
					if err := cmd.Wait(); err != nil {
						t.Errorf("it has not found the partitions: %v", err)
					}
					return
				case "killed":
					if err := cmd.Process.Kill(); err != nil {
						t.Fatal(err)
					}
				default: // the process lives on
					if err := unix.Unmount(dir, unix.MNT_FORCE); err != unix.EBUSY {
						t.Fatalf("a forced unmount: %v, want that it is busy", err)
					}
				}
				if end == "unmounted" {
					soon(t, "it is not busy", func() bool { return unix.Unmount(dir, 0) == nil })
					if err := unix.Mount("none", dir, "tmpfs", 0, ""); err != nil { // to be unmounted again
						t.Fatal(err)
					}
				}
				soon(t, "it has ended", func() bool { return ended.Load() == 1 })
				_ = cmd.Process.Kill()
				_ = cmd.Wait()
			})
		}
	}
}
