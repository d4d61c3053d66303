//go:build integration

package test

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

// makeDir makes a directory for a mount. Whatever is mounted there is gone after
// the test.
func makeDir(t testing.TB) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "mnt")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clearDir(t, dir) })
	return dir
}

// openDir is makeDir, but every user can get there.
func openDir(t testing.TB) string {
	t.Helper()
	parent, err := os.MkdirTemp(scratch, "open-")
	if err != nil {
		t.Fatal(err)
	}
	dir := filepath.Join(parent, "mnt")
	t.Cleanup(func() {
		_ = os.Remove(dir) // fails if it is still mounted
		_ = os.Remove(parent)
	})
	if err := os.Chmod(parent, 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { clearDir(t, dir) })
	return dir
}

// clearDir unmounts what is mounted at dir and ends its process, gently if that
// works. It never waits for long.
func clearDir(t testing.TB, dir string) {
	if len(daemons(dir)) == 0 && !mounted(dir) {
		return
	}
	if try(cloopfs, "umount", dir) && len(daemons(dir)) == 0 {
		return
	}
	t.Errorf("cleaning up: %s is still mounted or served", dir)
	try(cloopfs, "umount", "--force", dir)
	for mounted(dir) && try("umount", "--lazy", dir) {
	}
	for _, pid := range daemons(dir) {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	for deadline := time.Now().Add(5 * time.Second); len(daemons(dir)) > 0 && time.Now().Before(deadline); {
		time.Sleep(10 * time.Millisecond)
	}
}

// mount mounts the image at url in the background and returns the mountpoint.
func mount(t testing.TB, url string, flags ...string) string {
	t.Helper()
	dir := makeDir(t)
	mountAt(t, url, dir, flags...)
	return dir
}

// mountAt mounts with flags. Without others nothing is fetched before it is asked for:
// many tests count requests.
func mountAt(t testing.TB, url, dir string, flags ...string) {
	t.Helper()
	must(t, cloopfs, slices.Concat([]string{"mount", "--profile", "none", "--speculate", "off"}, flags, []string{url, dir})...)
}

// diskOf is the disk's file in a mount.
func diskOf(dir string) string { return filepath.Join(dir, "disk.img") }

// umount unmounts dir with the program under test.
func umount(t testing.TB, dir string) {
	t.Helper()
	must(t, cloopfs, "umount", dir)
	if mounted(dir) {
		t.Fatalf("%s is still mounted", dir)
	}
	if pids := daemons(dir); len(pids) > 0 {
		t.Fatalf("umount has returned, and process %d lives on", pids)
	}
}

// attached maps the loop devices that the tests have made to their files.
var attached sync.Map

// attach makes a read-only loop device of file.
func attach(t *testing.T, file string) string {
	t.Helper()
	return attachWith(t, file, "--read-only")
}

// attachWith makes a loop device of file, as flags of losetup(8) say.
func attachWith(t *testing.T, file string, flags ...string) string {
	t.Helper()
	device := strings.TrimSpace(must(t, "losetup", append(flags, "--find", "--show", file)...))
	attached.Store(device, file)
	t.Cleanup(func() {
		if detached(device) {
			return
		}
		if !try("losetup", "--detach", device) || !detachedSoon(device) {
			t.Errorf("cleaning up: %s can't be detached", device)
		}
	})
	return device
}

// detached says whether a loop device of the tests is no longer one.
func detached(device string) bool {
	v, _ := attached.Load(device)
	file := v.(string)
	backing := loopDevices()[device]
	// After its mount is detached the file is shown without the mountpoint.
	return backing != file && backing != "/"+filepath.Base(file)
}

// detachedSoon waits until device is detached.
func detachedSoon(device string) bool {
	for deadline := time.Now().Add(5 * time.Second); !detached(device); time.Sleep(5 * time.Millisecond) {
		if time.Now().After(deadline) {
			return false
		}
	}
	return true
}

// mountLoop mounts the file system in file and returns where.
func mountLoop(t *testing.T, file string) string {
	t.Helper()
	var device string
	t.Cleanup(func() {
		if device != "" && !detachedSoon(device) {
			t.Errorf("cleaning up: %s is still attached", device)
		}
	})
	dir := mountDevice(t, file, "-o", "loop,ro")
	device = sourceOf(dir)
	attached.Store(device, file) // until it is unmounted
	return dir
}

// mountDevice mounts the file system on a device, until the test's end,
// and returns where.
func mountDevice(t *testing.T, device string, flags ...string) string {
	t.Helper()
	dir := filepath.Join(t.TempDir(), "fs")
	if err := os.Mkdir(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	must(t, "mount", append(flags, device, dir)...)
	t.Cleanup(func() {
		if mounted(dir) && !try("umount", dir) {
			t.Errorf("cleaning up: %s can't be unmounted", dir)
			try("umount", "--lazy", dir)
		}
	})
	return dir
}

// mountpoints lists where file systems of a type are mounted; "" means any type.
// It does not touch them.
func mountpoints(fsType string) []string {
	var points []string
	for _, fields := range mountinfo() {
		if sep := slices.Index(fields, "-"); fsType == "" || fields[sep+1] == fsType {
			points = append(points, fields[4])
		}
	}
	return points
}

// mountinfo is /proc/self/mountinfo, line by line.
func mountinfo() [][]string {
	raw, err := os.ReadFile("/proc/self/mountinfo")
	if err != nil {
		panic(err) // no test can do without
	}
	var lines [][]string
	for line := range strings.Lines(string(raw)) {
		lines = append(lines, strings.Fields(line))
	}
	return lines
}

// sourceOf is the source of what is mounted at dir.
func sourceOf(dir string) string {
	for _, fields := range mountinfo() {
		if fields[4] == dir {
			return strings.ReplaceAll(fields[slices.Index(fields, "-")+2], `\043`, "#")
		}
	}
	return ""
}

func mounted(dir string) bool { return slices.Contains(mountpoints(""), dir) }

// within says whether path is dir or lies in it.
func within(path, dir string) bool { return path == dir || strings.HasPrefix(path, dir+"/") }

// crashLogName is how the processes call themselves that log the crashes of others.
var crashLogName = regexp.MustCompile(`^@?cloopfs-crashlog$`)

// daemons lists the processes of the program under test that have dir among
// their arguments, or all of them if dir is empty; without those that log crashes.
func daemons(dir string) []int {
	return slices.DeleteFunc(processes(dir), func(pid int) bool {
		return len(arguments(pid)) == 0 || isCrashLog(pid) // the former have just ended
	})
}

func isCrashLog(pid int) bool {
	args := arguments(pid)
	return len(args) > 0 && crashLogName.MatchString(args[0])
}

// processes is daemons with those that log crashes.
func processes(dir string) []int {
	procs, _ := filepath.Glob("/proc/[0-9]*")
	var pids []int
	for _, proc := range procs {
		exe, err := os.Readlink(proc + "/exe")
		if err != nil || exe != cloopfs {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(proc))
		if dir == "" || slices.Contains(arguments(pid), dir) {
			pids = append(pids, pid)
		}
	}
	return pids
}

// daemon is the process that serves dir.
func daemon(t *testing.T, dir string) int {
	t.Helper()
	pids := daemons(dir)
	if len(pids) != 1 {
		t.Fatalf("got processes %d for %s, want one", pids, dir)
	}
	return pids[0]
}

// arguments are those of a process, nil if there is none.
func arguments(pid int) []string {
	raw, _ := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	if len(raw) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(raw), "\x00"), "\x00")
}

// loopDevices maps each loop device in use to its file.
func loopDevices() map[string]string {
	files, _ := filepath.Glob("/sys/block/loop*/loop/backing_file")
	devices := make(map[string]string)
	for _, file := range files {
		backing, err := os.ReadFile(file)
		if err == nil {
			device := "/dev/" + filepath.Base(filepath.Dir(filepath.Dir(file)))
			devices[device] = strings.TrimSuffix(string(bytes.TrimSpace(backing)), " (deleted)")
		}
	}
	return devices
}

// asNobody is a command to be run by a user without rights.
func asNobody(name string, args ...string) *exec.Cmd {
	cmd := exec.Command("setpriv", slices.Concat(
		[]string{"--reuid=nobody", "--regid=nogroup", "--clear-groups", "--", name}, args)...)
	cmd.Env = []string{"PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"}
	cmd.Dir = "/"
	return cmd
}
