//go:build integration

package test

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// What create makes, the format's own tool and QEMU read, byte for byte.
func TestCreateForOthers(t *testing.T) {
	f := need(t, small)
	dir := t.TempDir()
	for name, flags := range map[string][]string{
		"default": nil, "level 0": {"--level", "0"}, "level 1": {"--level", "1"}, "level 6": {"--level", "6"},
		"blocks of 512": {"--block-size", "512"}, "blocks of 512K": {"--block-size", "512K"},
	} {
		t.Run(name, func(t *testing.T) {
			image := filepath.Join(dir, "image")
			must(t, cloopfs, append(append([]string{"create", "--force"}, flags...), f.raw, image)...)
			checkOthers(t, image, f.raw)
		})
	}
	// Debian's tool divides by zero for a disk of less than twelve blocks, also one of its own make.
	for _, size := range []string{"1M", "8M"} {
		image := filepath.Join(dir, "few blocks")
		must(t, cloopfs, "create", "--force", "--block-size", size, f.raw, image)
		checkQEMU(t, image, f.raw)
	}
	image := filepath.Join(dir, "streamed")
	must(t, "sh", "-c", `cat "$1" | "$2" create - "$3"`, "sh", f.raw, cloopfs, image)
	checkOthers(t, image, f.raw)
}

// checkOthers decodes an image by other programs.
func checkOthers(t *testing.T, image, disk string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	must(t, "extract_compressed_fs", image, out)
	must(t, "cmp", disk, out)
	checkQEMU(t, image, disk)
}

func checkQEMU(t *testing.T, image, disk string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	must(t, "qemu-img", "convert", "-f", "cloop", "-O", "raw", image, out)
	must(t, "cmp", disk, out)
	if info := must(t, "qemu-img", "info", image); !strings.Contains(info, "file format: cloop") {
		t.Errorf("QEMU takes it for something else: %s", info)
	}
}

// xz(1) reads blocks that are stored in xz.
func TestCreateXZ(t *testing.T) {
	disk, image, out := filepath.Join(t.TempDir(), "disk"), filepath.Join(t.TempDir(), "image"), filepath.Join(t.TempDir(), "out")
	must(t, "sh", "-c", `head -c 65536 "$1" >"$2"`, "sh", need(t, small).raw, disk)
	must(t, cloopfs, "create", "--codec", "xz", disk, image)
	must(t, "sh", "-c", `tail -c +153 "$1" | xz -dc >"$2"`, "sh", image, out) // behind the header and two entries
	must(t, "cmp", disk, out)
	if list := must(t, "sh", "-c", `tail -c +153 "$1" | xz -dc --verbose 2>&1 >/dev/null; tail -c +153 "$1" >"$2"; xz --list --verbose "$2" 2>&1 || true`, "sh", image, out+".xz"); !strings.Contains(list, "CRC32") {
		t.Errorf("xz says %s", list)
	}
}

// A Debian root file system is the same on any number of cores, and comes out again.
func TestCreateDebian(t *testing.T) {
	f := need(t, debian64K)
	one, all := filepath.Join(t.TempDir(), "one"), filepath.Join(t.TempDir(), "all")
	must(t, "env", "GOMAXPROCS=1", cloopfs, "create", "--level", "6", f.raw, one)
	must(t, cloopfs, "create", "--level", "6", f.raw, all)
	must(t, "cmp", one, all)
	if got, most := sizeOf(t, all), sizeOf(t, f.image); got > most {
		t.Errorf("%d bytes; Debian's tool makes %d at this level", got, most)
	}
	must(t, "sh", "-c", `"$1" extract "$2" - | cmp - "$3"`, "sh", cloopfs, all, f.raw)
}

// Whenever it is told to end or killed, there is no OUTPUT that is not complete.
func TestCreateEnded(t *testing.T) {
	f := need(t, debian64K)
	for _, signal := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGKILL} {
		for _, args := range [][]string{{f.raw}, {"-"}, {"--force", f.raw}} {
			t.Run(signal.String()+" "+filepath.Base(strings.Join(args, " ")), func(t *testing.T) {
				dir := t.TempDir()
				image := filepath.Join(dir, "image")
				want := ""
				if args[0] == "--force" {
					want = "what was here before"
					if err := os.WriteFile(image, []byte(want), 0o600); err != nil {
						t.Fatal(err)
					}
				}
				cmd := exec.Command(cloopfs, append(append([]string{"create"}, args...), image)...)
				in, err := os.Open(f.raw)
				if err != nil {
					t.Fatal(err)
				}
				defer in.Close()
				cmd.Stdin = in
				p := startCmd(t, cmd)
				waitUntil(t, func() bool { return p.hasOpen(t, dir, 1<<20) })
				if err := cmd.Process.Signal(signal); err != nil {
					t.Fatal(err)
				}
				r := p.result(t)
				if signal != syscall.SIGKILL && (r.code != 130 || r.stderr != "") {
					t.Errorf("got %v", r)
				}
				if got, _ := os.ReadFile(image); string(got) != want {
					t.Error("there is an image")
				}
				os.Remove(image)
				if left, err := os.ReadDir(dir); err != nil || len(left) > 0 {
					t.Errorf("left %v, %v", left, err)
				}
			})
		}
	}
}

// hasOpen says whether the process has a file in dir open that has more than so many
// bytes, be it one without a name.
func (p *process) hasOpen(t *testing.T, dir string, bytes int64) bool {
	t.Helper()
	if !p.running() {
		t.Fatalf("it has ended: %v", p.result(t))
	}
	fds, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", p.pid()))
	if err != nil {
		t.Fatal(err)
	}
	for _, fd := range fds {
		path, err := os.Readlink(fd)
		if info, statErr := os.Stat(fd); err == nil && statErr == nil && filepath.Dir(path) == dir && info.Size() > bytes {
			return true
		}
	}
	return false
}

// waitUntil waits for what soon happens.
func waitUntil(t *testing.T, happened func() bool) {
	t.Helper()
	for begin := time.Now(); !happened(); time.Sleep(5 * time.Millisecond) {
		if time.Since(begin) > limit {
			t.Fatal("gave up waiting")
		}
	}
}

// A disk that changes while it is read makes no image.
func TestCreateOfChangingDisk(t *testing.T) {
	dir := t.TempDir()
	disk, image := filepath.Join(dir, "disk"), filepath.Join(dir, "out", "image")
	if err := os.Mkdir(filepath.Dir(image), 0o700); err != nil {
		t.Fatal(err)
	}
	must(t, "sh", "-c", `head -c 200000000 /dev/urandom >"$1"`, "sh", disk)
	for change, script := range map[string]string{"grows": `echo >>"$1"`, "shrinks": `truncate -s 100000000 "$1"`} {
		p := start(t, cloopfs, "create", disk, image)
		waitUntil(t, func() bool { return p.hasOpen(t, filepath.Dir(image), 1<<20) })
		must(t, "sh", "-c", script, "sh", disk)
		if r := p.result(t); r.code != 1 || !strings.Contains(r.stderr, "cloopfs: read "+disk+": image changed: the file was written to") {
			t.Errorf("a disk that %s: %v", change, r)
		}
		if left, err := os.ReadDir(filepath.Dir(image)); err != nil || len(left) > 0 {
			t.Errorf("a disk that %s: left %v, %v", change, left, err)
		}
	}
}

// Nobody wants an image on his terminal.
func TestCreateToTerminal(t *testing.T) {
	r := startCmd(t, onTerminal(exec.Command(cloopfs, "create", need(t, small).raw, "-"))).result(t)
	if r.code != 2 || !strings.Contains(r.stdout, "cloopfs: create: not writing an image to a terminal") {
		t.Errorf("got %v", r)
	}
	r = startCmd(t, onTerminal(exec.Command(cloopfs, "create", need(t, small).raw, filepath.Join(t.TempDir(), "image")))).result(t)
	if r.code != 0 || !strings.Contains(r.stdout, "cloopfs: 8 MiB in ") {
		t.Errorf("got %v", r)
	}
}

// A block device is a disk, too.
func TestCreateOfDevice(t *testing.T) {
	f := need(t, small)
	device := strings.TrimSpace(must(t, "losetup", "--find", "--show", "--read-only", f.raw))
	defer must(t, "losetup", "--detach", device)
	image := filepath.Join(t.TempDir(), "image")
	must(t, cloopfs, "create", device, image)
	checkOthers(t, image, f.raw)
}
