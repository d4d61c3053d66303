//go:build integration

package test

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// disc is an ISO file made by xorriso with a cloop image in it, where KNOPPIX has
// its own.
type disc struct {
	iso   string // path of the ISO file
	raw   string // path of the inner disk
	inner string // path of the inner image, as it lies on the disc too
}

// knoppix is made once.
var knoppix = sync.OnceValues(func() (d disc, err error) {
	root := filepath.Join(scratch, "knoppix")
	d = disc{root + ".iso", root + ".img", filepath.Join(root, "KNOPPIX", "KNOPPIX")}
	// Noise, so that the image is large beside what it takes to find it.
	return d, command("sh", "-e", "-c", `
		mkdir -p "$1/boot/isolinux" "$1/KNOPPIX/modules" "$1/Talking/a somewhat long name"
		echo read me >"$1/readme.txt"
		head -c 100k /dev/urandom >"$1/boot/isolinux/linux"
		for i in $(seq 100); do echo $i >"$1/KNOPPIX/modules/module$i.ko"; done
		head -c 24M /dev/urandom >"$1.img"
		create_compressed_fs -q -B 64K -L 1 "$1.img" "$1/KNOPPIX/KNOPPIX" 2>/dev/null
		xorriso -as mkisofs -quiet -r -J -iso-level 3 -V KNOPPIX -o "$1.iso" "$1"`, "sh", root)
})

func needDisc(t *testing.T) disc {
	t.Helper()
	d, err := knoppix()
	if err != nil {
		t.Fatalf("make the test disc: %v", err)
	}
	return d
}

// The image in an ISO file is mounted as if it lay beside it, at no cost worth
// mentioning.
func TestImageInISO(t *testing.T) {
	d := needDisc(t)
	for server, web := range map[string]webServer{"nginx": nginx, "lighttpd": lighttpd} {
		t.Run(server, func(t *testing.T) {
			url := web.start(t, filepath.Dir(d.iso)) + "/" + filepath.Base(d.iso)
			for _, inside := range []string{"#knoppix/Knoppix", "#/KNOPPIX/%4bNOPPIX"} {
				dir := mount(t, url+inside)
				if got := sourceOf(dir); got != url+inside {
					t.Errorf("/proc/mounts shows the source %q, want %q", got, url+inside)
				}
				must(t, "cmp", "--bytes=1M", diskOf(dir), d.raw)
				umount(t, dir)
			}
			dir := mount(t, url+"#KNOPPIX/KNOPPIX")
			got := must(t, "sh", "-c", `sha256sum <"$1"; sha256sum <"$2"`, "sh", diskOf(dir), d.raw)
			if a, b, _ := strings.Cut(strings.TrimSpace(got), "\n"); a != b {
				t.Errorf("sha256 of disk.img is %s, want %s", a, b)
			}
			umount(t, dir)
		})
	}
	t.Run("bytes", func(t *testing.T) {
		srv, url := serve(t, nil)
		if err := srv.AddFile("disk.cloop", d.iso); err != nil {
			t.Fatal(err)
		}
		dir := mount(t, url+"#KNOPPIX/KNOPPIX")
		mounting := srv.Stats()
		must(t, "cmp", diskOf(dir), d.raw)
		st, stored := srv.Stats(), sizeOf(t, d.inner)
		t.Logf("%d requests and %d bytes for mounting, %d and %d in all, for an image of %d",
			mounting.Requests, mounting.Bytes, st.Requests, st.Bytes, stored)
		if most := stored + stored/100; st.Bytes > most {
			t.Errorf("%d bytes were sent, want at most %d, for an image of %d", st.Bytes, most, stored)
		}
		umount(t, dir)
	})
}

// info names the image in an ISO file, and how to mount it.
func TestInfoOfISO(t *testing.T) {
	d := needDisc(t)
	url := serveFile(t, d.iso)
	inside := url + "#KNOPPIX/KNOPPIX"

	// What it says to type works.
	out := must(t, cloopfs, "info", url)
	var typed string
	for line := range strings.Lines(out) {
		if _, command, ok := strings.Cut(line, "cloopfs mount "); ok {
			typed = "cloopfs mount " + strings.TrimSpace(command)
		}
	}
	dir := makeDir(t)
	want := fmt.Sprintf("cloopfs mount '%s' DIR", inside)
	if typed != want || !strings.Contains(out, "KNOPPIX/KNOPPIX: ") {
		t.Fatalf("info prints %q, want %q in it", out, want)
	}
	cmd := exec.Command("sh", "-c", strings.Replace(typed, "DIR", `"$1"`, 1), "sh", dir)
	cmd.Env = append(os.Environ(), "PATH="+filepath.Dir(cloopfs)+":"+os.Getenv("PATH"))
	if r := startCmd(t, cmd).result(t); r.code != 0 {
		t.Fatalf("%s: %v", typed, r)
	}
	must(t, "cmp", diskOf(dir), d.raw)
	umount(t, dir)

	type image = map[string]any
	tests := []struct {
		source string
		want   map[string]any
	}{
		{url, map[string]any{
			"source": url, "format": "raw", "header_last": false, "content": "ISO 9660",
			"image_size": float64(sizeOf(t, d.iso)), "disk_size": float64(sizeOf(t, d.iso)),
			"images": []any{image{
				"path": "KNOPPIX/KNOPPIX", "source": inside, "size": float64(sizeOf(t, d.inner)), "content": "cloop V2.0",
			}},
		}},
		{inside, map[string]any{
			"source": inside, "format": "cloop V2.0", "header_last": false, "content": "",
			"image_size": float64(sizeOf(t, d.inner)), "disk_size": float64(24 * mib),
			"block_size": float64(64 * kib), "blocks": 384.0,
		}},
	}
	for _, test := range tests {
		var got map[string]any
		if err := json.Unmarshal([]byte(must(t, cloopfs, "info", "--json", test.source)), &got); err != nil {
			t.Errorf("info --json %s: %v", test.source, err)
			continue
		}
		delete(got, "ratio") // depends on the packer
		delete(got, "codecs")
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("info --json %s (-want +got):\n%s", test.source, diff)
		}
	}
}

// manyDirectories makes an ISO file like a distribution's: a live system beside 900
// directories of packages.
func manyDirectories(t *testing.T) string {
	t.Helper()
	root := filepath.Join(t.TempDir(), "distribution")
	if err := command("sh", "-e", "-c", `
		mkdir -p "$1/live"
		head -c 200k /dev/urandom >"$1/live/filesystem.squashfs"
		for i in $(seq 900); do mkdir -p "$1/pool/main/$((i % 30))/package$i"; echo $i >"$1/pool/main/$((i % 30))/package$i/package_$i.deb"; done
		xorriso -as mkisofs -quiet -r -J -V MANY -o "$1.iso" "$1"`, "sh", root); err != nil {
		t.Fatal(err)
	}
	return root + ".iso"
}

// info costs at most four requests beyond those for finding the index, but for
// one more for each logical partition, which only the one before it locates.
func TestInfoRequests(t *testing.T) {
	const (
		head    = 1 // of a cloop image
		headEnd = 2 // of a disk: cloop's index may be at the end
		inside  = 4 // a disc's two sorts of directories, and the head
		logical = 3
	)
	d, gpt, mbr := needDisc(t), needDisk(t, gptDisk), needDisk(t, mbrDisk)
	tests := []struct {
		name, image, inside string
		most                int
		content             string
	}{
		{"file system", need(t, small).image, "", head + 4, "ext4"},
		{"GPT", gpt.image, "", head + 4, "GPT"},
		{"MBR", mbr.image, "", head + logical + 4, "MBR"},
		{"raw file system", need(t, small).raw, "", headEnd + 4, "ext4"},
		{"raw GPT", gpt.raw, "", headEnd + 4, "GPT"},
		{"raw MBR", mbr.raw, "", headEnd + logical + 4, "MBR"},
		{"ISO", d.iso, "", headEnd + 4, "ISO 9660"},
		{"ISO with many directories", manyDirectories(t), "", headEnd + 4, "live/filesystem.squashfs: "},
		{"image in ISO", d.iso, "#KNOPPIX/KNOPPIX", inside + 4, "unknown"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			srv, url := serve(t, nil)
			if err := srv.AddFile("disk.cloop", test.image); err != nil {
				t.Fatal(err)
			}
			out := must(t, cloopfs, "info", url+test.inside)
			if !strings.Contains(out, test.content) {
				t.Errorf("info prints %q, want %q in it", out, test.content)
			}
			st := srv.Stats()
			t.Logf("%d requests, %d bytes: %v", st.Requests, st.Bytes, st.Ranges)
			if st.Requests > test.most {
				t.Errorf("%d requests, want at most %d: %v", st.Requests, test.most, st.Ranges)
			}
		})
	}
}

// A file of more than 4 GiB lies in several extents of an ISO file. It is read
// right at its start, where one extent ends and the next begins, and at its end.
func TestLargeFileInISO(t *testing.T) {
	const (
		size     = 4160 * mib
		boundary = 1<<32 - 2048 // xorriso's first extent is as long as one can be
		around   = 64 * kib
	)
	dir := t.TempDir()
	root, iso := filepath.Join(dir, "root"), filepath.Join(dir, "large.iso")
	big := filepath.Join(root, "DISK", "big.img")
	// It is sparse, and so is the ISO file: most of both is zeros.
	if err := command("sh", "-e", "-c", `
		mkdir -p "$1/DISK"
		truncate --size="$4" "$2"
		mke2fs -q -t ext4 -E lazy_itable_init=1,nodiscard -O ^has_journal "$2"
		for at in "$(($5 - $6))" "$(($4 - $6))"; do
			head -c "$(($6 * 2))" /dev/urandom | dd of="$2" bs=64K iflag=fullblock oflag=seek_bytes seek="$at" conv=notrunc status=none
		done
		truncate --size="$4" "$2"
		xorriso -as mkisofs -quiet -r -J -iso-level 3 -o - "$1" 2>/dev/null |
			dd of="$3" bs=1M iflag=fullblock conv=sparse status=none`,
		"sh", root, big, iso, strconv.Itoa(size), strconv.Itoa(boundary), strconv.Itoa(around)); err != nil {
		t.Fatal(err)
	}
	lbas := must(t, "xorriso", "-indev", iso, "-find", "/DISK/big.img", "-exec", "report_lba")
	if n := strings.Count(lbas, "File data lba:"); n != 2 {
		t.Fatalf("the file has %d extents, want 2: %q", n, lbas)
	}
	url := nginx.start(t, dir) + "/large.iso#DISK/big.img"
	mnt := mount(t, url)
	if got := must(t, "stat", "--format=%s", diskOf(mnt)); got != strconv.Itoa(size)+"\n" {
		t.Errorf("size is %q, want %d", got, size)
	}
	for _, off := range []int{0, boundary - around, boundary - 100, 1<<32 - 100, size - around} {
		must(t, "cmp", "--ignore-initial="+strconv.Itoa(off), "--bytes="+strconv.Itoa(2*around), diskOf(mnt), big)
	}
	if got := must(t, "blkid", "--probe", "--match-tag=TYPE", "--output=value", diskOf(mnt)); got != "ext4\n" {
		t.Errorf("blkid says %q, want ext4", got)
	}
	umount(t, mnt)
}
