//go:build integration

package test

import (
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"syscall"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// rival is a way to show the disk of an image in a file.
type rival struct {
	name string
	// start returns the file, and what ends it and says how much CPU time it took.
	start func(b *testing.B, f fixture) (disk string, stop func() time.Duration)
}

// mounting is cloopfs mount of the image, a local file, with some memory.
func mounting(memory string) rival {
	return rival{"cloopfs", func(b *testing.B, f fixture) (string, func() time.Duration) {
		dir := makeDir(b)
		p := start(b, cloopfs, "mount", "--foreground", "--memory", memory, f.image, dir)
		waitFor(b, "mounted", func() bool { return p.running() && mounted(dir) })
		return diskOf(dir), func() time.Duration {
			must(b, "umount", dir)
			return cpuOf(b, p)
		}
	}}
}

// bare shows the same bytes without any work: by go-fuse, from memory.
var bare = rival{"bare", func(b *testing.B, f fixture) (string, func() time.Duration) {
	dir := makeDir(b)
	p := serveBareAt(b, f.raw, dir)
	return diskOf(dir), func() time.Duration {
		must(b, "umount", dir)
		return cpuOf(b, p)
	}
}}

var qemuExport = rival{"qemu", func(b *testing.B, f fixture) (string, func() time.Duration) {
	disk := filepath.Join(b.TempDir(), "disk.img")
	if err := os.WriteFile(disk, nil, 0o600); err != nil {
		b.Fatal(err)
	}
	p := start(b, "qemu-storage-daemon",
		"--blockdev", "driver=file,node-name=image,read-only=on,filename="+f.image,
		"--blockdev", "driver=cloop,node-name=disk,file=image,read-only=on",
		"--export", "type=fuse,id=export,node-name=disk,mountpoint="+disk)
	waitFor(b, "mounted", func() bool { return p.running() && mounted(disk) })
	return disk, func() time.Duration {
		_ = p.cmd.Process.Signal(syscall.SIGTERM) // its result tells
		return cpuOf(b, p)
	}
}}

// cpuOf waits for a process, and says how much CPU time it took.
func cpuOf(b *testing.B, p *process) time.Duration {
	b.Helper()
	if r := p.result(b); r.code != 0 {
		b.Fatalf("%s: %v", p.name, r)
	}
	return p.cmd.ProcessState.UserTime() + p.cmd.ProcessState.SystemTime()
}

// inTurns has each of n subjects measured in each round, in an order that changes, and
// returns what measure has said of each.
func inTurns(b *testing.B, n int, measure func(k int) float64) [][]float64 {
	measured := make([][]float64, n)
	round := 0
	for b.Loop() {
		for i := range n {
			k := (round + i) % n
			measured[k] = append(measured[k], measure(k))
		}
		round++
	}
	return measured
}

// ratioOf is the median of the rounds' ratios.
func ratioOf(a, b []float64) float64 {
	var list []float64
	for i := range a {
		list = append(list, a[i]/b[i])
	}
	return median(list)
}

// BenchmarkSequential compares reading a whole disk through the mount, by dd with the
// kernel's read-ahead, with a FUSE server of the same bytes that has nothing to do, with
// QEMU's, and with extract to /dev/null: in each round all, in an order that changes.
// "of-qemu" is of speeds; "cpu-of-parts" is the CPU time of the mount and dd by that of the
// bare server, its dd and extract.
func BenchmarkSequential(b *testing.B) {
	for name, image := range map[string]func() (fixture, error){"64K": debian64K, "1M": debian1M} {
		b.Run(name, func(b *testing.B) {
			f := need(b, image)
			rivals := []rival{mounting("64MiB"), bare, qemuExport}
			cpu := make([][]float64, len(rivals)+1)
			spent := inTurns(b, len(cpu), func(k int) float64 {
				if k == len(rivals) {
					cmd := exec.Command(cloopfs, "extract", f.image, os.DevNull)
					p := startCmd(b, cmd)
					cpu[k] = append(cpu[k], cpuOf(b, p).Seconds())
					return cpu[k][len(cpu[k])-1]
				}
				disk, stop := rivals[k].start(b, f)
				dd := start(b, "dd", "if="+disk, "of="+os.DevNull, "bs=1M", "status=none")
				begin := time.Now()
				used := cpuOf(b, dd)
				took := dd.ended.Sub(begin)
				cpu[k] = append(cpu[k], (used + stop()).Seconds())
				return took.Seconds()
			})
			var parts []float64
			for i := range cpu[1] {
				parts = append(parts, cpu[1][i]+cpu[len(rivals)][i])
			}
			mb := megabytes(b, f.raw)
			b.ReportMetric(ratioOf(cpu[0], parts), "cpu-of-parts")
			b.ReportMetric(ratioOf(spent[2], spent[0]), "of-qemu")
			for k, r := range rivals {
				b.ReportMetric(mb/median(spent[k]), r.name+"-MB/s")
				b.ReportMetric(median(cpu[k]), r.name+"-cpu-s")
			}
			b.ReportMetric(median(cpu[len(rivals)]), "extract-cpu-s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkRandom compares pages read with O_DIRECT at random with a bare FUSE server's:
// of blocks that are in memory, "of-bare" being of throughputs, and of blocks that are not,
// "us-more" being how much longer one takes than a bare one, and "decode-us" how long
// decoding its block takes.
func BenchmarkRandom(b *testing.B) {
	f := need(b, debian64K)
	set := blocksOf(b, f.image)
	used := usedPages(b, f.raw)
	start := used[0] / int64(set.size)
	near := make([]int64, 20000) // pages of 32 MiB
	for i := range near {
		near[i] = start*int64(set.size) + rand.Int64N(32*mib/pageSize)*pageSize
	}
	var every []int64 // one page of each block of those
	for n := range int64(32 * mib / set.size) {
		every = append(every, (start+n)*int64(set.size))
	}
	for _, depth := range []int{1, 16} {
		b.Run(fmt.Sprint("memory/", depth), func(b *testing.B) {
			rivals := []rival{mounting("256MiB"), bare}
			spent := inTurns(b, len(rivals), func(k int) float64 {
				disk, stop := rivals[k].start(b, f)
				defer stop()
				readPages(b, disk, every, 1)
				return readPages(b, disk, near, depth).Seconds()
			})
			b.ReportMetric(ratioOf(spent[1], spent[0]), "of-bare")
			for k, r := range rivals {
				b.ReportMetric(float64(len(near))/median(spent[k]), r.name+"-reads/s")
			}
			b.ReportMetric(0, "ns/op")
		})
	}
	b.Run("elsewhere/1", func(b *testing.B) {
		seen := make(map[int64]bool)
		var pages []int64 // each of another block
		for _, i := range rand.Perm(len(used)) {
			if n := used[i] / int64(set.size); !seen[n] && n < int64(len(set.stored)) {
				seen[n] = true
				pages = append(pages, used[i])
			}
		}
		begin := time.Now()
		for n := range seen {
			if err := set.check(n, set.stored[n]); err != nil {
				b.Fatal(err)
			}
		}
		decode := time.Since(begin) / time.Duration(len(seen))
		rivals := []rival{mounting("1MiB"), bare}
		spent := inTurns(b, len(rivals), func(k int) float64 {
			disk, stop := rivals[k].start(b, f)
			defer stop()
			return readPages(b, disk, pages, 1).Seconds() / float64(len(pages))
		})
		var more []float64
		for i := range spent[0] {
			more = append(more, (spent[0][i]-spent[1][i])*1e6)
		}
		b.ReportMetric(median(more), "us-more")
		b.ReportMetric(float64(decode.Microseconds()), "decode-us")
		b.ReportMetric(median(spent[1])*1e6, "bare-us")
		b.ReportMetric(0, "ns/op")
	})
}

// readPages reads pages without the page cache, and says how long that took.
func readPages(b *testing.B, disk string, pages []int64, readers int) time.Duration {
	b.Helper()
	progress := func() int64 { return time.Now().Unix() }
	got, err := bulkRead(b, errand{Path: disk, Offsets: pages, Readers: readers, Direct: true}, progress, func() {})
	if err != nil {
		b.Fatal(err)
	}
	return got.Took
}

// BenchmarkExtract compares extract to a file with Debian's extract_compressed_fs, and with
// itself on one core.
func BenchmarkExtract(b *testing.B) {
	for name, image := range map[string]func() (fixture, error){"64K": debian64K, "1M": debian1M} {
		b.Run(name, func(b *testing.B) {
			f := need(b, image)
			out := filepath.Join(b.TempDir(), "out")
			subjects := [][]string{
				{cloopfs, "extract", f.image, out},
				{"extract_compressed_fs", f.image, out},
				{cloopfs, "extract", f.image, os.DevNull},
				{"taskset", "-c", "0", cloopfs, "extract", f.image, os.DevNull},
			}
			spent := inTurns(b, len(subjects), func(k int) float64 {
				_ = os.Remove(out) // of the last subject, if that made it
				return elapsed(func() { must(b, subjects[k][0], subjects[k][1:]...) }).Seconds()
			})
			mb := megabytes(b, f.raw)
			b.ReportMetric(ratioOf(spent[1], spent[0]), "of-debian")
			b.ReportMetric(ratioOf(spent[3], spent[2]), fmt.Sprintf("of-1-core-on-%d", runtime.NumCPU()))
			b.ReportMetric(mb/median(spent[0]), "MB/s")
			b.ReportMetric(mb/median(spent[1]), "debian-MB/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}

// BenchmarkWarmFiles compares reading 2,000 files, without the page cache, of an image of
// which everything is in the on-disk cache, with others who have everything on the local
// disk: the kernel's squashfs over rclone's cache, QEMU over the image, and the disk itself.
func BenchmarkWarmFiles(b *testing.B) {
	f := need(b, debian64K)
	squashfs := needSquashfs(b, f)
	work := errand{Names: wanFiles(b, f), Readers: 1}
	srv, url := serve(b, nil)
	at := site{cloop: url, local: f.raw}
	for file, path := range map[*string]string{&at.cloop: f.image, &at.squashfs: squashfs} {
		name := filepath.Base(path)
		if err := srv.AddFile(name, path); err != nil {
			b.Fatal(err)
		}
		*file = srv.URL(name)
	}
	list := []peer{
		{name: "cloopfs", start: startCloopfs("--speculate", "off")},
		{name: "squashfs-rclone", start: startKernelSquashfs},
		{name: "qemu", start: startDownload},
		local,
	}
	want := referenceSum(b, work, f)
	spent := inTurns(b, len(list), func(k int) float64 {
		s := newSession(b)
		defer s.end()
		took, err := readWarm(b, s, list[k], at, work, srv, want)
		if err != nil {
			b.Fatalf("%s: %v", list[k].name, err)
		}
		return took.Seconds()
	})
	for k, p := range list {
		b.ReportMetric(median(spent[k]), p.name+"-s")
		if k > 0 {
			b.ReportMetric(ratioOf(spent[0], spent[k]), "of-"+p.name)
		}
	}
	b.ReportMetric(0, "ns/op")
}

// readWarm has the files read twice, and the second time from the disk.
func readWarm(b *testing.B, s *session, p peer, at site, what errand, srv *testserver.Server, want uint32) (time.Duration, error) {
	v, err := p.start(s, at)
	if err == nil && v.tree == "" {
		v.tree, err = s.loop(v.disk)
		v.disk = ""
	}
	if err != nil {
		return 0, err
	}
	progress := func() int64 { return srv.Stats().Bytes }
	if _, err := what.do(b, s, v, progress); err != nil {
		return 0, err
	}
	must(b, "sync")
	if err := os.WriteFile("/proc/sys/vm/drop_caches", []byte("3"), 0); err != nil {
		return 0, err
	}
	srv.Reset()
	got, err := what.do(b, s, v, progress)
	switch n := srv.Stats().Bytes; {
	case err != nil:
		return 0, err
	case got.Sum != want:
		return 0, fmt.Errorf("has read wrong bytes")
	case n > 0:
		return 0, fmt.Errorf("was not warm: %d bytes fetched", n)
	}
	return got.Took, nil
}

// startKernelSquashfs mounts the squashfs in rclone's file by a loop device.
func startKernelSquashfs(s *session, at site) (view, error) {
	file, err := rcloneFile(s, at.squashfs)
	if err != nil {
		return view{}, err
	}
	device, err := s.attach(file)
	if err != nil {
		return view{}, err
	}
	dir, err := s.mkdir("squashfs")
	if err == nil {
		_, err = s.run("mount", "-t", "squashfs", "-o", "ro", device, dir)
		s.unmountLater(dir)
	}
	return view{tree: dir}, err
}
