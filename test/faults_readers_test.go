//go:build integration

package test

import (
	"bytes"
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A crew of readers is this test program, run again with this variable set. It gets its
// orders on stdin, reads until that is closed, and prints a crewReport.
const crewEnv = "CLOOPFS_TEST_CREW"

// orders say what a crew reads.
type orders struct {
	File    string // that is read
	Want    string // a file with the same bytes
	Readers int
	Seed    uint64
	Bound   time.Duration // that a request of the kernel should not take longer than
}

// crewReport is what a crew has seen.
type crewReport struct {
	Bytes   int64
	Reads   map[int64]int // that ended well, by the second in which they began (Unix time)
	Longest time.Duration
	Request time.Duration // the longest of those that are one request of the kernel
	Failed  []failedRead
	Late    []string // reads that took longer than they may
	Wrong   []string // reads that brought other bytes
	Err     string   // what kept the crew from reading
}

// failedRead is a read that failed.
type failedRead struct {
	Began, Ended time.Time
	What         string
}

// crew is the crew's process.
type crew struct {
	p  *process
	in io.Closer
}

// sendCrew starts a crew.
func sendCrew(t *testing.T, what orders) *crew {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), crewEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	c := &crew{p: startCmd(t, cmd), in: in}
	if err := gob.NewEncoder(in).Encode(what); err != nil {
		t.Fatal(err)
	}
	return c
}

// recall ends the crew's reading.
func (c *crew) recall(t *testing.T) (got crewReport) {
	t.Helper()
	c.in.Close()
	if r := c.p.result(t); r.code != 0 {
		t.Fatalf("readers: exit status %d, stderr %q", r.code, brief(r.stderr))
	}
	if err := gob.NewDecoder(&c.p.stdout).Decode(&got); err != nil {
		t.Fatal(err)
	}
	if got.Err != "" {
		t.Fatal(got.Err)
	}
	return got
}

// crewMain reads as it is told.
func crewMain() int {
	var what orders
	if err := gob.NewDecoder(os.Stdin).Decode(&what); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	report := crewReport{Reads: make(map[int64]int)}
	if err := what.read(&report); err != nil {
		report.Err = err.Error()
	}
	if err := gob.NewEncoder(os.Stdout).Encode(report); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

// read reads until stdin is closed.
func (o orders) read(report *crewReport) error {
	want, err := os.ReadFile(o.Want)
	if err != nil {
		return err
	}
	var over atomic.Bool
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		over.Store(true)
	}()
	var mu sync.Mutex // guards report
	var wg sync.WaitGroup
	failures := make(chan error, o.Readers)
	for i := range o.Readers {
		wg.Go(func() {
			r := reader{orders: o, kind: i, want: want, rnd: rand.New(rand.NewPCG(o.Seed, uint64(i))), mu: &mu, report: report}
			failures <- r.run(&over)
		})
	}
	wg.Wait()
	close(failures)
	var all error
	for err := range failures {
		all = errors.Join(all, err)
	}
	return all
}

// reader is one of a crew: small and large reads, at random and in order, through the
// page cache and past it.
type reader struct {
	orders
	kind   int
	want   []byte
	rnd    *rand.Rand
	mu     *sync.Mutex
	report *crewReport
}

func (r *reader) direct() bool     { return r.kind&1 != 0 }
func (r *reader) sequential() bool { return r.kind&2 != 0 }
func (r *reader) large() bool      { return r.kind&4 != 0 }

func (r *reader) run(over *atomic.Bool) error {
	flags := os.O_RDONLY
	if r.direct() {
		flags |= syscall.O_DIRECT
	}
	f, err := os.OpenFile(r.File, flags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	fd := int(f.Fd())
	buf, err := unix.Mmap(-1, 0, mib, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON) // aligned
	if err != nil {
		return err
	}
	for off := 0; !over.Load(); {
		n := pageSize * (1 + r.rnd.IntN(4))
		if r.large() {
			n = 128*kib + pageSize*r.rnd.IntN((mib-128*kib)/pageSize)
		}
		if off += n; !r.sequential() || off >= len(r.want) || r.rnd.IntN(200) == 0 {
			off = pageSize * r.rnd.IntN(len(r.want)/pageSize)
		}
		if !r.once(fd, buf[:min(n, len(r.want)-off)], off) {
			time.Sleep(20 * time.Millisecond)
		}
		if !r.direct() { // so that it is asked for again
			if err := unix.Fadvise(fd, int64(off), int64(n), unix.FADV_DONTNEED); err != nil {
				return err
			}
		}
	}
	return nil
}

// bound is how long a read of n bytes may take. Of one through the page cache the kernel
// makes several requests of at most 128 KiB, and waits for one after the other; who serves
// them can't tell that from several reads.
func (r *reader) bound(n int) time.Duration {
	if r.direct() {
		return r.Bound
	}
	return r.Bound * time.Duration((n+128*kib-1)/(128*kib))
}

// once makes one read, and says whether it was a success.
func (r *reader) once(fd int, p []byte, off int) bool {
	clear(p)
	began := time.Now()
	n, err := unix.Pread(fd, p, int64(off))
	ended := time.Now()
	what := fmt.Sprintf("read of %d bytes at %d (direct: %v) after %v: %d bytes, %v", len(p), off, r.direct(), ended.Sub(began), n, err)

	r.mu.Lock()
	defer r.mu.Unlock()
	took := ended.Sub(began)
	r.report.Longest = max(r.report.Longest, took)
	if r.bound(len(p)) == r.Bound {
		r.report.Request = max(r.report.Request, took)
	}
	if took > r.bound(len(p)) {
		r.report.Late = append(r.report.Late, what)
	}
	n = max(0, n)
	if !bytes.Equal(p[:n], r.want[off:off+n]) {
		r.report.Wrong = append(r.report.Wrong, what)
	}
	r.report.Bytes += int64(n)
	if err != nil || n < len(p) { // short where a later page has failed
		r.report.Failed = append(r.report.Failed, failedRead{began, ended, what})
		return false
	}
	r.report.Reads[began.Unix()]++
	return true
}
