//go:build integration

package test

import (
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"
)

// BenchmarkOverlay compares writing to a mount with --overlay with go-fuse's own
// example, which hands each write on to a file, and with QEMU's storage daemon, which
// shows a qcow2 overlay as a file by FUSE: in each round all of them, in an order that
// changes, each with files of its own that are new, on the same disk. The base is a
// local raw file. "of-loopback" and "of-qemu" are the medians of the rounds' ratios of
// speed.
func BenchmarkOverlay(b *testing.B) {
	const size = 512 * mib
	base := filepath.Join(b.TempDir(), "base.img")
	if err := os.WriteFile(base, noise(1, size), 0o644); err != nil {
		b.Fatal(err)
	}
	loopback := filepath.Join(scratch, "loopback")
	build := exec.Command("go", "build", "-o", loopback, "github.com/hanwen/go-fuse/v2/example/loopback")
	build.Dir, build.Env = "..", append(os.Environ(), "CGO_ENABLED=0")
	if r := startCmd(b, build).result(b); r.code != 0 {
		b.Fatalf("go build: %v", r)
	}
	for _, write := range []struct {
		name string
		what task
	}{
		{"sequential", task{Len: 256 * mib, Data: noise(2, mib)}},
		{"random", task{Len: 32 * mib, Data: noise(2, pageSize), Seed: 1}},
	} {
		b.Run(write.name, func(b *testing.B) {
			write.what.Op = "bench"
			subjects := []func(*testing.B, string, task) time.Duration{benchOverlay, benchLoopback, benchQEMU}
			seconds := make([][]float64, len(subjects))
			round := 0
			for b.Loop() {
				for i := range subjects {
					k := (round + i) % len(subjects)
					must(b, "sync", "--file-system", scratch)
					took := subjects[k](b, base, write.what)
					seconds[k] = append(seconds[k], took.Seconds())
				}
				round++
			}
			ratio := func(k int) float64 {
				var list []float64
				for i := range seconds[0] {
					list = append(list, seconds[k][i]/seconds[0][i])
				}
				return median(list)
			}
			mb := float64(write.what.Len) / 1e6
			b.ReportMetric(ratio(1), "of-loopback")
			b.ReportMetric(ratio(2), "of-qemu")
			b.ReportMetric(mb/median(seconds[0]), "MB/s")
			b.ReportMetric(mb/median(seconds[1]), "loopback-MB/s")
			b.ReportMetric(mb/median(seconds[2]), "qemu-MB/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// benchWrite has w do what is to be timed, and returns the time.
func benchWrite(b *testing.B, w *writer, what task) time.Duration {
	b.Helper()
	took := time.Duration(w.must(b, what).N)
	w.close(b)
	return took
}

func benchOverlay(b *testing.B, base string, what task) time.Duration {
	overlay, flags := makeOverlay(b, "--format", "raw")
	defer os.RemoveAll(overlay)
	dir := mount(b, base, flags...)
	defer umount(b, dir)
	return benchWrite(b, openWriter(b, diskOf(dir)), what)
}

// benchLoopback runs all as a user without rights: the superuser's file is given to
// the kernel, which then writes to it without asking the process (passthrough).
func benchLoopback(b *testing.B, base string, what task) time.Duration {
	dir := userDir(b)
	files := filepath.Join(filepath.Dir(dir), "files")
	if err := os.Mkdir(files, 0o755); err != nil {
		b.Fatal(err)
	}
	defer os.RemoveAll(files)
	file := filepath.Join(files, "disk.img")
	must(b, "truncate", "--reference="+base, file)
	for _, path := range []string{files, file} {
		if err := os.Chown(path, nobody, nobody); err != nil {
			b.Fatal(err)
		}
	}
	p := startCmd(b, asNobody(filepath.Join(scratch, "loopback"), "-q", dir, files))
	waitFor(b, "mounted", func() bool { return mounted(dir) })
	defer func() {
		must(b, "umount", dir)
		if r := p.result(b); r.code != 0 {
			b.Fatalf("loopback: %v", r)
		}
	}()
	// A user may not go where go test has put this program.
	exe, err := os.Executable()
	if err != nil {
		b.Fatal(err)
	}
	mine := filepath.Join(scratch, "writer")
	must(b, "install", "-m", "755", exe, mine)
	return benchWrite(b, openWriterAs(b, asNobody(mine, diskOf(dir))), what)
}

func benchQEMU(b *testing.B, base string, what task) time.Duration {
	parent := b.TempDir() // no commas in it
	qcow2, file := filepath.Join(parent, "disk.qcow2"), filepath.Join(parent, "disk.img")
	defer os.Remove(qcow2)
	must(b, "qemu-img", "create", "-q", "-f", "qcow2", "-F", "raw", "-b", base, qcow2)
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	p := start(b, "qemu-storage-daemon",
		"--blockdev", "driver=file,node-name=file,filename="+qcow2,
		"--blockdev", "driver=qcow2,node-name=disk,file=file",
		"--export", "type=fuse,id=export,node-name=disk,writable=on,mountpoint="+file)
	waitFor(b, "mounted", func() bool {
		return p.running() && slices.Contains(mountpoints("fuse"), file)
	})
	defer func() {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // its result tells
		if r := p.result(b); r.code != 0 {
			b.Fatalf("qemu-storage-daemon: %v", r)
		}
	}()
	return benchWrite(b, openWriter(b, file), what)
}
