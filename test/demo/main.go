// Command demo shows the main job on real input: it makes a cloop image of a
// part of the Go source tree with Debian's tool, serves it over HTTP from this
// process, mounts it with bin/cloopfs, mounts the file system in it, compares
// every file with its original, and cleans up. It needs root.
package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// parts are the directories of the Go source tree that the demo packs: about
// 5,000 files.
var parts = []string{"archive", "compress", "crypto", "encoding", "go", "internal", "net", "os", "runtime"}

// roundTrip is the delay of the embedded server.
const roundTrip = 20 * time.Millisecond

func main() {
	if err := demonstrate(); err != nil {
		fmt.Fprintln(os.Stderr, "demo:", err)
		os.Exit(1)
	}
	fmt.Println("demo: done, everything is cleaned up")
}

func demonstrate() error {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	dir, err := os.MkdirTemp("", "cloopfs-demo")
	if err != nil {
		return err
	}
	d := demo{ctx: ctx, dir: dir}
	return errors.Join(d.run(), d.cleanup(), os.RemoveAll(dir))
}

// demo is one run. What it has started is undone by cleanup, last first.
type demo struct {
	ctx  context.Context // of the run; commands end with it
	dir  string
	undo []func() error
}

func (d *demo) path(name string) string { return filepath.Join(d.dir, name) }

func (d *demo) cleanup() error {
	var errs []error
	for i := range d.undo {
		errs = append(errs, d.undo[len(d.undo)-1-i]())
	}
	return errors.Join(errs...)
}

// command runs a program and shows it.
func (d *demo) command(name string, args ...string) error {
	fmt.Println("$", filepath.Base(name), strings.Join(args, " "))
	return run(exec.CommandContext(d.ctx, name, args...))
}

// run runs cmd; its output is part of the error if it fails.
func run(cmd *exec.Cmd) error {
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%s: %w: %s", filepath.Base(cmd.Path), err, bytes.TrimSpace(out))
	}
	return nil
}

// later runs a program in cleanup, also after the run was interrupted.
func (d *demo) later(name string, args ...string) {
	d.undo = append(d.undo, func() error {
		fmt.Println("$", filepath.Base(name), strings.Join(args, " "))
		return run(exec.Command(name, args...))
	})
}

func (d *demo) run() error {
	cloopfs, err := filepath.Abs("bin/cloopfs")
	if err != nil {
		return err
	}
	tree, disk, image := d.path("tree"), d.path("disk.ext4"), d.path("image.cloop")
	fmt.Println("demo: 1. a real file system, packed by Debian's create_compressed_fs")
	goroot, err := exec.CommandContext(d.ctx, "go", "env", "GOROOT").Output()
	if err != nil {
		return fmt.Errorf("go env GOROOT: %w", err)
	}
	for _, part := range parts {
		src := filepath.Join(strings.TrimSpace(string(goroot)), "src", part)
		if err := os.CopyFS(filepath.Join(tree, part), os.DirFS(src)); err != nil {
			return err
		}
	}
	if err := d.command("mke2fs", "-q", "-t", "ext4", "-d", tree, "-L", "demo", disk, "160M"); err != nil {
		return err
	}
	if err := d.command("create_compressed_fs", "-q", "-B", "64K", "-L", "6", disk, image); err != nil {
		return err
	}

	fmt.Printf("demo: 2. served over HTTP, %v away\n", roundTrip)
	server, err := testserver.New()
	if err != nil {
		return err
	}
	d.undo = append(d.undo, func() error { server.Close(); return nil })
	if err := server.AddFile("image.cloop", image); err != nil {
		return err
	}
	server.Set(func(c *testserver.Config) { c.RTT = roundTrip })

	fmt.Println("demo: 3. mounted, without a download")
	mnt, root := d.path("image"), d.path("root")
	if err := errors.Join(os.Mkdir(mnt, 0o755), os.Mkdir(root, 0o755)); err != nil {
		return err
	}
	if err := d.command(cloopfs, "mount", "--cache-dir", d.path("cache"), server.URL("image.cloop"), mnt); err != nil {
		return err
	}
	d.later(cloopfs, "umount", mnt)
	if err := d.command("mount", "-o", "loop,ro", filepath.Join(mnt, "disk.img"), root); err != nil {
		return err
	}
	d.later("umount", root)
	d.report(server, image, "to mount both")

	fmt.Println("demo: 4. a look inside")
	if err := list(root); err != nil {
		return err
	}
	d.report(server, image, "until the listing")

	fmt.Println("demo: 5. every file compared with its original")
	start := time.Now()
	files, size, err := d.compare(tree, root)
	if err != nil {
		return err
	}
	fmt.Printf("      %d files, %.1f MiB, all equal, in %.1f s\n", files, float64(size)/(1<<20), time.Since(start).Seconds())
	d.report(server, image, "in all")
	return nil
}

// report says what the server has been asked for so far.
func (d *demo) report(server *testserver.Server, image, when string) {
	stats := server.Stats()
	size := int64(0)
	if info, err := os.Stat(image); err == nil {
		size = info.Size()
	}
	fmt.Printf("      %s: %d requests, %.1f MiB of the image's %.1f\n",
		when, stats.Requests, float64(stats.Bytes)/(1<<20), float64(size)/(1<<20))
}

func list(root string) error {
	entries, err := os.ReadDir(root)
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			fmt.Printf("      %v  %s\n", info.Mode(), e.Name())
		}
	}
	return err
}

// compare reads every regular file below tree, and the file of the same name
// below root.
func (d *demo) compare(tree, root string) (files int, size int64, err error) {
	err = filepath.WalkDir(tree, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || d.ctx.Err() != nil {
			return errors.Join(err, d.ctx.Err())
		}
		want, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		got, err := os.ReadFile(filepath.Join(root, strings.TrimPrefix(path, tree)))
		if err != nil {
			return err
		}
		if !bytes.Equal(got, want) {
			return fmt.Errorf("%s is not as it was packed", path)
		}
		files++
		size += int64(len(got))
		return nil
	})
	return files, size, err
}
