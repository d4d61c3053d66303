//go:build integration

package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

// mortalServer is a real web server that can have an outage.
type mortalServer struct {
	url      string
	down, up func()
}

// outages are the ways in which a server can be gone.
var outages = []struct {
	name  string
	serve func(t *testing.T, docs string) mortalServer
}{
	{"refused", serveRefused},
	{"hung", serveHung},
	{"black hole", serveBlackHole},
}

// serveRefused is a server that is killed, and started again.
func serveRefused(t *testing.T, docs string) mortalServer {
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	p := nginx.startAt(t, docs, addr)
	return mortalServer{
		url: "http://" + addr,
		down: func() {
			p.kill()
			if !p.endsWithin(soon) {
				t.Fatal("the server can't be killed")
			}
		},
		up: func() { p = nginx.startAt(t, docs, addr) },
	}
}

// serveHung is a server that is stopped: its kernel goes on to take connections and
// requests.
func serveHung(t *testing.T, docs string) mortalServer {
	addr := fmt.Sprintf("127.0.0.1:%d", freePort(t))
	p := nginx.startAt(t, docs, addr)
	signal := func(sig syscall.Signal) func() {
		return func() {
			if err := p.cmd.Process.Signal(sig); err != nil {
				t.Fatal(err)
			}
		}
	}
	return mortalServer{url: "http://" + addr, down: signal(syscall.SIGSTOP), up: signal(syscall.SIGCONT)}
}

// serveBlackHole is a server at the other end of a line that swallows its packets.
func serveBlackHole(t *testing.T, docs string) mortalServer {
	far := start(t, "unshare", "--net", "sleep", "infinity")
	space := fmt.Sprintf("/proc/%d/ns/net", far.pid())
	own, err := os.Readlink("/proc/self/ns/net")
	if err != nil {
		t.Fatal(err)
	}
	waitFor(t, "a network of its own", func() bool {
		its, err := os.Readlink(space)
		return err == nil && its != own
	})
	// Another run of the tests may have such a line, too.
	id := os.Getpid()
	near, remote := fmt.Sprintf("cfs-n%d", id), fmt.Sprintf("cfs-r%d", id)
	net24 := fmt.Sprintf("10.231.%d.", id%256)
	here, there := net24+"1", net24+"2"
	inside := []string{"nsenter", "--net=" + space, "--"}
	at := func(args ...string) { must(t, inside[0], append(inside[1:], args...)...) }
	must(t, "ip", "link", "add", near, "type", "veth", "peer", "name", remote, "netns", strconv.Itoa(far.pid()))
	t.Cleanup(func() { try("ip", "link", "delete", near) })
	must(t, "ip", "address", "add", here+"/30", "dev", near)
	must(t, "ip", "link", "set", near, "up")
	at("ip", "address", "add", there+"/30", "dev", remote)
	at("ip", "link", "set", remote, "up")
	addr := net.JoinHostPort(there, "8080")
	nginx.startAt(t, docs, addr, inside...)
	return mortalServer{
		url:  "http://" + addr,
		down: func() { at("ip", "route", "add", "blackhole", here+"/32") },
		up:   func() { at("ip", "route", "delete", "blackhole", here+"/32") },
	}
}

// publish makes a directory with the image in it, for a web server.
func publish(t *testing.T, image []byte) (docs string) {
	t.Helper()
	docs = t.TempDir()
	if err := os.WriteFile(filepath.Join(docs, "disk.cloop"), image, 0o644); err != nil {
		t.Fatal(err)
	}
	return docs
}

// While the server is gone everything works that does not need it; with --timeout 0
// readers wait, and go on when it is back. The log says when it went and came.
func TestOutage(t *testing.T) {
	const again = 15 * time.Second // seconds, not minutes
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			t.Parallel()
			s := makeImage(t, 64*kib, blocks(64, 4*kib)...)
			srv := o.serve(t, publish(t, s.image))
			log := filepath.Join(t.TempDir(), "log")
			dir := mount(t, srv.url+"/disk.cloop", "--timeout", "0", "--log-file", log)
			disk := diskOf(dir)
			warm := directRead(disk, 0, pageSize)
			must(t, warm[0], warm[1:]...)

			srv.down()
			waiting := start(t, "dd", directRead(disk, 20*64*kib, mib)[1:]...)
			stuck(t, waiting, disk)
			for i, reader := range readers[:2] {
				p := startReader(t, reader.args(disk, (4+4*i)*64*kib, pageSize))
				stuck(t, p, disk)
				killed(t, p)
			}
			checkBytes(t, "in memory", quick(t, warm[0], warm[1:]...), s.disk[:pageSize])
			quick(t, "stat", disk)
			quick(t, "df", dir)
			quick(t, "ls", "-l", dir)
			if st := statusOf(t, dir); st.Reads.Waiting == 0 {
				t.Errorf("status: %+v, want readers that wait", st.Reads)
			}
			// An attempt is given up after 10 s; then the log waits for a second look.
			waitLong(t, 25*time.Second, "a word about the outage", func() bool {
				text, err := os.ReadFile(log)
				return err == nil && strings.Contains(string(text), `level=WARN msg="the server fails"`)
			})
			if !waiting.running() {
				t.Fatalf("has ended: %v", waiting.result(t))
			}

			srv.up()
			back := time.Now()
			if !waiting.endsWithin(again) {
				t.Fatalf("the server is back, and the reader waits still after %v", again)
			}
			t.Logf("the reader went on %v after the server was back", waiting.ended.Sub(back).Round(time.Millisecond))
			checkBytes(t, waiting.name, waiting.result(t).stdout, s.disk[20*64*kib:][:mib])
			checkBytes(t, "all of the disk", must(t, "cat", disk), s.disk)
			waitFor(t, "a word about its end", func() bool {
				text, err := os.ReadFile(log)
				return err == nil && strings.Contains(string(text), `level=INFO msg="the server answers again"`)
			})
			umount(t, dir)
		})
	}
}

// While the server is gone a mount can be unmounted, and its process ended.
func TestEndInOutage(t *testing.T) {
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			s := makeImage(t, 64*kib, blocks(64, 4*kib)...)
			srv := o.serve(t, publish(t, s.image))
			ends := map[string]func(dir string){
				"umount": func(dir string) { quick(t, cloopfs, "umount", dir) },
				"SIGTERM": func(dir string) {
					if err := syscall.Kill(daemon(t, dir), syscall.SIGTERM); err != nil {
						t.Fatal(err)
					}
				},
			}
			dirs := make(map[string]string)
			for name := range ends {
				dirs[name] = mount(t, srv.url+"/disk.cloop", "--timeout", "0")
			}
			srv.down()
			defer srv.up()
			for name, end := range ends {
				dir := dirs[name]
				for i, reader := range readers[:2] {
					p := startReader(t, reader.args(diskOf(dir), (4+4*i)*64*kib, pageSize))
					stuck(t, p, diskOf(dir))
					killed(t, p)
				}
				begin := time.Now()
				end(dir)
				waitFor(t, "its end", func() bool { return len(daemons(dir)) == 0 && !mounted(dir) })
				if d := time.Since(begin); d > soon {
					t.Errorf("%s took %v, want at most %v", name, d, soon)
				}
			}
		})
	}
}

// Behind a loop device a reader gets his error when the timeout is over, or at once by
// umount --force; each block that failed is in the log once. After the outage reads
// succeed.
func TestLoopInOutage(t *testing.T) {
	for _, o := range outages {
		t.Run(o.name, func(t *testing.T) {
			s := makeImage(t, 64*kib, blocks(256, 4*kib)...)
			srv := o.serve(t, publish(t, s.image))
			log := filepath.Join(t.TempDir(), "log")
			dir := mount(t, srv.url+"/disk.cloop", "--timeout", "2s", "--log-file", log)
			device := attach(t, diskOf(dir))
			srv.down()
			for _, args := range [][]string{bufferedRead(device, 2*mib, pageSize), directRead(device, 4*mib, pageSize)} {
				var r result
				d := elapsed(func() { r = run(t, args[0], args[1:]...) })
				if r.code == 0 || !strings.Contains(r.stderr, "Input/output error") || d > 3*time.Second {
					t.Errorf("%s: %v after %v, want an I/O error after 2 s, or 3 at most", strings.Join(args, " "), r, d)
				}
			}
			for _, block := range []int{32, 64} { // of those two reads
				said := func() int {
					text, err := os.ReadFile(log)
					if err != nil {
						t.Fatal(err)
					}
					return strings.Count(string(text), fmt.Sprintf("read block %d: ", block))
				}
				waitFor(t, fmt.Sprintf("a word about block %d", block), func() bool { return said() > 0 })
				if n := said(); n != 1 {
					t.Errorf("block %d is in the log %d times, want once", block, n)
				}
			}

			srv.up()
			args := directRead(device, 4*mib, pageSize)
			waitFor(t, "a read after the outage", func() bool { return run(t, args[0], args[1:]...).code == 0 })
			checkBytes(t, "after the outage", must(t, args[0], args[1:]...), s.disk[4*mib:][:pageSize])
			waitFor(t, "a word about it", func() bool {
				text, err := os.ReadFile(log)
				return err == nil && strings.Contains(string(text), `msg="read what had failed"`)
			})
			must(t, "losetup", "--detach", device)
			umount(t, dir)

			mountAt(t, srv.url+"/disk.cloop", dir, "--timeout", "60s")
			device = attach(t, diskOf(dir))
			srv.down()
			defer srv.up()
			p := start(t, "dd", bufferedRead(device, 8*mib, pageSize)[1:]...)
			stuck(t, p, device)
			quick(t, cloopfs, "umount", "--force", dir)
			if !p.endsWithin(soon) {
				t.Fatalf("still stuck %v after umount --force", soon)
			}
			if r := p.result(t); r.code == 0 || !strings.Contains(r.stderr, "Input/output error") {
				t.Errorf("reader: %v, want an I/O error", r)
			}
			must(t, "losetup", "--detach", device)
			if !detachedSoon(device) {
				t.Errorf("%s is still attached", device)
			}
		})
	}
}
