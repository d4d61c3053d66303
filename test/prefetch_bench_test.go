//go:build integration

package test

import (
	"fmt"
	"os"
	"slices"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// BenchmarkPrefetch compares cloopfs prefetch with curl, which fetches the whole
// file through one connection and compares nothing: in each round both, in turn,
// over a line of 50 ms, of several widths. "ratio" is the median of the rounds'
// ratios.
func BenchmarkPrefetch(b *testing.B) {
	f := need(b, debian64K)
	for _, mbit := range []int64{100, 400, 0} {
		name := fmt.Sprint(mbit, " Mbit")
		if mbit == 0 {
			name = "no limit"
		}
		b.Run(name, func(b *testing.B) {
			srv, url := serve(b, nil)
			if err := srv.AddFile("disk.cloop", f.image); err != nil {
				b.Fatal(err)
			}
			srv.Set(func(c *testserver.Config) { c.RTT, c.Rate = 50*time.Millisecond, mbit*1e6/8 })
			curl := func() time.Duration {
				return elapsed(func() { must(b, "curl", "--silent", "--show-error", "--output", "/dev/null", url) })
			}
			prefetch := func() time.Duration {
				cache, flags := newCache(b)
				defer os.RemoveAll(cache)
				return elapsed(func() { must(b, cloopfs, slices.Concat([]string{"prefetch"}, flags, []string{url})...) })
			}
			var ratios, theirs, ours []float64
			size := megabytes(b, f.image)
			for b.Loop() {
				c, p := curl(), prefetch()
				ratios = append(ratios, c.Seconds()/p.Seconds())
				theirs = append(theirs, size/c.Seconds())
				ours = append(ours, size/p.Seconds())
			}
			b.ReportMetric(median(ratios), "ratio")
			b.ReportMetric(median(theirs), "curl-MB/s")
			b.ReportMetric(median(ours), "prefetch-MB/s")
			b.ReportMetric(0, "ns/op")
		})
	}
}
