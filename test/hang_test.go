//go:build integration

package test

import (
	"fmt"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// soon is what "within a second" is.
const soon = time.Second

// hangs are the places where a server can get stuck.
var hangs = []struct {
	name string
	kind testserver.Hang
}{
	{"before the headers", testserver.HangBeforeHeaders},
	{"in the body", testserver.HangMidBody},
}

// hang makes the server hang until the test's end.
func hang(t *testing.T, srv *testserver.Server, kind testserver.Hang) {
	t.Helper()
	srv.Set(func(c *testserver.Config) { c.Hang = kind })
	t.Cleanup(func() { unhang(srv) }) // before anything that may wait for a reader
}

func unhang(srv *testserver.Server) {
	srv.Set(func(c *testserver.Config) { c.Hang = testserver.HangNone })
}

// stuck waits until a process is stuck in a read of what its standard input is.
func stuck(t *testing.T, p *process, file string) {
	t.Helper()
	proc := "/proc/" + strconv.Itoa(p.pid())
	waitFor(t, "stuck in a read: "+p.name, func() bool {
		if !p.running() {
			t.Fatalf("has ended: %s: %v", p.name, p.result(t))
		}
		input, _ := os.Readlink(proc + "/fd/0")
		call, _ := os.ReadFile(proc + "/syscall")
		return input == file && strings.HasPrefix(string(call), fmt.Sprintf("%d 0x0 ", unix.SYS_READ))
	})
}

// killed kills a process, which has to be gone within a second.
func killed(t *testing.T, p *process) {
	t.Helper()
	if !p.running() {
		t.Fatalf("has ended: %s: %v", p.name, p.result(t))
	}
	p.kill()
	if !p.endsWithin(soon) {
		t.Errorf("killed, and still there after %v: %s", soon, p.name)
	}
}

// quick runs a command that has to succeed within a second.
func quick(t *testing.T, name string, args ...string) string {
	t.Helper()
	var out string
	if d := elapsed(func() { out = must(t, name, args...) }); d > soon {
		t.Errorf("%s %s took %v, want at most %v", name, strings.Join(args, " "), d, soon)
	}
	return out
}

// readers are the ways to read size bytes of a file at an offset.
var readers = []struct {
	name string
	args func(file string, off, size int) []string
}{
	{"buffered", bufferedRead},
	{"direct", directRead},
	{"mmap", func(file string, off, _ int) []string {
		return []string{"/proc/self/exe", file, strconv.Itoa(off)}
	}},
}

// startReader starts one of readers.
func startReader(t *testing.T, args []string) *process {
	t.Helper()
	cmd := exec.Command(args[0], args[1:]...)
	if args[0] == "/proc/self/exe" {
		cmd.Env = append(os.Environ(), mmapEnv+"=1")
	}
	return startCmd(t, cmd)
}

// A reader that waits for a server that hangs can be killed.
func TestKilledReader(t *testing.T) {
	for _, h := range hangs {
		for i, reader := range readers {
			t.Run(h.name+" "+reader.name, func(t *testing.T) {
				s := makeImage(t, 64*kib, blocks(16, 8*kib)...)
				srv, url := serve(t, s.image)
				dir := mount(t, url, "--timeout", "60s")
				// It reads what it should as long as nothing hangs.
				p := startReader(t, reader.args(diskOf(dir), 2*64*kib, pageSize))
				checkBytes(t, p.name, p.result(t).stdout, s.block(2)[:pageSize])

				hang(t, srv, h.kind)
				n := 8 + i
				p = startReader(t, reader.args(diskOf(dir), n*64*kib, pageSize))
				waitFor(t, "request of "+p.name, func() bool { return asked(srv, s.offsets[n]) })
				killed(t, p)

				quick(t, cloopfs, "umount", dir)
				if pids := daemons(dir); len(pids) > 0 {
					t.Errorf("umount has returned, and process %d lives on", pids)
				}
			})
		}
	}
}

// Whatever is stuck, what does not need the server goes on: blocks in memory are
// read, the mount can be looked at, and unmounted.
func TestHungServer(t *testing.T) {
	const (
		killedReaders = 64
		fast          = 100 * time.Millisecond
	)
	for _, h := range hangs {
		for _, reader := range readers[:2] {
			t.Run(h.name+" "+reader.name, func(t *testing.T) {
				s := makeImage(t, 64*kib, blocks(2*killedReaders+8, 4*kib)...)
				srv, url := serve(t, s.image)
				dir := mount(t, url, "--timeout", "60s")
				disk := diskOf(dir)
				// A read of a part puts the block into memory; one past the page
				// cache leaves none of it to the kernel.
				args := directRead(disk, 0, pageSize)
				must(t, args[0], args[1:]...)
				hang(t, srv, h.kind)

				var procs []*process
				for i := range killedReaders {
					procs = append(procs, startReader(t, reader.args(disk, (4+2*i)*64*kib, pageSize)))
				}
				for _, p := range procs {
					stuck(t, p, disk)
				}
				for _, p := range procs {
					p.kill()
				}
				begin := time.Now()
				for _, p := range procs {
					if !p.endsWithin(time.Until(begin.Add(soon))) {
						t.Errorf("killed, and still there after %v: %s", soon, p.name)
					}
				}

				for _, cached := range readers[:2] {
					best := limit
					for try := range 3 {
						off := (1 + try) * 5 * pageSize // a page that the kernel has not got
						args := cached.args(disk, off, pageSize)
						p := startReader(t, args)
						d := elapsed(func() {
							if !p.endsWithin(10 * time.Second) {
								t.Fatalf("stuck: %s", p.name)
							}
						})
						checkBytes(t, p.name, p.result(t).stdout, s.disk[off:off+pageSize])
						best = min(best, d)
					}
					if best > fast {
						t.Errorf("%s read of a block in memory took %v, want at most %v", cached.name, best, fast)
					}
				}
				if out := quick(t, "stat", "--format=%s", disk); strings.TrimSpace(out) != strconv.Itoa(len(s.disk)) {
					t.Errorf("size is %s, want %d", out, len(s.disk))
				}
				if out := quick(t, "ls", dir); out != "disk.img\n" {
					t.Errorf("ls prints %q", out)
				}
				quick(t, "df", dir)
				quick(t, cloopfs, "umount", dir)
				if pids := daemons(dir); len(pids) > 0 {
					t.Errorf("umount has returned, and process %d lives on", pids)
				}
			})
		}
	}
}

// A user's mount may have fewer reads under way than root's, by the machine's memory. When
// all of them are those of killed readers, it goes on after some seconds.
func TestHungServerOfUser(t *testing.T) {
	const (
		limit = "/sys/module/fuse/parameters/max_user_bgreq" // to the kernel, when it mounts
		most  = 16
		goOn  = 8 * time.Second
	)
	before, err := os.ReadFile(limit)
	if err != nil {
		t.Fatal(err)
	}
	restore := func() {
		if err := os.WriteFile(limit, before, 0); err != nil {
			t.Error(err)
		}
	}
	s := makeImage(t, 64*kib, blocks(4*most+8, 4*kib)...)
	srv, url := serve(t, s.image)
	dir := userDir(t)
	disk := diskOf(dir)
	t.Cleanup(restore)
	if err := os.WriteFile(limit, []byte(strconv.Itoa(most)), 0); err != nil {
		t.Fatal(err)
	}
	r := asUser(t, cloopfs, "mount", "--profile", "none", "--speculate", "off", "--timeout", "60s", url, dir)
	restore()
	if r.code != 0 {
		t.Fatalf("mount: %v", r)
	}
	t.Cleanup(func() { asUser(t, cloopfs, "umount", "--force", dir) })
	args := directRead(disk, 0, pageSize) // into memory, not into the page cache
	if r := asUser(t, args[0], args[1:]...); r.code != 0 {
		t.Fatalf("%s: %v", args, r)
	}
	hang(t, srv, testserver.HangBeforeHeaders)
	var procs []*process
	for i := range 2 * most {
		args := bufferedRead(disk, (4+2*i)*64*kib, pageSize)
		procs = append(procs, startCmd(t, asNobody(args[0], args[1:]...)))
	}
	for _, p := range procs {
		stuck(t, p, disk)
	}
	for _, p := range procs {
		killed(t, p)
	}
	args = bufferedRead(disk, pageSize, pageSize)
	p := startCmd(t, asNobody(args[0], args[1:]...))
	if !p.endsWithin(goOn) {
		t.Fatalf("%d killed readers keep a block that is in memory from others for %v", len(procs), goOn)
	}
	checkBytes(t, p.name, p.result(t).stdout, s.disk[pageSize:2*pageSize])
}

// umount --force frees even readers behind a loop device, which no signal
// reaches.
func TestForce(t *testing.T) {
	for _, h := range hangs {
		t.Run(h.name, func(t *testing.T) {
			const atOnce = 2 * time.Second
			s := makeImage(t, 64*kib, blocks(64, 4*kib)...)
			srv, url := serve(t, s.image)
			dir := mount(t, url, "--timeout", "60s")
			device := attach(t, diskOf(dir))
			hang(t, srv, h.kind)
			args := bufferedRead(device, 2*mib, pageSize)
			p := start(t, args[0], args[1:]...)
			stuck(t, p, device)

			begin := time.Now()
			must(t, cloopfs, "umount", "--force", dir)
			if d := time.Since(begin); d > atOnce {
				t.Errorf("umount --force took %v, want at most %v", d, atOnce)
			}
			if !p.endsWithin(time.Until(begin.Add(atOnce))) {
				t.Fatalf("still stuck %v after umount --force: %s", atOnce, p.name)
			}
			if r := p.result(t); r.code == 0 || !strings.Contains(r.stderr, "Input/output error") {
				t.Errorf("reader: %v, want an I/O error", r)
			}
			if mounted(dir) {
				t.Errorf("%s is still mounted", dir)
			}
			if pids := daemons(dir); len(pids) > 0 {
				t.Errorf("umount --force has returned, and process %d lives on", pids)
			}
			must(t, "losetup", "--detach", device)
			if !detachedSoon(device) {
				t.Errorf("%s is still attached", device)
			}
			// The directory is free for the next mount.
			unhang(srv)
			mountAt(t, url, dir)
			umount(t, dir)
		})
	}
}

// Without a kill, a read fails with an I/O error when the timeout is over, and
// works again when the server does.
func TestTimeout(t *testing.T) {
	const (
		timeout = 2 * time.Second
		slack   = time.Second
	)
	for _, c := range []struct {
		name      string
		kind      testserver.Hang
		blockSize int // of a disk of 16 MiB
	}{
		{"before the headers", testserver.HangBeforeHeaders, 64 * kib},
		{"in the body", testserver.HangMidBody, 64 * kib},
		{"and the index is not there yet", testserver.HangBeforeHeaders, 4 * kib},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := makeImage(t, c.blockSize, blocks(16*mib/c.blockSize, max(kib, c.blockSize/16))...)
			srv, url := serve(t, s.image)
			dir := mount(t, url, "--timeout", "2s")
			disk := diskOf(dir)
			// Two, since a loop device serves its readers one after the other.
			device, device2 := attach(t, disk), attach(t, disk)
			hang(t, srv, c.kind)

			all := [][]string{
				bufferedRead(disk, 2*mib, pageSize),
				directRead(disk, 4*mib, pageSize),
				directRead(disk, 6*mib, mib),
				bufferedRead(device, 8*mib, pageSize),
				directRead(device2, 10*mib, pageSize),
			}
			begin := time.Now()
			var procs []*process
			for _, args := range all {
				procs = append(procs, start(t, args[0], args[1:]...))
			}
			for _, p := range procs {
				r := p.result(t)
				d := p.ended.Sub(begin)
				if r.code == 0 || !strings.Contains(r.stderr, "Input/output error") {
					t.Errorf("%s: %v, want an I/O error", p.name, r)
				}
				if d < timeout/2 || d > timeout+slack {
					t.Errorf("%s took %v, want about %v and at most %v", p.name, d, timeout, timeout+slack)
				}
				t.Logf("%v: %s", d, p.name)
			}

			unhang(srv)
			for i, args := range all {
				var r result
				waitFor(t, "read after the hang: "+strings.Join(args, " "), func() bool {
					r = run(t, args[0], args[1:]...)
					return r.code == 0
				})
				size := pageSize
				if i == 2 {
					size = mib
				}
				off := 2 * mib * (i + 1)
				checkBytes(t, strings.Join(args, " "), r.stdout, s.disk[off:off+size])
			}
			must(t, "losetup", "--detach", device, device2)
			umount(t, dir)
		})
	}
}

// SIGTERM ends the process although requests hang.
func TestTerminateHung(t *testing.T) {
	for _, h := range hangs {
		t.Run(h.name, func(t *testing.T) {
			s := makeImage(t, 64*kib, blocks(16, 4*kib)...)
			srv, url := serve(t, s.image)
			dir := mount(t, url, "--timeout", "60s")
			pid := daemon(t, dir)
			hang(t, srv, h.kind)
			for n, reader := range readers {
				p := startReader(t, reader.args(diskOf(dir), (4+n)*64*kib, pageSize))
				waitFor(t, "request of "+p.name, func() bool { return asked(srv, s.offsets[4+n]) })
				killed(t, p)
			}
			if err := syscall.Kill(pid, syscall.SIGTERM); err != nil {
				t.Fatal(err)
			}
			waitFor(t, "the process has ended", func() bool { return len(daemons(dir)) == 0 })
			if mounted(dir) {
				t.Errorf("%s is still mounted", dir)
			}
		})
	}
}

// A crowd of readers of a distant server is no reason to fail any of them.
func TestCrowd(t *testing.T) {
	const readers = 900
	s := makeImage(t, 64*kib, blocks(readers, 4*kib)...)
	srv, url := serve(t, s.image)
	dir := mount(t, url, "--connections=8")
	srv.Set(func(c *testserver.Config) { c.RTT = 50 * time.Millisecond })
	out := must(t, "sh", "-c", `
		for i in $(seq 0 `+strconv.Itoa(readers-1)+`); do
			dd if="$1" of=/dev/null iflag=direct bs=4k count=1 skip=$((i * 16)) status=none || echo "$i failed" &
		done 2>&1
		wait`, "sh", diskOf(dir))
	if out != "" {
		t.Errorf("readers failed: %s", brief(out))
	}
	umount(t, dir)
}
