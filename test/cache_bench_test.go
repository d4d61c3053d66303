//go:build integration

package test

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// BenchmarkWarmCache compares reading a disk of which everything is in the on-disk
// cache with reading the same image from a local file: in each round both, in turn,
// each through a mount of its own, with the file in the page cache and next to no
// memory for decoded blocks. "ratio" is the median of the rounds' ratios.
func BenchmarkWarmCache(b *testing.B) {
	f := need(b, debian64K)
	for _, image := range []struct{ name, path string }{{"cloop", f.image}, {"raw", f.raw}} {
		for _, read := range []struct {
			name string
			args []string // of dd
		}{
			{"buffered", []string{"bs=1M"}},
			{"direct", []string{"bs=1M", "iflag=direct"}},
		} {
			b.Run(image.name+" "+read.name, func(b *testing.B) {
				srv, url := serve(b, nil)
				if err := srv.AddFile("disk.cloop", image.path); err != nil {
					b.Fatal(err)
				}
				cache, flags := newCache(b)
				dir := makeDir(b)
				once := func(source string, file func() string, flags ...string) time.Duration {
					mountAt(b, source, dir, append(flags, "--memory", "1MiB")...)
					must(b, "cp", file(), "/dev/null") // into the page cache
					took := elapsed(func() {
						must(b, "dd", append(read.args, "if="+diskOf(dir), "of=/dev/null", "status=none")...)
					})
					umount(b, dir)
					return took
				}
				local := func() time.Duration { return once(image.path, func() string { return image.path }) }
				warm := func() time.Duration {
					return once(url, func() string { return filepath.Join(oneEntry(b, cache), "data") }, flags...)
				}
				warm() // fills the cache
				srv.Reset()
				var ratios, locals, warms []float64
				for b.Loop() {
					var l, w time.Duration
					if len(ratios)%2 == 0 {
						l, w = local(), warm()
					} else {
						w, l = warm(), local()
					}
					ratios = append(ratios, l.Seconds()/w.Seconds())
					locals = append(locals, megabytes(b, f.raw)/l.Seconds())
					warms = append(warms, megabytes(b, f.raw)/w.Seconds())
				}
				checkOpenings(b, srv, len(ratios))
				b.ReportMetric(median(ratios), "ratio")
				b.ReportMetric(median(locals), "local-MB/s")
				b.ReportMetric(median(warms), "warm-MB/s")
				b.ReportMetric(0, "ns/op")
			})
		}
	}
}

// checkOpenings checks that the server was asked for nothing but the start of the
// image, once for each mount.
func checkOpenings(b *testing.B, srv *testserver.Server, mounts int) {
	if st := srv.Stats(); st.Requests != mounts {
		b.Errorf("%d requests for %d mounts: the cache was not warm", st.Requests, mounts)
	}
}

func megabytes(b *testing.B, path string) float64 { return float64(sizeOf(b, path)) / 1e6 }

func median(list []float64) float64 {
	sorted := slices.Sorted(slices.Values(list))
	return sorted[len(sorted)/2]
}
