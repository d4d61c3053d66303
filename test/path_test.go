//go:build integration

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/fetch"
	"github.com/cloopfs/cloopfs/localfile"
)

// What is at hand is read without garbage for each block. (Not a unit test: those run with
// the race detector, under which pools forget on purpose.)
func TestReadingMakesNoGarbage(t *testing.T) {
	for _, c := range []struct {
		name  string
		image func() (fixture, error)
		size  int64 // of a read
		most  float64
	}{
		{"64K", debian64K, pageSize, 1}, // the entry of a block in the list of those in memory
		{"64K", debian64K, 64 * kib, 0},
		{"64K", debian64K, 128 * kib, 6}, // help for who reads several blocks
		{"64K", debian64K, mib, 6},
		{"1M", debian1M, pageSize, 1},
		{"1M", debian1M, 128 * kib, 1},
		{"1M", debian1M, mib, 0},
	} {
		f, err := localfile.Open(need(t, c.image).image)
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		ix, err := cloop.Open(t.Context(), f)
		if err != nil {
			t.Fatal(err)
		}
		s := fetch.New(f, ix, fetch.Options{Store: blockio.Nearby(f)})
		defer s.Close()
		im := cloop.NewImage(ix, s, cache.NewMemory(64*mib, ix.BlockSize()))
		im.DecodeAhead(8)
		p, off := make([]byte, c.size), int64(0)
		n := testing.AllocsPerRun(int(200*mib/c.size), func() {
			if _, err := im.ReadAtContext(t.Context(), p, off); err != nil {
				t.Fatal(err)
			}
			off += c.size
		})
		if n > c.most {
			t.Errorf("%s: a read of %d bytes allocates %v times, want at most %v", c.name, c.size, n, c.most)
		}
	}
}

// A disk that is much larger than memory does not fill it.
func TestMemoryOfLargeDisk(t *testing.T) {
	const most = 160 * mib // of which decoded blocks are 64
	f := need(t, debian64K)
	dir := t.TempDir()
	disk, image := filepath.Join(dir, "disk"), filepath.Join(dir, "image")
	size := envNumber(t, "CLOOPFS_TEST_LARGE_DISK", 4)
	must(t, "truncate", fmt.Sprintf("--size=%dG", size), disk)
	for _, gib := range []int{0, size / 2, size - 1} { // 300 MB of a real file system, three times
		must(t, "dd", "if="+f.raw, "of="+disk, "bs=1M", "count=300", fmt.Sprint("seek=", gib*1024), "conv=notrunc", "status=none")
	}
	must(t, cloopfs, "create", "--level", "1", "--block-size", "1MiB", disk, image)
	_, cached := newCache(t)
	for name, source := range map[string]string{"local": image, "remote": serveFile(t, image)} {
		t.Run(name, func(t *testing.T) {
			dir := mount(t, source, append(cached, "--memory", "64MiB")...)
			must(t, "dd", "if="+diskOf(dir), "of="+os.DevNull, "bs=1M", "status=none")
			if peak := peakMemory(t, daemon(t, dir)); peak > most {
				t.Errorf("the process has had %d MiB of memory, want at most %d", peak/mib, most/mib)
			} else {
				t.Logf("%d MiB", peak/mib)
			}
			umount(t, dir)
		})
	}
}

// peakMemory is the most memory that a process has had, in bytes.
func peakMemory(t *testing.T, pid int) int64 {
	t.Helper()
	status, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	var kb int64
	_, peak, _ := strings.Cut(string(status), "VmHWM:")
	if _, err := fmt.Sscan(peak, &kb); err != nil {
		t.Fatalf("%v in %q", err, status)
	}
	return kb * kib
}
