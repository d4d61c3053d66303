//go:build integration

package test

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// mountSmall mounts the small image, as a test server has it.
func mountSmall(t *testing.T, flags ...string) (f fixture, dir string) {
	t.Helper()
	f = need(t, small)
	return f, mount(t, serveFile(t, f.image), flags...)
}

// What people do with files works with disk.img.
func TestReadTools(t *testing.T) {
	f, dir := mountSmall(t)
	disk := diskOf(dir)
	size := strconv.FormatInt(sizeOf(t, f.raw), 10)
	out := filepath.Join(t.TempDir(), "out")
	tests := []struct {
		name   string
		script string // $1 is disk.img, $2 a file to write, $3 the raw disk, $4 their size
	}{
		{"cmp", `cmp "$1" "$3"`},
		{"cat", `cat "$1" | cmp - "$3"`},
		{"cp", `cp "$1" "$2" && cmp "$2" "$3"`},
		{"cp --archive", `cp --archive "$1" "$2" && cmp "$2" "$3" && test "$(stat -c %y "$1")" = "$(stat -c %y "$2")"`},
		{"cp --sparse", `cp --sparse=always --reflink=auto "$1" "$2" && cmp "$2" "$3"`},
		{"tar", `tar -C "$(dirname "$1")" -cf - disk.img | tar -xOf - disk.img | cmp - "$3"`},
		{"dd conv=fsync", `dd if="$1" of="$2" bs=1M conv=fsync status=none && cmp "$2" "$3"`},
		{"dd direct", `dd if="$1" of="$2" bs=1M iflag=direct status=none && cmp "$2" "$3"`},
		{"fsync", `sync "$1"`},
		{"fdatasync", `sync --data "$1"`},
		{"syncfs", `sync --file-system "$1"`},
		{"tail", `test "$(tail -c 5000 "$1" | sha256sum)" = "$(tail -c 5000 "$3" | sha256sum)"`},
		{"beyond the end", `test -z "$(dd if="$1" bs=1 skip="$4" count=1 status=none)"`},
		{"qemu-img info", `qemu-img info "$1" | grep -q "^file format: raw" && qemu-img info "$1" | grep -q "($4 bytes)"`},
		{"qemu-img convert", `qemu-img convert -f raw -O raw "$1" "$2" && cmp "$2" "$3"`},
		{"e2fsck", `e2fsck -fn "$1"`},
		{"ls", `test "$(ls -A "$(dirname "$1")")" = disk.img`},
		{"find", `test "$(find "$(dirname "$1")" -type f)" = "$1"`},
		{"du", `test "$(du --block-size=1 "$1" | cut -f1)" = "$4"`},
		{"test -r", `test -r "$1" && test ! -w "$1"`},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			must(t, "sh", "-c", test.script, "sh", disk, out, f.raw, size)
			if err := os.RemoveAll(out); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func sizeOf(t testing.TB, path string) int64 {
	t.Helper()
	info, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Size()
}

// stat and df tell the truth, and the same on every mount.
func TestAttributes(t *testing.T) {
	f := need(t, small)
	image, err := os.ReadFile(f.image)
	if err != nil {
		t.Fatal(err)
	}
	_, url := serve(t, image) // has a date of its own
	size := sizeOf(t, f.raw)
	dir := makeDir(t)
	const format = "--format=%F inode %i links %h mode %a owner %u:%g size %s blocks %b of %B mtime %Y"
	for range 2 {
		mountAt(t, url, dir)
		want := fmt.Sprintf("regular file inode 2 links 1 mode 400 owner 0:0 size %d blocks %d of 512 mtime %d\n",
			size, size/512, lastModified.Unix())
		if got := must(t, "stat", format, diskOf(dir)); got != want {
			t.Errorf("disk.img: got %q, want %q", got, want)
		}
		want = fmt.Sprintf("directory inode 1 links 2 mode 500 owner 0:0 size 0 blocks 0 of 512 mtime %d\n", lastModified.Unix())
		if got := must(t, "stat", format, dir); got != want {
			t.Errorf("directory: got %q, want %q", got, want)
		}
		// A file system as large as the disk, and full.
		want = fmt.Sprintf("%d %d 0 100%% 2", size, size)
		df := must(t, "df", "--block-size=1", "--output=size,used,avail,pcent,itotal", dir)
		_, line, _ := strings.Cut(df, "\n")
		if got := strings.Join(strings.Fields(line), " "); got != want {
			t.Errorf("df: got %q, want %q", got, want)
		}
		umount(t, dir)
	}
}

// Nothing on the mount can be changed.
func TestReadOnly(t *testing.T) {
	_, dir := mountSmall(t)
	tests := [][]string{
		{"dd", "if=/dev/zero", "of=" + diskOf(dir), "count=1"},
		{"dd", "if=/dev/zero", "of=" + diskOf(dir), "count=1", "conv=notrunc"},
		{"touch", diskOf(dir)},
		{"touch", filepath.Join(dir, "new")},
		{"rm", "-f", diskOf(dir)},
		{"chmod", "666", diskOf(dir)},
		{"chmod", "777", dir},
		{"chown", "1:1", diskOf(dir)},
		{"truncate", "--size=0", diskOf(dir)},
		{"mv", diskOf(dir), filepath.Join(dir, "new")},
		{"ln", diskOf(dir), filepath.Join(dir, "new")},
		{"mkdir", filepath.Join(dir, "new")},
		{"fallocate", "--length=4K", diskOf(dir)},
	}
	for _, args := range tests {
		t.Run(args[0], func(t *testing.T) {
			r := run(t, args[0], args[1:]...)
			if r.code == 0 || !strings.Contains(r.stderr, "Read-only file system") {
				t.Errorf("%v: %v, want a read-only file system", args, r)
			}
		})
	}
}

// A loop device on disk.img is the disk.
func TestLoopDevice(t *testing.T) {
	f, dir := mountSmall(t)
	device := attach(t, diskOf(dir))
	want := strconv.FormatInt(sizeOf(t, f.raw), 10) + "\n"
	if got := must(t, "blockdev", "--getsize64", device); got != want {
		t.Errorf("size is %q, want %q", got, want)
	}
	if got := must(t, "blockdev", "--getro", device); got != "1\n" {
		t.Errorf("read-only is %q, want 1", got)
	}
	must(t, "cmp", device, f.raw)
	must(t, "losetup", "--detach", device)

	tree := mountLoop(t, diskOf(dir))
	files, err := os.ReadFile(f.files)
	if err != nil {
		t.Fatal(err)
	}
	if got := must(t, "sh", "-c", listScript, "sh", tree); got != string(files) {
		t.Errorf("files are %q, want %q", got, files)
	}
	must(t, "umount", tree)
	umount(t, dir)
}

// The flags about rights are those of the files, and the kernel enforces them.
func TestRights(t *testing.T) {
	tests := []struct {
		name      string
		flags     []string
		file, dir string // mode and owner
		nobody    string // what a user without rights gets to hear; "" means the data
	}{
		{"default", nil, "400 0:0", "500 0:0", "Permission denied"},
		{"allow-other", []string{"--allow-other"}, "444 0:0", "555 0:0", ""},
		{"allow-other, but the mode does not", []string{"--allow-other", "--mode", "0440"}, "440 0:0", "550 0:0", "Permission denied"},
		{"the owner", []string{"--allow-other", "--mode", "0400", "--uid", "65534", "--gid", "12"}, "400 65534:12", "500 65534:12", ""},
		{"mode", []string{"--mode", "640"}, "640 0:0", "750 0:0", "Permission denied"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			f := need(t, small)
			dir := openDir(t)
			mountAt(t, serveFile(t, f.image), dir, test.flags...)
			if got := must(t, "stat", "--format=%a %u:%g", diskOf(dir)); got != test.file+"\n" {
				t.Errorf("disk.img: got %q, want %q", got, test.file)
			}
			if got := must(t, "stat", "--format=%a %u:%g", dir); got != test.dir+"\n" {
				t.Errorf("directory: got %q, want %q", got, test.dir)
			}
			r := startCmd(t, asNobody("dd", "if="+diskOf(dir), "of=/dev/null", "bs=4k", "count=1", "status=none")).result(t)
			if (r.code == 0) != (test.nobody == "") || !strings.Contains(r.stderr, test.nobody) {
				t.Errorf("another user: %v, want %q", r, test.nobody)
			}
			umount(t, dir)
		})
	}
}
