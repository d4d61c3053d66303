//go:build integration

package test

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What tools make is what it is taken for: disks are accepted as they are, and
// named; the rest is refused with what to do about it.
func TestKinds(t *testing.T) {
	dir := t.TempDir()
	tree := filepath.Join(dir, "tree")
	if err := growTree(tree); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(dir, "key")
	if err := os.WriteFile(key, []byte("geheim"), 0o600); err != nil {
		t.Fatal(err)
	}
	// make runs a script with the arguments FILE, TREE and KEY.
	make := func(t *testing.T, script string) string {
		t.Helper()
		file := filepath.Join(t.TempDir(), "disk")
		must(t, "sh", "-eu", "-c", script, "sh", file, tree, key)
		return file
	}
	const table = `truncate -s 8M "$1"; printf 'label: %s\nsize=1M\n' | sfdisk --quiet "$1"`
	for _, c := range []struct{ name, script, content string }{
		{"ext2", `mke2fs -q -t ext2 "$1" 8M`, "ext2"},
		{"ext3", `mke2fs -q -t ext3 "$1" 8M`, "ext3"},
		{"ext4", `mke2fs -q -t ext4 "$1" 8M`, "ext4"},
		{"xfs", `mkfs.xfs -q -d file,name="$1",size=300m`, "xfs"},
		{"btrfs", `truncate -s 120M "$1"; mkfs.btrfs -q "$1"`, "btrfs"},
		{"squashfs", `mksquashfs "$2" "$1" -quiet -no-progress`, "squashfs"},
		{"erofs", `mkfs.erofs "$1" "$2"`, "erofs"},
		{"FAT12", `mkfs.fat -F 12 -C "$1" 2048`, "FAT"},
		{"FAT16", `mkfs.fat -F 16 -C "$1" 16384`, "FAT"},
		{"FAT32", `mkfs.fat -F 32 -C "$1" 40960`, "FAT"},
		{"NTFS", `truncate -s 8M "$1"; mkntfs -Q -F -q "$1"`, "NTFS"},
		{"swap", `truncate -s 1M "$1"; chmod 600 "$1"; mkswap "$1"`, "swap"},
		{"swap, pages of 64 KiB", `truncate -s 1M "$1"; chmod 600 "$1"; mkswap --pagesize 65536 "$1"`, "swap"},
		{"LUKS1", `truncate -s 16M "$1"; cryptsetup luksFormat --batch-mode --type luks1 --pbkdf-force-iterations 1000 --key-file "$3" "$1"`, "LUKS"},
		{"LUKS2", `truncate -s 32M "$1"; cryptsetup luksFormat --batch-mode --type luks2 --pbkdf pbkdf2 --pbkdf-force-iterations 1000 --key-file "$3" "$1"`, "LUKS"},
		{"ISO 9660", `xorriso -as mkisofs -quiet -o "$1" "$2"`, "ISO 9660"},
		{"MBR", fmt.Sprintf(table, "dos"), "MBR"},
		{"GPT", fmt.Sprintf(table, "gpt"), "GPT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			checkDisk(t, make(t, c.script), c.content)
		})
	}
	t.Run("LVM", func(t *testing.T) {
		file := make(t, `truncate -s 8M "$1"`)
		device := strings.TrimSpace(must(t, "losetup", "--find", "--show", file))
		attached.Store(device, file)
		must(t, "pvcreate", "--quiet", "--yes", "--config", `devices { filter=["a|^`+device+`$|","r|.*|"] use_devicesfile=0 }`, device)
		must(t, "losetup", "--detach", device)
		checkDisk(t, file, "LVM")
	})

	const (
		convert = "convert it first: qemu-img convert -O raw IN OUT"
		disk    = `truncate -s 8M "$1.raw"; mke2fs -q "$1.raw"; qemu-img convert -q -f raw -O %s "$1.raw" "$1"`
	)
	for _, c := range []struct{ name, script, what, hint string }{
		{"gzip", `gzip <"$2/text" >"$1"`, "a gzip file", "unpack it first: gunzip"},
		{"xz", `xz <"$2/text" >"$1"`, "an xz file", "unpack it first: unxz"},
		{"zstd", `zstd -q <"$2/text" >"$1"`, "a zstd file", "unpack it first: unzstd"},
		{"bzip2", `bzip2 <"$2/text" >"$1"`, "a bzip2 file", "unpack it first: bunzip2"},
		{"zip", `cd "$2"; zip -q "$1.zip" text; mv "$1.zip" "$1"`, "a zip file", "unpack it first: unzip"},
		{"qcow2", fmt.Sprintf(disk, "qcow2"), "a qcow2 disk image", convert},
		{"VMDK", fmt.Sprintf(disk, "vmdk"), "a VMDK disk image", convert},
		{"VDI", fmt.Sprintf(disk, "vdi"), "a VDI disk image", convert},
		{"VHD", fmt.Sprintf(disk, "vpc"), "a VHD disk image", convert},
		{"VHDX", fmt.Sprintf(disk, "vhdx"), "a VHD disk image", convert},
	} {
		t.Run(c.name, func(t *testing.T) {
			file := make(t, c.script)
			r := run(t, cloopfs, "verify", file)
			want := fmt.Sprintf("cloopfs: open %s: %s, neither a cloop image nor a disk\ncloopfs: hint: %s\n", file, c.what, c.hint)
			if r.code != 3 || r.stderr != want || r.stdout != "" {
				t.Errorf("got %v, want exit status 3 and %q", r, want)
			}
			mnt := makeDir(t)
			if r := run(t, cloopfs, "mount", file, mnt); r.code != 3 || r.stderr != want || mounted(mnt) {
				t.Errorf("mount: got %v, want exit status 3 and %q", r, want)
			}
			waitFor(t, "no process is left", func() bool { return len(daemons("")) == 0 })
		})
	}
}

// checkDisk checks that a file is accepted as a disk with a content, and read as
// it is, to its last byte.
func checkDisk(t *testing.T, file, content string) {
	t.Helper()
	if got := info(t, file); got.Format != "raw" || got.Content != content {
		t.Errorf("info: format %q, content %q; want raw, %q", got.Format, got.Content, content)
	}
	must(t, cloopfs, "verify", file)
	dir := mount(t, file)
	must(t, "cmp", file, diskOf(dir))
	umount(t, dir)
}

// imageInfo is what the tests need of cloopfs info.
type imageInfo struct {
	Format, Content string
	Partitions      []struct{ Number, Offset, Size int64 }
}

func info(t *testing.T, source string) imageInfo {
	t.Helper()
	var in imageInfo
	if err := json.Unmarshal([]byte(must(t, cloopfs, "info", "--json", source)), &in); err != nil {
		t.Fatal(err)
	}
	return in
}

// The partitions of a disk are those that partx finds, but for extended ones,
// which only hold others.
func TestPartitionsLikePartx(t *testing.T) {
	for name, c := range map[string]struct{ script, extended string }{
		"MBR":     {"label: dos\nsize=1M\nsize=100\nsize=1M,type=c\n", ""},
		"logical": {"label: dos\ndisk1: size=1M\ndisk2: start=4096,size=10000,type=f\ndisk4: start=16000,size=50\ndisk5: start=4200,size=100\ndisk6: start=5000,size=1000\ndisk7: start=8000,size=6096\n", "2"},
		"GPT":     {"label: gpt\nsize=1M\nsize=1\nsize=100,name=\"three\"\nsize=2M\n", ""},
	} {
		t.Run(name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "disk")
			must(t, "sh", "-eu", "-c", `truncate -s 8M "$1"; printf %s "$2" | sfdisk --quiet "$1"`, "sh", file, c.script)
			var want, got []string
			for line := range strings.Lines(must(t, "partx", "--output", "NR,START,SECTORS", "--noheadings", "--raw", file)) {
				if f := strings.Fields(line); f[0] != c.extended {
					want = append(want, strings.Join(f, " "))
				}
			}
			for _, p := range info(t, file).Partitions {
				got = append(got, fmt.Sprint(p.Number, p.Offset/512, p.Size/512))
			}
			if len(want) < 3 || strings.Join(got, "\n") != strings.Join(want, "\n") {
				t.Errorf("got %q, want %q", got, want)
			}
		})
	}
}

// The disk in a cloop image in an ISO file on a web server is presented like any
// other; so is a file system in one.
func TestInsideISO(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(40, 20*kib)...)
	iso := makeISO(t, map[string][]byte{"KNOPPIX/KNOPPIX": s.image, "boot/isolinux/isolinux.cfg": []byte("hello\n")})
	srv, _ := serve(t, nil)
	srv.AddBytes("k.iso", iso)
	url := srv.URL("k.iso") + "#knoppix/KNOPPIX"
	dir := mount(t, secretURL(srv.URL("k.iso"))+"#knoppix/KNOPPIX")
	checkBytes(t, "disk", must(t, "cat", diskOf(dir)), s.disk)
	if got := strings.ReplaceAll(sourceOf(dir), `\043`, "#"); got != url {
		t.Errorf("/proc/mounts shows the source %q, want %q", got, url)
	}
	if args := strings.Join(arguments(daemon(t, dir)), " "); !strings.Contains(args, "#knoppix/KNOPPIX ") || strings.Contains(args, "geheim1") || strings.Contains(args, "geheim2") {
		t.Errorf("arguments are %q", args)
	}
	umount(t, dir)
	file := filepath.Join(t.TempDir(), "k.iso")
	if err := os.WriteFile(file, iso, 0o644); err != nil {
		t.Fatal(err)
	}
	must(t, cloopfs, "verify", file+"#KNOPPIX/KNOPPIX")
	r := run(t, cloopfs, "mount", file+"#KNOPPIX/KNOPPIX2", makeDir(t))
	checkFailure(t, r, 4, "KNOPPIX/KNOPPIX2: no such file in the ISO 9660 image")
	if !strings.Contains(r.stderr, "cloopfs: hint: cloopfs info "+file+" lists the images inside\n") {
		t.Errorf("stderr is %q, want a hint", r.stderr)
	}
}
