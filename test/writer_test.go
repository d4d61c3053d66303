//go:build integration

package test

import (
	"encoding/gob"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// writer is a process that has a file open, the disk of a mount as a rule, and does
// with it what it is told. It is this test program, run again with writerEnv set.
// Its methods are for one goroutine at a time.
type writer struct {
	p   *process
	in  io.WriteCloser
	out *os.File
	enc *gob.Encoder
	dec *gob.Decoder
}

const writerEnv = "CLOOPFS_TEST_WRITER"

// task is what a writer is to do. What Op can be says taskFile.do.
type task struct {
	Op     string
	Off    int64
	Len    int64
	Data   []byte
	Direct bool  // past the page cache; all must be multiples of 512
	Seed   int64 // of "bench"
}

// done is what came of a task.
type done struct {
	Data  []byte
	N     int64
	Errno syscall.Errno
}

// openWriter starts a writer that has file open.
func openWriter(t testing.TB, file string) *writer {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return openWriterAs(t, exec.Command(exe, file))
}

// openWriterAs starts cmd, which runs this program with the file as its argument.
func openWriterAs(t testing.TB, cmd *exec.Cmd) *writer {
	t.Helper()
	if cmd.Env == nil {
		cmd.Env = os.Environ()
	}
	cmd.Env = append(cmd.Env, writerEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout = w
	p := startCmd(t, cmd)
	w.Close()
	t.Cleanup(func() { r.Close() })
	writer := &writer{p: p, in: in, out: r, enc: gob.NewEncoder(in), dec: gob.NewDecoder(r)}
	writer.must(t, task{Op: "open"})
	return writer
}

// do has the writer do something, within limit. The error says that the writer is
// gone or stuck; what the kernel said is in done.
func (w *writer) do(what task) (done, error) {
	stuck := time.AfterFunc(limit, func() {
		w.p.kill()
		w.out.Close()
	})
	defer stuck.Stop()
	var d done
	err := w.enc.Encode(what)
	if err == nil {
		err = w.dec.Decode(&d)
	}
	if err != nil {
		w.p.kill()
		w.p.endsWithin(soon)
		return d, fmt.Errorf("the writer that was told %s at %d is gone or stuck: %w; it says %q", what.Op, what.Off, err, brief(w.p.stderr.String()))
	}
	return d, nil
}

// must has the writer do something that has to succeed.
func (w *writer) must(t testing.TB, what task) done {
	t.Helper()
	d, err := w.do(what)
	if err != nil {
		t.Fatal(err)
	}
	if d.Errno != 0 {
		t.Fatalf("%s of %d bytes at %d: %v", what.Op, max(what.Len, int64(len(what.Data))), what.Off, d.Errno)
	}
	return d
}

// fails has the writer do something that has to fail, and returns how.
func (w *writer) fails(t testing.TB, what task) syscall.Errno {
	t.Helper()
	d, err := w.do(what)
	if err != nil {
		t.Fatal(err)
	}
	if d.Errno == 0 {
		t.Fatalf("%s of %d bytes at %d: got success, want an error", what.Op, max(what.Len, int64(len(what.Data))), what.Off)
	}
	return d.Errno
}

// close ends the writer, which closes the file.
func (w *writer) close(t testing.TB) {
	t.Helper()
	w.in.Close()
	if r := w.p.result(t); r.code != 0 {
		t.Fatalf("the writer: %v", r)
	}
}

// taskFile is the file in the writer's process.
type taskFile struct {
	name   string
	fd     int
	direct int    // the same file with O_DIRECT; 0 if it is not open
	mapped []byte // the whole file; nil if it is not mapped
}

// writerMain does tasks as they come on stdin, until its end.
func writerMain(args []string) int {
	fd, err := unix.Open(args[0], unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		fmt.Fprintln(os.Stderr, args[0], err)
		return 1
	}
	f := &taskFile{name: args[0], fd: fd}
	dec, enc := gob.NewDecoder(os.Stdin), gob.NewEncoder(os.Stdout)
	for {
		var what task
		switch err := dec.Decode(&what); {
		case err == io.EOF:
			return 0
		case err != nil:
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		var d done
		err := f.do(what, &d)
		for errors.Is(err, unix.EINTR) {
			// The Go runtime has interrupted the system call, to preempt us.
			d = done{}
			err = f.do(what, &d)
		}
		if err != nil && !errors.As(err, &d.Errno) {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		if err := enc.Encode(d); err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
	}
}

func (f *taskFile) do(what task, d *done) (err error) {
	fd, p := f.fd, what.Data
	if what.Op == "read" {
		p = make([]byte, what.Len)
	}
	if what.Direct {
		if f.direct == 0 {
			if f.direct, err = unix.Open(f.name, unix.O_RDWR|unix.O_DIRECT|unix.O_CLOEXEC, 0); err != nil {
				return err
			}
		}
		fd, p = f.direct, aligned(p)
	}
	switch what.Op {
	case "open": // it is
		return nil
	case "write":
		for len(p) > 0 { // a write may be short: the rest says why
			n, err := unix.Pwrite(fd, p, what.Off+d.N)
			if err != nil {
				return err
			}
			d.N, p = d.N+int64(n), p[n:]
		}
		return nil
	case "read":
		n, err := unix.Pread(fd, p, what.Off)
		d.Data = p[:max(n, 0)]
		return err
	case "punch":
		return unix.Fallocate(f.fd, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, what.Off, what.Len)
	case "zero":
		return unix.Fallocate(f.fd, unix.FALLOC_FL_ZERO_RANGE|unix.FALLOC_FL_KEEP_SIZE, what.Off, what.Len)
	case "fsync":
		return unix.Fsync(f.fd)
	case "fdatasync":
		return unix.Fdatasync(f.fd)
	case "map write", "map read", "msync":
		return f.doMapped(what, d)
	case "data", "hole": // the next, from Off on
		whence := unix.SEEK_DATA
		if what.Op == "hole" {
			whence = unix.SEEK_HOLE
		}
		d.N, err = unix.Seek(f.fd, what.Off, whence)
		return err
	case "bench":
		d.N, err = f.bench(what)
		return err
	}
	return fmt.Errorf("unknown task %q", what.Op)
}

// doMapped does what is done through a mapping of the whole file, which stays. An
// I/O error is the writer's end.
func (f *taskFile) doMapped(what task, d *done) error {
	if f.mapped == nil {
		var st unix.Stat_t
		if err := unix.Fstat(f.fd, &st); err != nil {
			return err
		}
		var err error
		if f.mapped, err = unix.Mmap(f.fd, 0, int(st.Size), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
			return err
		}
	}
	switch what.Op {
	case "map write":
		copy(f.mapped[what.Off:], what.Data)
	case "map read":
		d.Data = append(d.Data, f.mapped[what.Off:][:what.Len]...)
	case "msync":
		return unix.Msync(f.mapped, unix.MS_SYNC)
	}
	return nil
}

// bench writes Len bytes in pieces as long as Data, and takes the time in
// nanoseconds: one after the other from the start of the file, and an fsync; or, if
// Seed is set, in an order that follows from it, with an fdatasync every 64.
func (f *taskFile) bench(what task) (int64, error) {
	piece := int64(len(what.Data))
	order := make([]int, what.Len/piece)
	for i := range order {
		order[i] = i
	}
	if what.Seed != 0 {
		var st unix.Stat_t
		if err := unix.Fstat(f.fd, &st); err != nil {
			return 0, err
		}
		order = rand.New(rand.NewPCG(uint64(what.Seed), 0)).Perm(int(st.Size / piece))[:len(order)]
	}
	begin := time.Now()
	for i, n := range order {
		if _, err := unix.Pwrite(f.fd, what.Data, int64(n)*piece); err != nil {
			return 0, err
		}
		if what.Seed != 0 && i%64 == 63 {
			if err := unix.Fdatasync(f.fd); err != nil {
				return 0, err
			}
		}
	}
	err := unix.Fsync(f.fd)
	return int64(time.Since(begin)), err
}

// aligned is a copy of p that O_DIRECT accepts.
func aligned(p []byte) []byte {
	buf := make([]byte, len(p)+pageSize)
	skip := -int(uintptr(unsafe.Pointer(&buf[0]))) & (pageSize - 1)
	buf = buf[skip:][:len(p)]
	copy(buf, p)
	return buf
}

// noise is n bytes that follow from seed.
func noise(seed uint64, n int64) []byte {
	var key [32]byte
	for i := range 8 {
		key[i] = byte(seed >> (8 * i))
	}
	p := make([]byte, n)
	_, _ = rand.NewChaCha8(key).Read(p) // never fails
	return p
}
