//go:build integration

package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
)

// noise is n bytes in which no page is like another, and none is all zeros.
func noise(n int) []byte {
	p := make([]byte, n)
	_, _ = rand.NewChaCha8([32]byte{3}).Read(p) // never fails
	return p
}

// fill overwrites n bytes at off as xfs_io's pwrite -S 0x41 does.
func fill(p []byte, off, n int) { copy(p[off:], bytes.Repeat([]byte{0x41}, n)) }

// What is written is there for every reader at once, however it is written.
func TestKernelWrites(t *testing.T) {
	const size = 5<<20 + 1536 // the end lies within a page
	for _, c := range []struct {
		name   string
		script string // $1 is disk.img
		off, n int    // what becomes 0x41
	}{
		{"a byte", `xfs_io -c "pwrite -S 0x41 5000 1" "$1"`, 5000, 1},
		{"across pages", `xfs_io -c "pwrite -S 0x41 4000 10000" "$1"`, 4000, 10000},
		{"in small steps", `xfs_io -c "pwrite -S 0x41 -b 700 100 50000" "$1"`, 100, 50000},
		{"large", `xfs_io -c "pwrite -S 0x41 -b 4m 4096 4m" "$1"`, 4096, 4 << 20},
		{"the last bytes", fmt.Sprintf(`xfs_io -c "pwrite -S 0x41 %d 1000" "$1"`, size-1000), size - 1000, 1000},
		{"appended beyond the end, in part", fmt.Sprintf(`xfs_io -c "pwrite -S 0x41 %d 9000" "$1" || true`, size-1000), size - 1000, 1000},
		{"direct", `xfs_io -d -c "pwrite -S 0x41 -b 64k 8192 128k" "$1"`, 8192, 128 << 10},
		{"direct sectors", `xfs_io -d -c "pwrite -S 0x41 -b 512 1024 1536" "$1"`, 1024, 1536},
		{"direct, large", `xfs_io -d -c "pwrite -S 0x41 -b 4m 0 4m" "$1"`, 0, 4 << 20},
		{"synchronous", `xfs_io -s -c "pwrite -S 0x41 100 100" "$1"`, 100, 100},
		{"mapped, msync", `xfs_io -c "mmap -rw 8192 16384" -c "mwrite -S 0x41 8200 5000" -c "msync -s" "$1"`, 8200, 5000},
		{"mapped, munmap", `xfs_io -c "mmap -rw 8192 16384" -c "mwrite -S 0x41 8200 5000" -c munmap "$1"`, 8200, 5000},
		{"mapped, fsync", `xfs_io -c "mmap -rw 8192 16384" -c "mwrite -S 0x41 8200 5000" -c fsync "$1"`, 8200, 5000},
		{"mapped, fdatasync", `xfs_io -c "mmap -rw 8192 16384" -c "mwrite -S 0x41 8200 5000" -c fdatasync "$1"`, 8200, 5000},
		{"mapped, the last page", fmt.Sprintf(`xfs_io -c "mmap -rw %d 1536" -c "mwrite -S 0x41 %[1]d 1536" -c "msync -s" "$1"`, size-1536), size - 1536, 1536},
		{"dd", `printf AAAA | dd of="$1" bs=1 seek=70000 conv=notrunc,fsync status=none`, 70000, 4},
	} {
		for _, cached := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, cached %v", c.name, cached), func(t *testing.T) {
				want := noise(size)
				dev := blockiotest.NewDevice(bytes.Clone(want))
				file, _ := mountDevice(t, dev, Options{})
				if cached {
					must(t, `cat "$1" > /dev/null`, file)
				}
				must(t, c.script, file)
				fill(want, c.off, c.n)
				checkHolds(t, file, dev, want)
				if got := must(t, `dd if="$1" iflag=direct bs=1M status=none`, file); firstDifference([]byte(got), want) >= 0 {
					t.Error("O_DIRECT reads other bytes")
				}
			})
		}
	}
}

// Beyond the end there is no space, and nothing changes the size.
func TestKernelEnd(t *testing.T) {
	const size = 1<<20 + 512
	want := noise(size)
	dev := blockiotest.NewDevice(bytes.Clone(want))
	file, _ := mountDevice(t, dev, Options{})
	for _, flag := range []string{"", "-d "} {
		refused(t, "No space left on device", fmt.Sprintf(`xfs_io %s-c "pwrite -S 0x41 %d 512" "$1"`, flag, size), file)
		refused(t, "No space left on device", fmt.Sprintf(`xfs_io %s-c "pwrite -S 0x41 -b 1m %d 1m" "$1"`, flag, size+1<<20), file)
	}
	refused(t, "No space left on device", `echo more | dd of="$1" oflag=append conv=notrunc`, file)
	// A disk that is too large fills what there is.
	refused(t, "No space left on device", `dd if=/dev/zero of="$1" bs=64K conv=notrunc`, file)
	clear(want)
	checkHolds(t, file, dev, want)
	if got := must(t, `stat -c "%s %b" "$1"`, file); got != fmt.Sprintf("%d %d\n", size, size/512) {
		t.Errorf("size and blocks are %q", got)
	}
}

// What would make another file of it is refused; what dd, cp and touch do first is not.
func TestKernelAttributes(t *testing.T) {
	const size = 1 << 20
	want := noise(size)
	dev := blockiotest.NewDevice(bytes.Clone(want))
	file, _ := mountDevice(t, dev, Options{ModTime: time.Unix(1000, 0)})
	const no = "Operation not permitted"
	for _, script := range []string{
		`truncate -s 0 "$1"`,
		`truncate -s +1 "$1"`,
		`xfs_io -c "truncate 5" "$1"`,
		`: > "$1"`,
		`cp /etc/passwd "$1"`,
		`dd if=/dev/zero of="$1" count=1`,
		`chmod 666 "$1"`,
		`chown 1 "$1"`,
		`chgrp 1 "$1"`,
		`rm -f "$1"`,
		`mv "$1" "$1.old"`,
		`echo > "$1.new"`,
		`mkdir "$1.new"`,
		`mkfifo "$1.new"`,
		`ln "$1" "$1.new"`,
		`ln -s x "$1.new"`,
		`chmod 777 "${1%/*}"`,
	} {
		refused(t, no, script, file)
	}
	for _, script := range []string{
		`truncate -s 1M "$1"`,
		`xfs_io -c "truncate 1m" "$1"`,
		`dd if=/dev/null of="$1" bs=1M seek=1 status=none`,
		`touch "$1"`,
		`touch -d 2001-01-01 "$1"`,
		`touch "${1%/*}"`,
		`sync "$1"`,
		`sync "${1%/*}"`,
		`sync -f "$1"`,
		`test -w "$1"`,
	} {
		must(t, script, file)
	}
	if got := must(t, `stat -c "%a %Y %i" "$1"; stat -c "%a %Y %i" "${1%/*}"; ls "${1%/*}"`, file); got != "600 1000 2\n700 1000 1\ndisk.img\n" {
		t.Errorf("attributes are %q", got)
	}
	checkHolds(t, file, dev, want)
	// cp onto it works where it need not be truncated.
	must(t, `head -c 1M /dev/zero > "$2" && dd if="$2" of="$1" conv=notrunc bs=1M status=none`, file, t.TempDir()+"/zeros")
	checkHolds(t, file, dev, make([]byte, size))
}

// stat shows the time of the last write at once, and what was read stays cached.
func TestKernelModTime(t *testing.T) {
	const size = 1 << 20
	dev := blockiotest.NewDevice(noise(size))
	var reads atomic.Int64
	dev.OnRead = func(context.Context, blockio.Extent) error { reads.Add(1); return nil }
	file, _ := mountDevice(t, dev, Options{ModTime: time.Unix(1000, 0)})
	must(t, `cat "$1" > /dev/null`, file)
	before := reads.Load()
	last := "1000.000000000"
	for _, script := range []string{
		`xfs_io -c "pwrite 100 100" "$1"`,
		`xfs_io -c "pwrite 4096 8192" "$1"`,
		`xfs_io -c "fpunch 40960 4096" "$1"`,
		`xfs_io -c "mmap -rw 8192 4096" -c "mwrite 8192 10" -c "msync -s" "$1"`,
	} {
		must(t, script, file)
		now := strings.TrimSpace(must(t, `stat -c %.9Y "$1"`, file))
		if changed := strings.TrimSpace(must(t, `stat -c %.9Z "$1"`, file)); changed != now {
			t.Errorf("%s: mtime %s, ctime %s", script, now, changed)
		}
		if len(now) == len(last) && now <= last {
			t.Errorf("%s: mtime %s follows %s", script, now, last)
		}
		last = now
	}
	must(t, `cat "$1" > /dev/null`, file)
	if n := reads.Load() - before; n > 1 { // of what was punched
		t.Errorf("%d reads of what the kernel had", n)
	}
	if got := strings.TrimSpace(must(t, `stat -c %.9Y "$1"`, file)); got != last {
		t.Errorf("mtime moved from %s to %s without a write", last, got)
	}
}

// What fails below fails in the system call that asked for it.
func TestKernelErrors(t *testing.T) {
	const size = 1 << 20
	data := noise(size)
	dev := blockiotest.NewDevice(bytes.Clone(data))
	var failure atomic.Value
	failure.Store(syscall.Errno(0))
	fail := func() error {
		if e := failure.Load().(syscall.Errno); e != 0 {
			return fmt.Errorf("write to data: %w", e)
		}
		return nil
	}
	dev.OnWrite = func(context.Context, blockio.Extent) error { return fail() }
	dev.OnZero = dev.OnWrite
	dev.OnFlush = func(context.Context) error { return fail() }
	file, server := mountDevice(t, dev, Options{})
	must(t, `cat "$1" > /dev/null`, file)
	for e, why := range map[syscall.Errno]string{
		syscall.EIO: "Input/output error", syscall.ENOSPC: "No space left on device",
		syscall.EDQUOT: "Disk quota exceeded", syscall.ENOSYS: "Input/output error",
	} {
		failure.Store(e)
		refused(t, why, `xfs_io -c "pwrite 100 5000" "$1"`, file)
		refused(t, why, `xfs_io -d -c "pwrite 4096 4096" "$1"`, file)
		refused(t, why, `xfs_io -c fsync "$1"`, file)
		refused(t, why, `xfs_io -c fdatasync "$1"`, file)
		refused(t, why, `sync "$1"`, file)
		refused(t, why, `xfs_io -s -c "pwrite 100 1" "$1"`, file)
		refused(t, why, `xfs_io -c "fpunch 0 4096" "$1"`, file)
		if e == syscall.EIO || e == syscall.ENOSPC { // what is mapped knows no others
			refused(t, why, `xfs_io -c "mmap -rw 8192 4096" -c "mwrite 8192 10" -c "msync -s" "$1"`, file)
		}
		// Nobody reads what was not written, and the mount goes on.
		failure.Store(syscall.Errno(0))
		must(t, `sync "$1" || sync "$1"`, file)
		got := []byte(must(t, `dd if="$1" bs=4096 status=none`, file))
		if i := firstDifference(got[:8192], data[:8192]); i >= 0 {
			t.Errorf("%v: byte %d reads as if it had been written", e, i)
		}
		must(t, `xfs_io -c "pwrite -S 0x41 100 5000" -c fsync "$1"`, file)
		must(t, `xfs_io -c "fzero -k 8192 4096" "$1"`, file)
		fill(data, 100, 5000)
	}
	if st := server.Stats(); st.WriteErrors < 20 || st.Writes == 0 || st.Flushes == 0 || st.LastError == "" {
		t.Errorf("counted %+v", st)
	}
}

func TestKernelAllocate(t *testing.T) {
	const size = 1 << 20
	want := noise(size)
	dev := blockiotest.NewDevice(bytes.Clone(want))
	file, _ := mountDevice(t, dev, Options{})
	must(t, `cat "$1" > /dev/null`, file)
	for _, c := range []struct {
		script string
		off, n int
	}{
		{`fallocate --offset 0 --length 1M "$1"`, 0, 0},
		{`fallocate --keep-size --offset 4096 --length 8192 "$1"`, 0, 0},
		{`fallocate --punch-hole --offset 4096 --length 8192 "$1"`, 4096, 8192},
		{`fallocate --punch-hole --offset 20001 --length 30000 "$1"`, 20001, 30000},
		{`fallocate --zero-range --keep-size --offset 70000 --length 5000 "$1"`, 70000, 5000},
		{`fallocate --punch-hole --offset 1000000 --length 48576 "$1"`, 1000000, 48576},
	} {
		must(t, c.script, file)
		clear(want[c.off : c.off+c.n])
		checkHolds(t, file, dev, want)
	}
	refused(t, "File too large", `fallocate --offset 1M --length 1 "$1"`, file)
	refused(t, "File too large", `fallocate --keep-size --offset 1M --length 1 "$1"`, file)
	refused(t, "File too large", `fallocate --punch-hole --offset 1000000 --length 48577 "$1"`, file)
	refused(t, "not supported", `fallocate --collapse-range --offset 4096 --length 4096 "$1"`, file)
	refused(t, "not supported", `fallocate --insert-range --offset 4096 --length 4096 "$1"`, file)
	checkHolds(t, file, dev, want)
}

// lseek(2) finds the holes, so that qemu-img does not read them.
func TestKernelSeek(t *testing.T) {
	const size = 16 << 20
	dev := blockiotest.NewDevice(make([]byte, size))
	var reads atomic.Int64
	dev.OnRead = func(_ context.Context, e blockio.Extent) error { reads.Add(e.Len); return nil }
	file, _ := mountDevice(t, dev, Options{})
	must(t, `xfs_io -c "pwrite 1m 8k" -c "pwrite 5m 4k" "$1"`, file)
	got := strings.Fields(must(t, `xfs_io -c "seek -a -r 0" "$1"`, file))
	want := strings.Fields(`Whence Result HOLE 0 DATA 1048576 HOLE 1056768 DATA 5242880 HOLE 5246976`)
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("seek says %q, want %q", got, want)
	}
	must(t, `fallocate --punch-hole --offset 5M --length 4K "$1"`, file)
	refused(t, "EOF", `xfs_io -c "seek -d 2m" "$1" | grep EOF; exit 1`, file)
	reads.Store(0)
	must(t, `qemu-img convert -f raw -O raw "$1" "$2" && test "$(du -k "$2" | cut -f1)" -le 64`, file, t.TempDir()+"/copy")
	if n := reads.Load(); n > 1<<20 {
		t.Errorf("qemu-img read %d bytes of holes", n)
	}
}

// A disk that is a device, too, can't be written to unless that was asked for; its
// holes are found all the same.
func TestKernelReadOnly(t *testing.T) {
	want := make([]byte, 1<<20)
	fill(want, 65536, 4096)
	dev := blockiotest.NewDevice(bytes.Clone(want))
	file, _ := mountBy(t, func(dir string) (*Server, error) { return Mount(dir, dev, Options{Source: "test"}) })
	for _, script := range []string{
		`echo x >> "$1"`, `touch "$1"`, `chmod 600 "$1"`, `rm -f "$1"`, `mkdir "$1.d"`, `fallocate --punch-hole --length 4096 "$1"`,
	} {
		refused(t, "Read-only file system", script, file)
	}
	got := strings.Fields(must(t, `xfs_io -r -c "seek -a -r 0" "$1" && stat -c %a "$1"`, file))
	if want := strings.Fields(`Whence Result HOLE 0 DATA 65536 HOLE 69632 400`); fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("seek and mode are %q, want %q", got, want)
	}
	checkHolds(t, file, dev, want)
}

// The kernel sends writes in pieces as large as it can.
func TestKernelWriteSize(t *testing.T) {
	const size = 32 << 20
	dev := blockiotest.NewDevice(make([]byte, size))
	var mu sync.Mutex
	var largest, count int64
	dev.OnWrite = func(_ context.Context, e blockio.Extent) error {
		mu.Lock()
		defer mu.Unlock()
		largest = max(largest, e.Len)
		count++
		return nil
	}
	file, _ := mountDevice(t, dev, Options{})
	for _, flags := range []string{"conv=notrunc", "conv=notrunc oflag=direct"} {
		must(t, `head -c 32M /dev/zero | dd of="$1" bs=4M iflag=fullblock status=none `+flags, file)
		mu.Lock()
		if largest != maxRequest || count > 2*size/maxRequest {
			t.Errorf("%s: %d writes, the largest %d bytes", flags, count, largest)
		}
		largest, count = 0, 0
		mu.Unlock()
	}
}

// Writers that wait for what does not come leave the others alone, and can be killed.
func TestKernelStuckWriters(t *testing.T) {
	const size = 1 << 20
	dev := blockiotest.NewDevice(noise(size))
	var stuck atomic.Int64
	dev.OnWrite = func(ctx context.Context, e blockio.Extent) error {
		if e.Off < size/2 {
			stuck.Add(1)
			<-ctx.Done()
			return ctx.Err()
		}
		return nil
	}
	file, server := mountDevice(t, dev, Options{Timeout: time.Hour})
	must(t, `dd if="$1" of=/dev/null bs=4096 count=1 status=none`, file)
	var writers []*exec.Cmd
	t.Cleanup(func() {
		for _, w := range writers {
			_ = w.Process.Kill()
		}
		for _, w := range writers {
			_ = w.Wait()
		}
	})
	for i := range 64 {
		cmd := exec.Command("dd", "if=/dev/zero", "of="+file, "bs=4096", "count=1", "conv=notrunc", fmt.Sprintf("seek=%d", i))
		if i%2 == 0 {
			cmd.Args = append(cmd.Args, "oflag=direct")
		}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		writers = append(writers, cmd)
	}
	// The kernel lets them write one after the other.
	soon(t, "a writer is stuck", func() bool { return stuck.Load() > 0 })
	start := time.Now()
	must(t, `dd if="$1" of=/dev/null bs=4096 skip=200 count=1 status=none && stat "$1"`, file)
	must(t, `dd if="$1" of=/dev/null bs=4096 skip=201 iflag=direct count=1 status=none`, file)
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("reads took %v beside stuck writers", d)
	}
	if st := server.Stats(); st.Waiting < 1 {
		t.Errorf("%d are waiting", st.Waiting)
	}
	for _, w := range writers {
		_ = w.Process.Kill()
	}
	start = time.Now()
	for _, w := range writers {
		_ = w.Wait()
	}
	writers = nil
	if d := time.Since(start); d > 5*time.Second {
		t.Errorf("killed writers lived for %v", d)
	}
	must(t, `xfs_io -c "pwrite 600k 4k" -c fsync "$1"`, file)
}

// A signal that a reader or writer has a handler for does not end what he waits for;
// one that kills him does, also after another.
func TestKernelInterrupted(t *testing.T) {
	for name, args := range map[string][]string{
		"write":        {"if=/dev/zero", "conv=notrunc"},
		"direct write": {"if=/dev/zero", "conv=notrunc", "oflag=direct"},
		"direct read":  {"of=/dev/null", "iflag=direct"},
	} {
		for _, kill := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, killed %v", name, kill), func(t *testing.T) {
				dev := blockiotest.NewDevice(noise(1 << 20))
				var asked, ended atomic.Int64
				release := make(chan struct{})
				wait := func(ctx context.Context, _ blockio.Extent) error {
					asked.Add(1)
					select {
					case <-release:
						return nil
					case <-ctx.Done():
						ended.Add(1)
						return ctx.Err()
					}
				}
				dev.OnWrite, dev.OnRead = wait, wait
				file, _ := mountDevice(t, dev, Options{Timeout: time.Hour})
				side := "of="
				if name == "direct read" {
					side = "if="
				}
				cmd := exec.Command("dd", append(args, side+file, "bs=4096", "count=1", "status=none")...)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { _ = cmd.Process.Kill() })
				soon(t, "it waits", func() bool { return asked.Load() == 1 })
				for range 3 {
					if err := cmd.Process.Signal(syscall.SIGUSR1); err != nil { // dd tells how far it is
						t.Fatal(err)
					}
					time.Sleep(2 * killTime)
				}
				if asked.Load() != 1 || ended.Load() != 0 {
					t.Errorf("a signal has ended it: it was asked for %d times", asked.Load())
				}
				if kill {
					if err := cmd.Process.Kill(); err != nil {
						t.Fatal(err)
					}
					soon(t, "it has ended", func() bool { return ended.Load() == 1 })
					if err := cmd.Wait(); err == nil {
						t.Error("it was not killed")
					}
					return
				}
				close(release)
				if err := cmd.Wait(); err != nil || asked.Load() != 1 {
					t.Errorf("%v, asked for %d times", err, asked.Load())
				}
			})
		}
	}
}

// Signals that dump the core of whom they kill are no SIGKILL to the kernel while he waits.
func TestKernelCoreDumped(t *testing.T) {
	for _, signal := range []syscall.Signal{
		unix.SIGQUIT, unix.SIGILL, unix.SIGTRAP, unix.SIGABRT, unix.SIGBUS, unix.SIGFPE, unix.SIGSEGV, unix.SIGXCPU, unix.SIGXFSZ, unix.SIGSYS,
	} {
		for _, blocked := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v, blocked %v", signal, blocked), func(t *testing.T) {
				dev := blockiotest.NewDevice(noise(1 << 20))
				var asked, ended atomic.Int64
				dev.OnRead = func(ctx context.Context, _ blockio.Extent) error {
					asked.Add(1)
					<-ctx.Done()
					ended.Add(1)
					return ctx.Err()
				}
				file, _ := mountDevice(t, dev, Options{})
				script := `ulimit -c 0; exec env %s dd if="$1" of=/dev/null iflag=direct bs=4096 count=1 status=none`
				option := ""
				if blocked {
					option = fmt.Sprintf("--block-signal=%d", signal)
				}
				cmd := exec.Command("sh", "-c", fmt.Sprintf(script, option), "sh", file)
				if err := cmd.Start(); err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() {
					_ = cmd.Process.Kill()
					_ = cmd.Wait()
				})
				soon(t, "it waits", func() bool { return asked.Load() == 1 })
				// The second has dd tell how far it is.
				if err := errors.Join(cmd.Process.Signal(signal), cmd.Process.Signal(syscall.SIGUSR1)); err != nil {
					t.Fatal(err)
				}
				if blocked {
					time.Sleep(2 * killTime)
					if ended.Load() != 0 {
						t.Error("a signal that is blocked has ended it")
					}
					return
				}
				soon(t, "it has ended", func() bool { return ended.Load() == 1 })
				if err := cmd.Wait(); !cmd.ProcessState.Sys().(syscall.WaitStatus).Signaled() {
					t.Errorf("it was not killed: %v", err)
				}
			})
		}
	}
}

// When the connection is closed nobody waits any more, whether or not a signal came
// before, and the server ends, although the reader lives on.
func TestKernelAborted(t *testing.T) {
	for _, signal := range []bool{false, true} {
		t.Run(fmt.Sprintf("a signal before %v", signal), func(t *testing.T) {
			dev := blockiotest.NewDevice(noise(1 << 20))
			asked, ended := make(chan bool, 1), make(chan bool, 1)
			dev.OnRead = func(ctx context.Context, _ blockio.Extent) error {
				asked <- true
				<-ctx.Done()
				ended <- true
				return ctx.Err()
			}
			file, server := mountDevice(t, dev, Options{Timeout: time.Hour})
			thread, read := make(chan int, 1), make(chan error, 1)
			go func() {
				runtime.LockOSThread() // and ends with this thread
				thread <- unix.Gettid()
				fd, err := unix.Open(file, unix.O_RDONLY|unix.O_DIRECT, 0)
				if err == nil {
					_, err = unix.Pread(fd, make([]byte, pageSize), 0)
					_ = unix.Close(fd)
				}
				read <- err
			}()
			<-asked
			if signal {
				if err := unix.Tgkill(os.Getpid(), <-thread, unix.SIGURG); err != nil {
					t.Fatal(err)
				}
				time.Sleep(2 * killTime)
			}
			if err := unix.Unmount(filepath.Dir(file), unix.MNT_FORCE); err != unix.EBUSY {
				t.Fatalf("a forced unmount: %v, want that it is busy", err)
			}
			<-ended
			if err := <-read; err != unix.ECONNABORTED {
				t.Errorf("the reader: %v, want that the connection was aborted", err)
			}
			server.Wait() // it is not unmounted yet
		})
	}
}

// Neither do pages of a mapping that the kernel can't get rid of.
func TestKernelStuckWriteback(t *testing.T) {
	const size = 1 << 20
	dev := blockiotest.NewDevice(noise(size))
	var stuck atomic.Int64
	release := make(chan struct{})
	dev.OnWrite = func(context.Context, blockio.Extent) error {
		stuck.Add(1)
		<-release
		return nil
	}
	file, _ := mountDevice(t, dev, Options{})
	t.Cleanup(sync.OnceFunc(func() { close(release) }))
	args := []string{"-c", "mmap -rw 0 512k"}
	for i := range 64 {
		args = append(args, "-c", fmt.Sprintf("mwrite -S 0x41 %d 10", i*2*pageSize))
	}
	writer := exec.Command("xfs_io", append(args, "-c", "msync -s", file)...)
	if err := writer.Start(); err != nil {
		t.Fatal(err)
	}
	soon(t, "64 writes are stuck", func() bool { return stuck.Load() == 64 })
	start := time.Now()
	must(t, `dd if="$1" of=/dev/null bs=4096 skip=200 count=1 status=none && stat "$1"`, file)
	if d := time.Since(start); d > 2*time.Second {
		t.Errorf("a read took %v beside stuck writes", d)
	}
	for range 64 {
		release <- struct{}{}
	}
	if err := writer.Wait(); err != nil {
		t.Error(err)
	}
}

// A guest's way: a loop device with a file system, whose discards give room back.
func TestKernelLoopDevice(t *testing.T) {
	for _, direct := range []string{"off", "on"} {
		t.Run("direct-io "+direct, func(t *testing.T) {
			const size = 64 << 20
			dev := blockiotest.NewDevice(make([]byte, size))
			var zeroed, flushes atomic.Int64
			dev.OnZero = func(_ context.Context, e blockio.Extent) error { zeroed.Add(e.Len); return nil }
			dev.OnFlush = func(context.Context) error { flushes.Add(1); return nil }
			file, _ := mountDevice(t, dev, Options{})
			loop := strings.TrimSpace(must(t, `losetup --direct-io="$2" --find --show "$1"`, file, direct))
			dir := t.TempDir()
			t.Cleanup(func() {
				_, _ = sh(t, `umount "$1"`, dir) // if it is still mounted
				_, _ = sh(t, `losetup --detach "$1"`, loop)
			})
			must(t, `mkfs.ext4 -q "$1" && mount "$1" "$2"`, loop, dir)
			must(t, `cd "$1" && mkdir d && for i in $(seq 200); do head -c "$((i * 517))" /dev/urandom > "d/$i"; done &&
				head -c 8M /dev/urandom > big && sha256sum big d/* > sums && sync -f .`, dir)
			if flushes.Load() == 0 {
				t.Error("no flush has arrived")
			}
			zeroed.Store(0)
			must(t, `rm "$1/big" && sync -f "$1" && fstrim "$1"`, dir)
			if zeroed.Load() < 8<<20 {
				t.Errorf("%d bytes have been zeroed after fstrim", zeroed.Load())
			}
			must(t, `umount "$2" && losetup --detach "$1"`, loop, dir)
			soon(t, "the loop device is detached", func() bool {
				_, err := os.Stat("/sys/block/" + strings.TrimPrefix(loop, "/dev/") + "/loop/backing_file")
				return os.IsNotExist(err)
			})
			copied := t.TempDir() + "/disk"
			if err := os.WriteFile(copied, dev.Bytes(), 0o600); err != nil {
				t.Fatal(err)
			}
			must(t, `cmp "$1" "$2" && e2fsck -fn "$1"`, file, copied)
			must(t, `mount -o loop "$1" "$2" && cd "$2" && grep d/ sums | sha256sum --quiet --check; code=$?; cd / && umount "$2" && exit $code`, file, dir)
		})
	}
}
