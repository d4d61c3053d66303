//go:build integration

package test

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// serverStatus is what status --json says of a server.
type serverStatus struct {
	URL, State              string
	OK                      bool
	Requests, Failed, Bytes int64
	AnswerTime              float64 `json:"answer_time"`
	Rate                    int64
	LastError               string    `json:"last_error"`
	LastErrorAt             time.Time `json:"last_error_at"`
}

// mountStatus is what status --json says of a mount.
type mountStatus struct {
	Mountpoint, Source string
	PID                int
	Since              time.Time
	DiskSize           int64 `json:"disk_size"`
	Servers            []serverStatus
	Offline            bool
	Fetched            struct{ Requests, Bytes int64 }
	Causes             []struct {
		Cause                 string
		Requests, Bytes, Used int64
	}
	Cache *struct { // nil without one
		Path               string
		Removed            bool
		FileSize           int64 `json:"file_size"`
		Bytes, Hits        int64
		HitBytes           int64 `json:"hit_bytes"`
		Stored, Mismatches int64
	}
	Manifest *struct { // nil without one
		Name, Date, Root, Key    string
		Version, Proven, Refused int64
	}
	Memory struct{ Blocks, Bytes, Hits, Loads int64 }
	Reads  struct {
		Count, Bytes, Waiting, Errors int64
		LastError                     string    `json:"last_error"`
		LastErrorAt                   time.Time `json:"last_error_at"`
	}
	// Nil for a read-only disk.
	Writes  *struct{ Count, Bytes, Flushes, Errors int64 }
	Overlay *struct {
		Path     string
		Changed  int64
		Flushing bool
	}
}

// parseStatus parses what status --json has printed. A field that the contract
// does not know is an error.
func parseStatus(t *testing.T, out string) []mountStatus {
	t.Helper()
	var list []mountStatus
	dec := json.NewDecoder(bytes.NewBufferString(out))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&list); err != nil {
		t.Fatalf("status --json prints %q: %v", out, err)
	}
	return list
}

// statusOf asks for the status of one mount, which takes less than a second
// whatever hangs.
func statusOf(t *testing.T, dir string) mountStatus {
	t.Helper()
	list := parseStatus(t, quick(t, cloopfs, "status", "--json", dir))
	if len(list) != 1 || len(list[0].Servers) > 1 {
		t.Fatalf("status --json: got %+v, want one mount with one server at most", list)
	}
	return list[0]
}

// checkCounts compares the counters of a mount with those of its server.
func checkCounts(t *testing.T, got mountStatus, srv *testserver.Server) {
	t.Helper()
	st, server := srv.Stats(), got.Servers[0]
	if server.Requests != int64(st.Requests) || server.Bytes != st.Bytes {
		t.Errorf("status says %d requests, %d bytes; the server %d, %d: %v", server.Requests, server.Bytes, st.Requests, st.Bytes, st.Ranges)
	}
	if got.Fetched.Requests != server.Requests || got.Fetched.Bytes != server.Bytes {
		t.Errorf("fetched is %+v, want the server's %+v", got.Fetched, server)
	}
	var requests, size int64
	for _, c := range got.Causes {
		requests, size = requests+c.Requests, size+c.Bytes
		if c.Used > c.Bytes {
			t.Errorf("more is used than was fetched: %+v", c)
		}
	}
	if requests != server.Requests || size != server.Bytes {
		t.Errorf("the causes %+v make %d requests, %d bytes; want %d, %d", got.Causes, requests, size, server.Requests, server.Bytes)
	}
}

// What is under way is for those who wait for it, not for the index.
func TestStatusUnderWay(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(64, 60*kib)...)
	srv, url := serve(t, s.image)
	dir := mount(t, url)
	index := statusOf(t, dir).Causes[0]
	srv.Set(func(c *testserver.Config) { c.Rate = 4 << 20 })
	reader := start(t, "cat", diskOf(dir))
	for reader.running() {
		st := statusOf(t, dir)
		if st.Causes[0] != index {
			t.Fatalf("under way: %+v, want %+v", st.Causes, index)
		}
		if len(st.Causes) > 1 && st.Causes[1].Bytes > st.Fetched.Bytes-index.Bytes {
			t.Fatalf("more was fetched for readers than at all: %+v", st)
		}
	}
	checkBytes(t, "disk", reader.result(t).stdout, s.disk)
	checkCounts(t, statusOf(t, dir), srv)
	umount(t, dir)
}

// The index counts as such, where it does not come with the first request.
func TestStatusOfIndex(t *testing.T) {
	s := makeImage(t, 4*kib, blocks(4000, kib)...)
	srv, url := serve(t, s.image)
	dir := mount(t, url)
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
	st := statusOf(t, dir)
	checkCounts(t, st, srv)
	if index := st.Causes[0]; index.Bytes < 4000*8 || index.Bytes > 4000*8+16*kib || index.Requests < 2 {
		t.Errorf("an index of 32000 bytes: %+v", index)
	}
	umount(t, dir)
}

// status counts what the server counts, and what the readers have had.
func TestStatus(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(64, 20*kib)...)
	srv, url := serve(t, s.image)
	begin := time.Now().Add(-time.Second)
	dir := mount(t, url)

	st := statusOf(t, dir)
	if st.Mountpoint != dir || st.Source != url || st.Servers[0].URL != url || st.PID != daemon(t, dir) || st.DiskSize != int64(len(s.disk)) {
		t.Errorf("status: got %+v", st)
	}
	if st.Since.Before(begin) || st.Since.After(time.Now()) {
		t.Errorf("mounted since %v, want about %v", st.Since, begin)
	}
	checkCounts(t, st, srv)
	if st.Reads.Count != 0 || len(st.Causes) != 1 || st.Causes[0].Cause != "index" || !st.Servers[0].OK {
		t.Errorf("status of a mount that nobody has read: %+v", st)
	}

	// A page of a block, another of it from memory, then all the rest.
	for _, off := range []int{10 * 64 * kib, 10*64*kib + pageSize} {
		args := directRead(diskOf(dir), off, pageSize)
		must(t, args[0], args[1:]...)
	}
	st = statusOf(t, dir)
	checkCounts(t, st, srv)
	if st.Reads.Count != 2 || st.Reads.Bytes != 2*pageSize || st.Memory.Blocks != 1 || st.Memory.Hits != 1 || st.Memory.Loads != 1 {
		t.Errorf("status after two reads of one block: %+v", st)
	}
	if len(st.Causes) != 2 || st.Causes[1].Cause != "demand" || st.Causes[1].Used != 20*kib {
		t.Errorf("causes after a read: %+v", st.Causes)
	}
	checkBytes(t, "disk", must(t, "dd", "if="+diskOf(dir), "iflag=direct", "bs=1M", "status=none"), s.disk)
	st = statusOf(t, dir)
	checkCounts(t, st, srv)
	if want := int64(len(s.disk)) + 2*pageSize; st.Reads.Bytes != want || st.Reads.Errors != 0 || st.Reads.Waiting != 0 {
		t.Errorf("reads are %+v, want %d bytes, none waiting, no errors", st.Reads, want)
	}

	// The same for people.
	out := must(t, cloopfs, "status", dir)
	for _, want := range []string{dir, url, "4 MiB (4194304 bytes)", "process " + strconv.Itoa(st.PID), "ok, " + strconv.FormatInt(st.Servers[0].Requests, 10) + " requests, 0 failed"} {
		if !strings.Contains(out, want) {
			t.Errorf("status prints %q, want %q in it", out, want)
		}
	}
	if strings.Contains(out, "demand:") {
		t.Errorf("status prints %q, with causes", out)
	}
	if out := must(t, cloopfs, "status", "--why", dir); !strings.Contains(out, "index: ") || !strings.Contains(out, "demand: ") {
		t.Errorf("status --why prints %q, want the causes in it", out)
	}
	umount(t, dir)
}

// While the server hangs status answers at once and says what was wrong; when it
// is well again that is said, too.
func TestStatusOfHungServer(t *testing.T) {
	const waiting = 3
	for _, h := range hangs {
		t.Run(h.name, func(t *testing.T) {
			s := makeImage(t, 64*kib, blocks(64, 20*kib)...)
			srv, url := serve(t, s.image)
			dir := mount(t, url, "--timeout", "60s")
			// First the server refuses, then it hangs.
			srv.Set(func(c *testserver.Config) { c.StatusTimes = -1 })
			var procs []*process
			for i := range waiting {
				args := directRead(diskOf(dir), 10*i*64*kib, pageSize)
				procs = append(procs, start(t, args[0], args[1:]...))
			}
			waitFor(t, "all have been refused", func() bool { return statusOf(t, dir).Servers[0].Failed >= waiting })
			srv.Set(func(c *testserver.Config) { c.StatusTimes = 0 })
			hang(t, srv, h.kind)
			srv.Reset()
			waitFor(t, "all are asked for again", func() bool { return srv.Stats().Requests >= waiting })
			failing := h.kind == testserver.HangBeforeHeaders // half of a body is data
			waitFor(t, "what has arrived is known", func() bool { return statusOf(t, dir).Servers[0].OK != failing })

			st := statusOf(t, dir)
			server := st.Servers[0]
			if st.Reads.Waiting != waiting {
				t.Errorf("%d reads are waiting, want %d", st.Reads.Waiting, waiting)
			}
			if !strings.Contains(server.LastError, "503") || server.LastErrorAt.IsZero() {
				t.Errorf("server is %+v, want 503 as the last error", server)
			}
			out := quick(t, cloopfs, "status")
			if !strings.Contains(out, "3 waiting") || !strings.Contains(out, "last error") || !strings.Contains(out, "503") {
				t.Errorf("status prints %q", out)
			}
			if failing != strings.Contains(out, ": failing, ") {
				t.Errorf("status prints %q, want failing %v", out, failing)
			}

			unhang(srv)
			for i, p := range procs {
				checkBytes(t, p.name, p.result(t).stdout, s.block(10 * i)[:pageSize])
			}
			st = statusOf(t, dir)
			if st.Reads.Waiting != 0 || st.Reads.Errors != 0 || !st.Servers[0].OK || st.Servers[0].LastError == "" {
				t.Errorf("status after the hang: %+v", st)
			}
			umount(t, dir)
		})
	}
}

// Errors that readers get are counted, and the last one is told.
func TestStatusTellsErrors(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(64, 20*kib)...)
	srv, url := serve(t, s.image)
	dir := mount(t, secretURL(url))
	srv.Set(func(c *testserver.Config) { c.StatusTimes, c.Status = -1, 404 })
	args := directRead(diskOf(dir), 0, pageSize)
	if r := run(t, args[0], args[1:]...); r.code == 0 {
		t.Fatalf("%v: %v, want an error", args, r)
	}
	st := statusOf(t, dir)
	server := st.Servers[0]
	if server.OK || server.Failed < 1 || !strings.Contains(server.LastError, "404") {
		t.Errorf("server is %+v, want it failing with 404", server)
	}
	if st.Reads.Errors < 1 || !strings.Contains(st.Reads.LastError, "404") || st.Reads.LastErrorAt.IsZero() {
		t.Errorf("reads are %+v, want an error with 404", st.Reads)
	}
	checkCounts(t, st, srv)
	// In all that is said there is no secret of the URL.
	shown := url + "?token"
	for _, flags := range [][]string{nil, {"--why"}, {"--json"}} {
		out := must(t, cloopfs, slices.Concat([]string{"status"}, flags, []string{dir})...)
		if !strings.Contains(out, shown) || !strings.Contains(out, "404") || strings.Contains(out, "geheim") {
			t.Errorf("status %v prints %q, want %q and no more of the URL", flags, out, shown)
		}
	}
	umount(t, dir)
}

// status without a MOUNTPOINT lists all mounts, those of local images too.
func TestStatusOfAll(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	file := filepath.Join(t.TempDir(), "image.cloop")
	if err := os.WriteFile(file, s.image, 0o644); err != nil {
		t.Fatal(err)
	}
	if list := parseStatus(t, must(t, cloopfs, "status", "--json")); len(list) != 0 {
		t.Errorf("without mounts: %+v, want an empty list", list)
	}
	if out := must(t, cloopfs, "status"); out != "" {
		t.Errorf("without mounts status prints %q", out)
	}
	remote, local := mount(t, url), mount(t, file)
	list := parseStatus(t, must(t, cloopfs, "status", "--json"))
	if len(list) != 2 || list[0].Mountpoint != remote || list[1].Mountpoint != local {
		t.Fatalf("status --json: got %+v, want %s and %s", list, remote, local)
	}
	if list[0].Source != url || list[1].Source != file || len(list[0].Servers) != 1 || len(list[1].Servers) != 0 {
		t.Errorf("sources and servers of %+v, want %s and %s", list, url, file)
	}
	out := must(t, cloopfs, "status")
	if first, second := strings.Index(out, remote), strings.Index(out, local); first < 0 || second < first || !strings.Contains(out, "\n\n") {
		t.Errorf("status prints %q, want %s, an empty line and %s", out, remote, local)
	}
	umount(t, remote)
	umount(t, local)
}

// What does not answer is a failure, with what to do where that is known.
func TestStatusErrors(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	t.Run("no mount", func(t *testing.T) {
		checkFailure(t, run(t, cloopfs, "status", t.TempDir()), 1, "not a cloopfs mount")
		checkFailure(t, run(t, cloopfs, "status", "/proc"), 1, "not a cloopfs mount")
		checkFailure(t, run(t, cloopfs, "status", "/no/such/directory"), 1, "/no/such/directory")
		checkFailure(t, run(t, cloopfs, "status", "/", "/"), 2, "arg")
	})
	t.Run("killed", func(t *testing.T) {
		alive := mount(t, url)
		dead := deadMount(t, url)
		r := run(t, cloopfs, "status", dead)
		checkFailure(t, r, 1, "its process is gone")
		if want := "cloopfs: hint: cloopfs umount " + dead + "\n"; !strings.HasSuffix(r.stderr, want) {
			t.Errorf("stderr is %q, want %q", r.stderr, want)
		}
		// The others are reported as ever.
		for _, flags := range [][]string{nil, {"--json"}} {
			r := run(t, cloopfs, append([]string{"status"}, flags...)...)
			if r.code != 1 || !strings.Contains(r.stdout, alive) || strings.Contains(r.stdout, dead) || !strings.Contains(r.stderr, dead) {
				t.Errorf("status %v: %v, want a report of %s and a failure of %s", flags, r, alive, dead)
			}
		}
		umount(t, dead)
		umount(t, alive)
	})
}

// socketsIn lists the control sockets in a directory, with their modes and owners.
func socketsIn(t *testing.T, dir string) string {
	t.Helper()
	return must(t, "find", dir, "-name", "*.sock", "-printf", "%y %m %u\n")
}

// A user's mounts are that user's: nobody else can ask for their status, or see
// that of root's.
func TestStatusOfUsers(t *testing.T) {
	const userSockets = "/tmp/cloopfs-65534"
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	theirs := userDir(t)
	if r := asUser(t, cloopfs, "mount", url, theirs); r.code != 0 {
		t.Fatalf("mount: %v", r)
	}
	ours := openDir(t)
	mountAt(t, url, ours, "--allow-other")

	for dir, want := range map[string][2]string{
		"/run/cloopfs": {"d 700 root\n", "s 600 root\n"},
		userSockets:    {"d 700 nobody\n", "s 600 nobody\n"},
	} {
		if got := must(t, "find", dir, "-maxdepth", "0", "-printf", "%y %m %u\n"); got != want[0] {
			t.Errorf("%s is %q, want %q", dir, got, want[0])
		}
		if got := socketsIn(t, dir); got != want[1] {
			t.Errorf("sockets in %s are %q, want %q", dir, got, want[1])
		}
	}

	r := asUser(t, cloopfs, "status", "--json")
	if list := parseStatus(t, r.stdout); r.code != 0 || len(list) != 1 || list[0].Mountpoint != theirs {
		t.Errorf("a user's status: %v, want %s alone", r, theirs)
	}
	if r := asUser(t, cloopfs, "status", theirs); r.code != 0 || !strings.Contains(r.stdout, theirs) {
		t.Errorf("a user's status of one: %v", r)
	}
	checkFailure(t, asUser(t, cloopfs, "status", ours), 1, "permission denied")
	if list := parseStatus(t, must(t, cloopfs, "status", "--json")); len(list) != 2 {
		t.Errorf("root's status: %+v, want both mounts", list)
	}

	// The directory does not protect root's socket alone.
	must(t, "chmod", "755", "/run/cloopfs")
	t.Cleanup(func() { try("chmod", "-R", "go=", "/run/cloopfs") })
	checkFailure(t, asUser(t, cloopfs, "status", ours), 1, "permission denied")
	must(t, "sh", "-c", "chmod 666 /run/cloopfs/*.sock")
	if r := asUser(t, cloopfs, "status", ours); r.code != 1 || strings.Contains(r.stdout, url) {
		t.Errorf("a user's status of root's mount, through an open socket: %v, want a failure", r)
	}

	if r := asUser(t, cloopfs, "umount", theirs); r.code != 0 {
		t.Errorf("umount: %v", r)
	}
	umount(t, ours)
}

// A daemon that is stopped does not keep status for ever.
func TestStatusOfStopped(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(4, 4*kib)...)
	_, url := serve(t, s.image)
	dir := mount(t, url)
	pid := daemon(t, dir)
	if err := syscall.Kill(pid, syscall.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = syscall.Kill(pid, syscall.SIGCONT) })
	waitFor(t, "every thread is stopped", func() bool {
		states := must(t, "ps", "-L", "-o", "state=", "-p", strconv.Itoa(pid))
		return strings.Trim(states, "T\n") == ""
	})
	p := start(t, cloopfs, "status", dir)
	if !p.endsWithin(10 * time.Second) {
		t.Fatal("status waits for a process that is stopped")
	}
	checkFailure(t, p.result(t), 1, "does not answer")
	if err := syscall.Kill(pid, syscall.SIGCONT); err != nil {
		t.Fatal(err)
	}
	statusOf(t, dir)
	umount(t, dir)
}
