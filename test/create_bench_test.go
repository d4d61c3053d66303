//go:build integration

package test

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"testing"
	"time"
)

// BenchmarkCreate compares create with Debian's create_compressed_fs: a Debian root
// file system, and the part of it that is not zeros, on one core, at the same level. In each round both run,
// in turn. "cpu-ratio" is the median of the rounds' ratios of CPU time, create's
// being below; "size-ratio" is of the images.
func BenchmarkCreate(b *testing.B) {
	whole := need(b, debian64K).raw
	dense := filepath.Join(b.TempDir(), "dense")
	must(b, "dd", "if="+whole, "of="+dense, "bs=1M", "skip=24", "count=200", "status=none")
	for _, disk := range []struct{ name, path string }{{"dense", dense}, {"whole", whole}} {
		for _, level := range []int{1, 6, 9} {
			b.Run(fmt.Sprintf("%s level %d", disk.name, level), func(b *testing.B) {
				dir := b.TempDir()
				ours, theirs := filepath.Join(dir, "ours"), filepath.Join(dir, "theirs")
				create := func() time.Duration {
					return cpuTime(b, cloopfs, "create", "--force", "--level", fmt.Sprint(level), disk.path, ours)
				}
				debian := func() time.Duration {
					return cpuTime(b, "create_compressed_fs", "-q", "-t", "1", "-B", "64K", "-L", fmt.Sprint(level), disk.path, theirs)
				}
				var ratios, our, their []float64
				for b.Loop() {
					var o, d time.Duration
					if len(ratios)%2 == 0 {
						o, d = create(), debian()
					} else {
						d, o = debian(), create()
					}
					ratios = append(ratios, d.Seconds()/o.Seconds())
					our, their = append(our, o.Seconds()), append(their, d.Seconds())
				}
				b.ReportMetric(median(ratios), "cpu-ratio")
				b.ReportMetric(float64(sizeOf(b, theirs))/float64(sizeOf(b, ours)), "size-ratio")
				b.ReportMetric(median(our), "cpu-s")
				b.ReportMetric(median(their), "debian-cpu-s")
				b.ReportMetric(float64(sizeOf(b, ours)), "bytes")
				b.ReportMetric(float64(sizeOf(b, theirs)), "debian-bytes")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// cpuTime runs a command on one core and returns the CPU time it took.
func cpuTime(b *testing.B, name string, args ...string) time.Duration {
	b.Helper()
	cmd := exec.Command("taskset", append([]string{"-c", "0", name}, args...)...)
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("%v: %v\n%s", cmd.Args, err, out)
	}
	return cmd.ProcessState.UserTime() + cmd.ProcessState.SystemTime()
}
