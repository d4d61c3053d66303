//go:build integration

package test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// Flags of a thread in /proc/PID/stat that PR_SET_IO_FLUSHER sets (include/linux/sched.h).
const ioFlusher = 0x00080000 | 0x00100000

// threadFlags are those of a process's first thread.
func threadFlags(t *testing.T, pid int) uint64 {
	t.Helper()
	text := string(readAll(t, fmt.Sprintf("/proc/%d/stat", pid)))
	fields := strings.Fields(text[strings.LastIndexByte(text, ')'):])
	flags, err := strconv.ParseUint(fields[7], 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return flags
}

// What --root-disk does to the process is done, or said not to be, each thing once.
func TestRootDisk(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
	_, url := serve(t, s.image)
	check := func(t *testing.T, dir, said string, asRoot bool) {
		pid := daemon(t, dir)
		if args := arguments(pid); args[0] != "@cloopfs" || args[1] != "mount" || args[len(args)-1] != dir {
			t.Errorf("arguments are %q, want those of @cloopfs mount", args)
		}
		locked := 0
		if _, err := fmt.Sscan(taskStatus(t, pid, "VmLck")[0], &locked); err != nil {
			t.Fatal(err)
		}
		for _, c := range []struct {
			what, undone string
			done         bool
		}{
			{"oom_score_adj", "the kernel may kill", strings.TrimSpace(string(readAll(t, fmt.Sprintf("/proc/%d/oom_score_adj", pid)))) == "-1000"},
			{"PR_SET_IO_FLUSHER", "may be waited for", threadFlags(t, pid)&ioFlusher == ioFlusher},
			{"memory", "may be paged out", locked > 8<<10},
		} {
			if n := strings.Count(said, "cloopfs: --root-disk: ") - strings.Count(said, "hint: --root-disk"); n > 3 {
				t.Errorf("said %q, want each thing once", said)
			}
			if c.done == strings.Contains(said, c.undone) {
				t.Errorf("%s: done %v, said %q", c.what, c.done, said)
			}
			if asRoot && c.what == "memory" && !c.done {
				t.Error("root's memory is not locked")
			}
		}
		if hint := strings.Contains(said, "cloopfs: hint: --root-disk is for root"); hint == asRoot {
			t.Errorf("said %q, hint %v", said, hint)
		}
	}
	t.Run("background", func(t *testing.T) {
		dir := makeDir(t)
		r := run(t, cloopfs, "mount", "--root-disk", url, dir)
		if r.code != 0 {
			t.Fatalf("mount: %v", r)
		}
		check(t, dir, r.stderr, true)
		checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
		statusOf(t, dir)
		umount(t, dir)
	})
	t.Run("foreground", func(t *testing.T) {
		dir := makeDir(t)
		p := start(t, cloopfs, "mount", "--foreground", "--quiet", "--root-disk", url, dir)
		waitFor(t, "the mount", func() bool { return mounted(dir) && run(t, cloopfs, "status", dir).code == 0 })
		pid := daemon(t, dir)
		if pid != p.pid() || arguments(pid)[0] != "@cloopfs" {
			t.Errorf("process %d has arguments %q, want @cloopfs of %d", pid, arguments(pid), p.pid())
		}
		umount(t, dir)
		if r := p.result(t); r.code != 0 {
			t.Errorf("mount: %v", r)
		}
	})
	t.Run("user", func(t *testing.T) {
		dir := userDir(t)
		r := asUser(t, cloopfs, "mount", "--root-disk", url, dir)
		if r.code != 0 {
			t.Fatalf("mount: %v", r)
		}
		check(t, dir, r.stderr, false)
		checkBytes(t, "disk", asUser(t, "cat", diskOf(dir)).stdout, s.disk)
		if r := asUser(t, cloopfs, "umount", dir); r.code != 0 {
			t.Errorf("umount: %v", r)
		}
	})
}

// jail is a root file system for a mount, of which all can be taken away from under it.
type jail struct {
	root    string
	inside  string // the mountpoint, in the root file system
	outside string // the same for everybody else
}

// originName is a name of this machine in a jail's /etc/hosts.
const originName = "origin.test"

// fillRoot puts into dir what a program finds in a root file system that it may need, and
// places for mounts.
func fillRoot(t *testing.T, dir string) {
	t.Helper()
	must(t, "sh", "-e", "-c", `cd "$1"
		mkdir bin etc etc/ssl etc/ssl/certs proc dev run mnt tmp
		cp "$2" bin/cloopfs
		cp -L /etc/hosts /etc/resolv.conf /etc/nsswitch.conf /etc/services /etc/protocols /etc/localtime etc/ 2>/dev/null || true
		echo "127.0.0.1 $3" >>etc/hosts
		cp -L /etc/ssl/certs/ca-certificates.crt etc/ssl/certs/ 2>/dev/null || true`, "sh", dir, cloopfs, originName)
}

// newJail makes root the root file system of mounts.
func newJail(t *testing.T, root string) *jail {
	t.Helper()
	shared := t.TempDir()
	j := &jail{root: root, inside: "/mnt/m", outside: filepath.Join(shared, "m")}
	bind := func(what, where string, flags ...string) {
		must(t, "mount", slices.Concat(flags, []string{what, where})...)
		t.Cleanup(func() {
			for mounted(where) && try("umount", "--lazy", where) {
			}
		})
	}
	bind(shared, shared, "--bind", "--make-shared")
	bind(shared, filepath.Join(root, "mnt"), "--bind")
	bind("/dev", filepath.Join(root, "dev"), "--bind")
	bind("/run", filepath.Join(root, "run"), "--bind")
	bind("/proc", filepath.Join(root, "proc"), "--bind")
	if err := os.Mkdir(j.outside, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if mounted(j.outside) {
			t.Errorf("cleaning up: %s is still mounted", j.outside)
			try(cloopfs, "umount", "--force", j.outside)
		}
	})
	return j
}

// mount mounts url with --root-disk, and returns the process that serves it.
func (j *jail) mount(t *testing.T, url string, flags ...string) (pid int) {
	t.Helper()
	args := slices.Concat([]string{j.root, "/bin/cloopfs", "mount", "--root-disk", "--timeout", "0", "--profile", "none", "--speculate", "off"}, flags, []string{url, j.inside})
	must(t, "chroot", args...)
	return statusOf(t, j.outside).PID
}

// pageOut has the kernel take from a process all pages of files that it can.
func pageOut(t *testing.T, pid int) {
	t.Helper()
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	n := 0
	for line := range strings.Lines(string(readAll(t, fmt.Sprintf("/proc/%d/maps", pid)))) {
		var start, end uintptr
		if _, err := fmt.Sscanf(line, "%x-%x ", &start, &end); err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(strings.TrimSpace(line), "/bin/cloopfs") {
			continue
		}
		n++
		iov := struct{ start, len uintptr }{start, end - start}
		_, _, e := unix.Syscall6(unix.SYS_PROCESS_MADVISE, uintptr(fd), uintptr(unsafe.Pointer(&iov)), 1, unix.MADV_PAGEOUT, 0, 0)
		if e != 0 && !errors.Is(e, unix.EINVAL) { // that is said of locked memory
			t.Fatalf("page out %x-%x: %v", start, end, e)
		}
	}
	if n == 0 {
		t.Fatal("the program is mapped nowhere")
	}
}

// goOn checks that a mount serves what it has not served before, through connections
// that it has to make anew; r is the only way to its server.
func goOn(t *testing.T, s *synthetic, dir string, r *relay, first int) {
	t.Helper()
	for n := first; n < first+3; n++ {
		r.cut()
		args := directRead(diskOf(dir), n*64*kib, pageSize)
		p := start(t, args[0], args[1:]...)
		if !p.endsWithin(10 * time.Second) {
			t.Fatalf("stuck: %s", p.name)
		}
		if res := p.result(t); res.code != 0 {
			t.Fatalf("%s: %v", p.name, res)
		}
		checkBytes(t, p.name, p.result(t).stdout, s.block(n)[:pageSize])
	}
	// An outage that is longer than the caches of names last.
	r.stop()
	args := bufferedRead(diskOf(dir), (first+4)*64*kib, pageSize)
	p := start(t, args[0], args[1:]...)
	time.Sleep(6 * time.Second)
	if !p.running() {
		t.Fatalf("has ended: %v", p.result(t))
	}
	r.resume(t)
	if !p.endsWithin(10 * time.Second) {
		t.Fatalf("stuck: %s", p.name)
	}
	checkBytes(t, p.name, p.result(t).stdout, s.block(first + 4)[:pageSize])
}

// A mount whose own root file system hangs, its own program's pages included, serves on.
// A name of its server's, which is looked up in a file there, holds up its end alone.
func TestRootDiskHangs(t *testing.T) {
	for _, host := range []string{"127.0.0.1", originName} {
		t.Run(host, func(t *testing.T) {
			t.Parallel()
			testRootDiskHangs(t, host)
		})
	}
}

func testRootDiskHangs(t *testing.T, host string) {
	tree := t.TempDir()
	fillRoot(t, tree)
	image := filepath.Join(t.TempDir(), "root.ext4")
	must(t, "mke2fs", "-q", "-t", "ext4", "-d", tree, image, "64M")
	below := mount(t, image)
	root := mountLoop(t, diskOf(below))
	j := newJail(t, root)

	s := makeImage(t, 64*kib, blocks(64, 4*kib)...)
	_, url := serve(t, s.image)
	r := newRelay(t, url)
	pid := j.mount(t, strings.Replace(r.url, "127.0.0.1", host, 1), "--cache-dir", "/mnt/cache", "--cache-size", "1GiB")
	args := directRead(diskOf(j.outside), 0, pageSize)
	checkBytes(t, "before", must(t, args[0], args[1:]...), s.disk[:pageSize])

	pageOut(t, pid)
	belowPID := daemon(t, below)
	signal := func(sig syscall.Signal) {
		if err := syscall.Kill(belowPID, sig); err != nil {
			t.Error(err)
		}
	}
	signal(syscall.SIGSTOP)
	defer func() { _ = syscall.Kill(belowPID, syscall.SIGCONT) }() // before anything that may wait for it
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		t.Fatal(err)
	}
	// Nothing of it can be read any more.
	var probes []*process
	for _, name := range []string{"etc/hosts", "bin/cloopfs"} {
		p := start(t, "cat", filepath.Join(root, name))
		probes = append(probes, p)
	}
	time.Sleep(soon)
	for _, p := range probes {
		if !p.running() {
			t.Fatalf("the root file system does not hang: %s: %v", p.name, p.result(t))
		}
	}
	goOn(t, s, j.outside, r, 4)
	statusOf(t, j.outside)
	checkBytes(t, "all of the disk", must(t, "cat", diskOf(j.outside)), s.disk)
	if host == originName {
		signal(syscall.SIGCONT)
	}
	quick(t, cloopfs, "umount", j.outside)
	waitFor(t, "its end", func() bool { return unix.Kill(pid, 0) != nil })
	signal(syscall.SIGCONT)
	for _, p := range probes {
		p.result(t)
	}
}

// A mount whose root file system has been emptied, as that of a machine's start is, serves
// on.
func TestRootDiskEmptied(t *testing.T) {
	root := t.TempDir()
	fillRoot(t, root)
	j := newJail(t, root)
	s := makeImage(t, 64*kib, blocks(64, 4*kib)...)
	_, url := serve(t, s.image)
	r := newRelay(t, url)
	pid := j.mount(t, strings.Replace(r.url, "127.0.0.1", originName, 1), "--cache-dir", "/mnt/cache", "--cache-size", "1GiB")
	for _, dir := range []string{"dev", "proc", "run", "mnt"} {
		must(t, "mount", "--make-rprivate", filepath.Join(root, dir)) // it stays elsewhere
		must(t, "umount", "--lazy", filepath.Join(root, dir))
	}
	must(t, "sh", "-c", `rm -rf "$1"/*`, "sh", root)
	goOn(t, s, j.outside, r, 4)
	checkBytes(t, "all of the disk", must(t, "cat", diskOf(j.outside)), s.disk)
	quick(t, cloopfs, "umount", j.outside)
	waitFor(t, "its end", func() bool { return unix.Kill(pid, 0) != nil })
}

// switchScript does in the mount namespace that it runs in what an initial file system does:
// it mounts the image $3 by the program $2 with --root-disk, in a file system that moves with
// /proc into a new root in the directory $1; that becomes the root when there is a file "switch".
// The shell and the mount's process stay in the old one.
const switchScript = `
	cd "$1"
	mkdir run new
	mount -t tmpfs run run
	mount -t tmpfs new new
	mkdir run/image new/proc new/run
	"$2" mount --root-disk --timeout 0 --log-file "$1/log" "$3" "$1/run/image"
	: >mounted
	until [ -e switch ]; do busybox sleep 0.01; done
	busybox mount --move /proc new/proc
	busybox mount --move run new/run
	cd new
	busybox mount --move . /
	: >"$1/switched"
	exec sleep infinity`

// A mount whose machine has got another root file system since, with its mountpoint, finds itself: a
// signal that a reader handles ends no read, and SIGTERM unmounts.
func TestRootDiskSwitched(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(64, 4*kib)...)
	srv, url := serve(t, s.image)
	tmp := t.TempDir()
	machine := start(t, "unshare", "--mount", "--propagation", "private", "sh", "-e", "-c", switchScript, "sh", tmp, cloopfs, url)
	dir := filepath.Join(tmp, "run/image")
	done := func(step string) {
		waitFor(t, step, func() bool {
			if !machine.running() {
				t.Fatalf("not %s: %v", step, machine.result(t))
			}
			_, err := os.Stat(filepath.Join(tmp, step))
			return err == nil
		})
	}
	done("mounted")
	pid := daemon(t, dir)
	t.Cleanup(func() { _ = unix.Kill(pid, unix.SIGKILL) })
	hang(t, srv, testserver.HangBeforeHeaders)
	reader := startInterrupted(t, machine.pid(), dir)
	if err := os.WriteFile(filepath.Join(tmp, "switch"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	done("switched")
	if point := mountpointOf(t, pid); point != "/run/image" {
		t.Fatalf("it is mounted at %q, as its process has it, want /run/image", point)
	}
	reader.check(t, srv, s)

	if err := unix.Kill(pid, unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	waitFor(t, "its end", func() bool { return unix.Kill(pid, 0) != nil })
	if log := readAll(t, filepath.Join(tmp, "log")); strings.Contains(string(log), "unmount failed") {
		t.Errorf("the log: %s", log)
	}
}

// mountpointOf is where a process sees a cloopfs mounted, empty: nowhere.
func mountpointOf(t *testing.T, pid int) string {
	t.Helper()
	for line := range strings.Lines(string(readAll(t, fmt.Sprintf("/proc/%d/mountinfo", pid)))) {
		if strings.Contains(line, " - fuse.cloopfs ") {
			return strings.Fields(line)[4]
		}
	}
	return ""
}

// What lies below the mountpoint is refused, though it is named through a bind mount.
func TestBelowMountpointBound(t *testing.T) {
	_, url := serve(t, makeImage(t, 64*kib, blocks(4, 4*kib)...).image)
	tree, bound := t.TempDir(), t.TempDir()
	point := filepath.Join(tree, "mnt")
	must(t, "mkdir", "-p", filepath.Join(point, "deep"))
	must(t, "mount", "--bind", tree, bound)
	t.Cleanup(func() { try("umount", bound) })
	for _, c := range []struct{ at, below string }{
		{point, filepath.Join(bound, "mnt", "deep")},
		{filepath.Join(bound, "mnt"), filepath.Join(point, "deep", "new")},
		{point, filepath.Join(bound, "mnt")},
	} {
		checkFailure(t, run(t, cloopfs, "mount", "--overlay", c.below, url, c.at), 5, "the overlay lies below it")
		checkFailure(t, run(t, cloopfs, "mount", "--cache-size", "1GiB", "--cache-dir", c.below, url, c.at), 5, "the cache directory lies below it")
	}
	beside := filepath.Join(bound, "overlay")
	mountAt(t, url, point, "--overlay", beside)
	umount(t, point)
}

// openable is what a mount may open once it is ready: files of the directories that it has
// open (cache, overlay, /proc).
var openable = regexp.MustCompile(`^\d+ +(openat|newfstatat|faccessat2?|unlinkat|mkdirat|renameat2?|utimensat|statx)\(\d+, "[^/"]*"`)

// With all that it does a mount opens no file by a path that could lie on the disk that it serves,
// and does not look at its mountpoint.
func TestRootDiskOpensNothing(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(512, 40*kib)...)
	_, url := serve(t, s.image)
	r := newRelay(t, url)
	tmp := t.TempDir()
	// Quiet, so that the first line of the log is that of a read that failed.
	dir := mount(t, r.url, "--root-disk", "--timeout", "2s", "--memory", "1M", "--quiet", "--log-file", filepath.Join(tmp, "log"),
		"--cache-dir", filepath.Join(tmp, "cache"), "--cache-size", "8MiB", "--overlay", filepath.Join(tmp, "overlay"))
	trace := filepath.Join(tmp, "trace")
	p := start(t, "strace", "-f", "-q", "-e", "trace=%file", "-e", "signal=none", "-o", trace, "-p", strconv.Itoa(daemon(t, dir)))
	waitFor(t, "strace", func() bool {
		return slices.ContainsFunc(taskStatus(t, daemon(t, dir), "TracerPid"), func(s string) bool { return s != "0" })
	})

	disk := diskOf(dir)
	must(t, "dd", "if="+disk, "of="+os.DevNull, "bs=64K", "count=256", "status=none") // more than the cache may hold
	must(t, "dd", "if="+disk, "of="+disk, "bs=64K", "count=16", "conv=notrunc,fsync", "status=none")
	r.cut()
	must(t, "dd", "if="+disk, "of="+os.DevNull, "iflag=direct", "bs=64K", "skip=300", "count=32", "status=none")
	r.stop()
	for n := 400; n < 404; n++ {
		args := directRead(disk, n*64*kib, pageSize)
		q := start(t, args[0], args[1:]...)
		if n%2 == 0 {
			stuck(t, q, disk)
			q.kill()
		}
		q.result(t)
	}
	statusOf(t, dir)
	r.resume(t)
	args := directRead(disk, 450*64*kib, pageSize)
	waitFor(t, "a read after the outage", func() bool { return run(t, args[0], args[1:]...).code == 0 })
	time.Sleep(6 * time.Second) // the overlay is flushed now and then; caches of names grow old
	must(t, args[0], directRead(disk, 460*64*kib, pageSize)[1:]...)

	if err := p.cmd.Process.Signal(syscall.SIGINT); err != nil {
		t.Fatal(err)
	}
	p.endsWithin(limit)
	umount(t, dir)
	lines := 0
	for line := range strings.Lines(string(readAll(t, trace))) {
		lines++
		if !openable.MatchString(line) && !strings.Contains(line, "resumed>") {
			t.Errorf("%s", line)
		}
	}
	if lines == 0 {
		t.Error("strace has seen nothing")
	}
	t.Logf("%d lines", lines)
}
