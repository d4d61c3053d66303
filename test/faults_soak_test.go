//go:build integration

package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// window is a time when a fault was on.
type window struct {
	name       string
	begin, end time.Time
}

// Whatever goes wrong and passes, in whatever order: sixteen readers get the right bytes,
// or an error while it lasts, never too late, and nothing of it stays behind.
func TestRandomFaults(t *testing.T) {
	seed := rand.Uint64()
	if text := os.Getenv("CLOOPFS_TEST_SEED"); text != "" {
		var err error
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("CLOOPFS_TEST_SEED=%d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))

	sizes, altered := make([]int, 1024), make([]int, 1024)
	for i := range sizes {
		sizes[i] = kib * (3 + rnd.IntN(10))
		altered[len(sizes)-1-i] = sizes[i]
	}
	s := makeImage(t, 64*kib, sizes...)
	o := plainly(t, s)
	o.other = makeImage(t, 64*kib, altered...)
	want := filepath.Join(t.TempDir(), "want")
	if err := os.WriteFile(want, s.disk, 0o600); err != nil {
		t.Fatal(err)
	}
	_, cache := newCache(t)
	soaks := []*soak{
		startSoak(t, o, want, 16, seed, "--cache-size", "0"),
		startSoak(t, o, want, 8, seed+1, slices.Concat(cache, []string{"--cache-size", "4MiB"})...),
	}

	var windows []window
	for end := time.Now().Add(envTime(t, "CLOOPFS_TEST_FAULTS", time.Minute)); time.Now().Before(end); {
		windows = append(windows, goWrongAtRandom(t, o, rnd))
		// What was asked for meanwhile may still fail; what is after the bound may not.
		time.Sleep(time.Duration(rnd.Int64N(int64(time.Second))))
		if rnd.IntN(3) == 0 {
			time.Sleep(2 * faultBound)
		}
	}
	time.Sleep(faultBound + time.Second)
	var reports []crewReport
	for _, k := range soaks {
		reports = append(reports, k.crew.recall(t))
	}
	for _, w := range windows {
		t.Logf("%v +%v: %s", w.begin.Format(time.TimeOnly), w.end.Sub(w.begin).Round(time.Millisecond), w.name)
	}
	for i, k := range soaks {
		checkCrew(t, reports[i], windows)
		k.checkEnd(t, o)
	}
}

// goWrongAtRandom has the server go wrong in one of the ways that can pass.
func goWrongAtRandom(t *testing.T, o *origin, rnd *rand.Rand) window {
	for {
		m := misbehaviours[rnd.IntN(len(misbehaviours))]
		if m.at != nil || m.server != (testserver.Config{}) {
			continue
		}
		w := window{name: m.name, begin: time.Now()}
		m.goWrong(t, o)
		time.Sleep(time.Duration(rnd.Int64N(int64(faultBound))))
		m.goRight(t, o)
		w.end = time.Now()
		return w
	}
}

// checkCrew checks what a crew has seen of a server that was wrong at times.
func checkCrew(t *testing.T, got crewReport, windows []window) {
	t.Helper()
	wrongAt := func(began, ended time.Time) bool {
		return slices.ContainsFunc(windows, func(w window) bool {
			return began.Before(w.end.Add(faultBound)) && ended.After(w.begin)
		})
	}
	unexpected := []string{}
	for _, f := range got.Failed {
		if !wrongAt(f.Began, f.Ended) {
			unexpected = append(unexpected, fmt.Sprintf("%v %s", f.Began, f.What))
		}
	}
	calm, reads := 0, 0
	for second, n := range got.Reads {
		reads += n
		if begin := time.Unix(second, 0); !wrongAt(begin, begin.Add(time.Second)) {
			calm += n
		}
	}
	t.Logf("%d faults; %d reads, %d of them in calm, %d MiB, the longest took %v, of one request %v; %d failed", len(windows), reads, calm, got.Bytes/mib, got.Longest, got.Request, len(got.Failed))
	for what, list := range map[string][]string{"wrong bytes": got.Wrong, "too late": got.Late, "failed although nothing was wrong": unexpected} {
		if len(list) > 0 {
			t.Errorf("%d reads: %s, such as %s", len(list), what, strings.Join(list[:min(5, len(list))], "\n"))
		}
	}
	if calm == 0 || len(got.Failed) == 0 {
		t.Errorf("%d reads were in calm, and %d failed: that shows nothing", calm, len(got.Failed))
	}
}

// soak is a mount with readers.
type soak struct {
	*probe
	crew *crew
	want string // a file with what is on the disk
	// What there was of it before.
	files int
	work  []string
}

// startSoak mounts, twice: what it does not leave behind is seen beside a mount that has
// just begun.
func startSoak(t *testing.T, o *origin, want string, readers int, seed uint64, flags ...string) *soak {
	t.Helper()
	first := startProbe(t, o, flags...)
	first.rest(t)
	k := &soak{want: want, files: first.openFiles(t, o), work: first.end(t)}
	k.probe = startProbe(t, o, flags...)
	k.crew = sendCrew(t, orders{diskOf(k.dir), want, readers, seed, faultBound})
	return k
}

// checkEnd checks that all can be read, and that nothing of what was wrong is left.
func (k *soak) checkEnd(t *testing.T, o *origin) {
	t.Helper()
	out := must(t, "sh", "-c", `dd if="$1" bs=1M iflag=direct status=none | cmp - "$2" && cat "$1" | cmp - "$2" && echo same`, "sh", diskOf(k.dir), k.want)
	if out != "same\n" {
		t.Errorf("cmp says %q", out)
	}
	st := k.rest(t)
	if st.Reads.Waiting != 0 {
		t.Errorf("%d reads are parked", st.Reads.Waiting)
	}
	files := k.openFiles(t, o)
	if files > k.files {
		t.Errorf("%d files are open, want at most %d", files, k.files)
	}
	memory := k.status(t, "VmHWM")
	work := k.end(t)
	if diff := cmp.Diff(k.work, work); diff != "" {
		t.Errorf("goroutines (-of a mount that has just begun +got):\n%s", diff)
	}
	t.Logf("%d requests, %d of them failed; %d files open, %d goroutines of ours, at most %s of memory", st.Fetched.Requests, st.Servers[0].Failed, files, len(work), memory)
}

// probe is a mount whose process can be looked into: it is in the foreground, and its
// last words are heard.
type probe struct {
	p   *process
	dir string
}

func startProbe(t *testing.T, o *origin, flags ...string) *probe {
	t.Helper()
	k := &probe{dir: makeDir(t)}
	k.p = start(t, cloopfs, slices.Concat([]string{
		"mount", "--foreground", "--profile", "none", "--memory", "2MiB", "--timeout", faultTimeout.String(),
	}, flags, []string{o.url, k.dir})...)
	waitFor(t, "mounted", func() bool { return mounted(k.dir) })
	o.checkReads(t, k.dir, 8)
	return k
}

// rest waits until nothing is fetched, not ahead of readers either.
func (k *probe) rest(t *testing.T) (st mountStatus) {
	t.Helper()
	for requests := int64(-1); requests != st.Fetched.Requests; time.Sleep(soon) {
		requests, st = st.Fetched.Requests, statusOf(t, k.dir)
	}
	return st
}

// openFiles is how many files and connections the process has open when there is none to
// the server. Pipes are go-fuse's, which keeps those it has used.
func (k *probe) openFiles(t *testing.T, o *origin) (n int) {
	t.Helper()
	down(t, o)
	defer up(t, o)
	dir := "/proc/" + strconv.Itoa(k.p.pid()) + "/fd"
	for last := -1; last != n; time.Sleep(100 * time.Millisecond) { // they are being closed
		list, err := os.ReadDir(dir)
		if err != nil {
			t.Fatal(err)
		}
		last, n = n, 0
		for _, e := range list {
			if to, err := os.Readlink(filepath.Join(dir, e.Name())); err == nil && !strings.HasPrefix(to, "pipe:") {
				n++
			}
		}
	}
	return n
}

// status is a line of /proc/PID/status.
func (k *probe) status(t *testing.T, name string) string {
	t.Helper()
	all, err := os.ReadFile("/proc/" + strconv.Itoa(k.p.pid()) + "/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(all), name+":")
	line, _, _ := strings.Cut(rest, "\n")
	return strings.TrimSpace(line)
}

// layers matches the functions of those who serve and fetch in a goroutine's stack.
var layers = regexp.MustCompile(`(?m)^github\.com/cloopfs/cloopfs/((?:blockio|cache|cloop|fetch|fusefs|httpblock|overlay)\..+)\(.*\)$`)

// end ends the process, and returns what its goroutines were doing for us.
func (k *probe) end(t *testing.T) (work []string) {
	t.Helper()
	if err := k.p.cmd.Process.Signal(syscall.SIGQUIT); err != nil {
		t.Fatal(err)
	}
	said := k.p.result(t).stderr
	if !strings.Contains(said, "SIGQUIT") {
		t.Fatalf("the process says %q, want its goroutines", brief(said))
	}
	for stack := range strings.SplitSeq(said, "\n\n") {
		if m := layers.FindStringSubmatch(stack); m != nil && strings.HasPrefix(stack, "goroutine ") {
			work = append(work, m[1])
		}
	}
	slices.Sort(work)
	must(t, cloopfs, "umount", k.dir)
	return work
}
