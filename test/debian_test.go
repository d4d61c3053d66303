//go:build integration

package test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// A Debian root file system, packed by the format's own tool and served by real
// web servers, comes out as it went in.
func TestDebian(t *testing.T) {
	for server, web := range map[string]webServer{"nginx": nginx, "lighttpd": lighttpd} {
		for size, image := range map[string]func() (fixture, error){"64K": debian64K, "1M": debian1M} {
			t.Run(server+" "+size, func(t *testing.T) {
				f := need(t, image)
				url := web.start(t, filepath.Dir(f.image)) + "/" + filepath.Base(f.image)
				dir := mount(t, url)
				checkSum(t, f, dir)
				checkFiles(t, f, dir)
				checkExtract(t, f, url)
				umount(t, dir)
			})
		}
	}
}

// checkSum compares the disk as a whole.
func checkSum(t *testing.T, f fixture, dir string) {
	t.Helper()
	sum, _, _ := strings.Cut(must(t, "sha256sum", diskOf(dir)), " ")
	if sum != f.sum {
		t.Errorf("sha256 of disk.img is %s, want %s", sum, f.sum)
	}
}

// checkFiles compares every regular file of the file system on the disk, and
// the file system's own idea of its state.
func checkFiles(t *testing.T, f fixture, dir string) {
	t.Helper()
	want, err := os.ReadFile(f.files)
	if err != nil {
		t.Fatal(err)
	}
	tree := mountLoop(t, diskOf(dir))
	got := must(t, "sh", "-c", listScript, "sh", tree)
	must(t, "umount", tree)
	if got == string(want) {
		t.Logf("%d files", strings.Count(got, "\n"))
	} else {
		wantLine := strings.Split(string(want), "\n")
		for i, line := range strings.Split(got, "\n") {
			if i >= len(wantLine) || line != wantLine[i] {
				t.Errorf("files differ, first at %q", line)
				break
			}
		}
	}
	must(t, "e2fsck", "-fn", diskOf(dir))
}

// checkExtract compares what the command extract makes of the image.
func checkExtract(t *testing.T, f fixture, url string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	must(t, cloopfs, "extract", url, out)
	must(t, "cmp", f.raw, out)
	var st syscall.Stat_t
	if err := syscall.Stat(out, &st); err != nil {
		t.Fatal(err)
	}
	if st.Blocks*512 >= st.Size/2 {
		t.Errorf("extracted %d bytes take %d on disk: not sparse", st.Size, st.Blocks*512)
	}
	if err := os.Remove(out); err != nil {
		t.Fatal(err)
	}
}
