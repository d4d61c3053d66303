//go:build integration

package test

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

// Processes that read the same cold image at the same time share the work.
func TestCacheCrowd(t *testing.T) {
	const crowd = 4
	for _, l := range needLarge(t) {
		t.Run(l.name, func(t *testing.T) {
			srv, url := serve(t, l.image)
			_, flags := newCache(t, l.flags...)
			var dirs []string
			var procs []*process
			for range crowd {
				dirs = append(dirs, mount(t, url, flags...))
			}
			for _, dir := range dirs {
				procs = append(procs, start(t, "cmp", diskOf(dir), l.disk))
			}
			for _, p := range procs {
				if r := p.result(t); r.code != 0 {
					t.Errorf("%s: %v, want no difference", p.name, r)
				}
			}
			sent, size := srv.Stats().Bytes, int64(len(l.image))
			t.Logf("%d bytes sent, %.3f of the image", sent, float64(sent)/float64(size))
			if sent*10 > size*12 {
				t.Errorf("%d bytes were sent for an image of %d, want at most 1.2 times as many", sent, size)
			}
			for _, dir := range dirs {
				umount(t, dir)
			}
		})
	}
}

// The cache directory never takes 5 % more than its bound, whoever reads how much.
func TestCacheSize(t *testing.T) {
	images := makeLarge(t, filepath.Join(t.TempDir(), "disk"), 1024)
	// Blocks that are large beside what may be stored between two looks at the
	// directory.
	s := makeImage(t, mib, blocks(48, mib)...)
	disk := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(disk, s.disk, 0o644); err != nil {
		t.Fatal(err)
	}
	images = append(images, large{name: "large blocks", image: s.image, disk: disk})
	for _, l := range images {
		for _, readers := range []int{1, 4} {
			t.Run(fmt.Sprintf("%s, %d readers", l.name, readers), func(t *testing.T) {
				bound := int64(len(l.image) / 10)
				_, url := serve(t, l.image)
				cache, flags := newCache(t, l.flags...)
				log := filepath.Join(t.TempDir(), "log")
				flags = append(flags, "--cache-size", fmt.Sprint(bound), "--log-file", log)
				var dirs []string
				var procs []*process
				for range readers {
					dir := mount(t, url, flags...)
					dirs = append(dirs, dir)
					// Past the page cache, so that each time everything is asked for.
					const thrice = `for i in 1 2 3; do dd if="$1" iflag=direct bs=1M status=none | cmp - "$2" || exit 1; done`
					procs = append(procs, start(t, "sh", "-c", thrice, "sh", diskOf(dir), l.disk))
				}
				most, looks := int64(0), 0
				for _, p := range procs {
					for ; p.running(); looks++ {
						most = max(most, usage(cache))
						time.Sleep(time.Millisecond)
					}
					if r := p.result(t); r.code != 0 {
						t.Errorf("%s: %v, want no difference", p.name, r)
					}
				}
				most = max(most, usage(cache))
				t.Logf("at most %.3f of the bound in %d looks", float64(most)/float64(bound), looks)
				if most*100 > bound*105 {
					t.Errorf("the cache took %d bytes, want at most 5 %% more than %d", most, bound)
				}
				if most*8 < bound {
					t.Errorf("the cache took %d bytes, want it to use its %d", most, bound)
				}
				// There is always something to throw away in place of something new.
				if text, err := os.ReadFile(log); err != nil || strings.Contains(string(text), "level=WARN") {
					t.Errorf("the log is %q, %v; want no warning", text, err)
				}
				for _, dir := range dirs {
					umount(t, dir)
				}
			})
		}
	}
}

// usage is what du says of a directory, but quicker: the bytes of the disk that it
// takes with all in it.
func usage(dir string) int64 {
	total := int64(0)
	_ = filepath.WalkDir(dir, func(path string, _ fs.DirEntry, err error) error {
		if err == nil {
			if info, err := os.Lstat(path); err == nil { // else it is gone
				total += info.Sys().(*syscall.Stat_t).Blocks * 512
			}
		}
		return nil
	})
	return total
}
