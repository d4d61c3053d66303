//go:build integration

package test

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/internal/testserver"
)

// From the command to the first 4 KiB in hand on a line with a long way and TCP's
// slow start, counted in round trips: the time is compared with the next whole
// number of them.
func TestRoundTripsToTheFirstBytes(t *testing.T) {
	const rtt = 500 * time.Millisecond
	// An index of more pages than come with the header, and a first block of
	// ordinary size.
	const count = 1200
	s := makeImage(t, 64*kib, append(blocks(1, 20*kib), blocks(count-1, 0)...)...)
	var stored [][]byte
	for n := range count {
		off, size := s.stored(n)
		stored = append(stored, s.image[off:off+size])
	}

	srv, _ := serve(t, s.image)
	srv.AddBytes("last.cloop", clooptest.AssembleLast(64*kib, stored))
	srv.AddBytes("knoppix.iso", makeISO(t, map[string][]byte{"KNOPPIX/KNOPPIX": s.image, "boot/readme": []byte("hello")}))
	srv.AddRedirect("latest", srv.URL("disk.cloop"))

	tests := []struct {
		name, source string
		trips        int
	}{
		{"header first", srv.URL("disk.cloop"), 3},
		{"header last", srv.URL("last.cloop"), 4},
		{"inside an ISO", srv.URL("knoppix.iso") + "#KNOPPIX/KNOPPIX", 6},
		{"redirect", srv.URL("latest"), 4},
	}
	srv.Set(func(c *testserver.Config) { c.RTT, c.SlowStart = rtt, true })
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			srv.Reset()
			begin := time.Now()
			dir := mount(t, test.source)
			args := directRead(diskOf(dir), 0, pageSize)
			got := must(t, args[0], args[1:]...)
			took := time.Since(begin) - rtt // of connecting
			checkBytes(t, "disk", got, s.disk[:pageSize])
			umount(t, dir)

			st := srv.Stats()
			t.Logf("%d requests, %v: %d round trips and %v", st.Requests, took, took/rtt, took%rtt)
			if st.Conns != 1 || st.Requests > test.trips || took >= time.Duration(test.trips+1)*rtt {
				t.Errorf("%d requests over %d connections in %v, want %d round trips of %v at most: %v",
					st.Requests, st.Conns, took, test.trips, rtt, st.Ranges)
			}
		})
	}
}

// makeISO makes an ISO 9660 image of files.
func makeISO(t *testing.T, files map[string][]byte) []byte {
	t.Helper()
	root, image := makeDir(t), filepath.Join(makeDir(t), "image.iso")
	for name, content := range files {
		path := filepath.Join(root, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, content, 0o644); err != nil {
			t.Fatal(err)
		}
	}
	must(t, "xorriso", "-as", "mkisofs", "-quiet", "-o", image, "-r", "-J", "-iso-level", "3", root)
	content, err := os.ReadFile(image)
	if err != nil {
		t.Fatal(err)
	}
	return content
}
