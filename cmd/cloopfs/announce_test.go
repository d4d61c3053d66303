package main

import (
	"bytes"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/internal/partition"
	"github.com/cloopfs/cloopfs/internal/signature"
)

// parts are partitions of these sizes, numbered from 1.
func parts(sizes ...int64) []partition.Partition {
	var list []partition.Partition
	for i, size := range sizes {
		list = append(list, partition.Partition{Number: i + 1, Extent: blockio.Extent{Off: 1 << 20, Len: size}})
	}
	return list
}

func diskKind(name string) signature.Kind { return signature.Kind{Name: name, Disk: true} }

// announced are disks, and what a person hears of them.
var announced = []struct {
	name  string
	disk  line.Contents
	words string // the disk in a few words
	next  string // the file of it that can be mounted; "" if there is none
}{
	{"file system", line.Contents{Size: 2 << 30, Kind: diskKind("ext4")}, "2 GiB ext4", "disk.img"},
	{"unknown", line.Contents{Size: 1000}, "1000 B", ""},
	{"no disk", line.Contents{Size: 4 << 10, Kind: signature.Kind{Name: "a gzip file"}}, "4 KiB", ""},
	{"ISO", line.Contents{Size: 700 << 20, Kind: diskKind(signature.ISO9660)}, "700 MiB ISO 9660", "disk.img"},
	{"ISO with a table", line.Contents{Size: 700 << 20, Kind: diskKind(signature.ISO9660), Partitions: parts(5)}, "700 MiB ISO 9660", "disk.img"},
	{"GPT", line.Contents{Size: 8 << 30, Kind: diskKind(signature.GPT), Partitions: parts(1<<20, 4<<30, 1<<30)}, "8 GiB GPT with 3 partitions", "disk.img.p2"},
	{"one partition", line.Contents{Size: 8 << 30, Kind: diskKind(signature.MBR), Partitions: parts(1 << 30)}, "8 GiB MBR with 1 partition", "disk.img.p1"},
	{"equal partitions", line.Contents{Size: 8 << 30, Kind: diskKind(signature.MBR), Partitions: parts(1<<30, 1<<30)}, "8 GiB MBR with 2 partitions", "disk.img.p1"},
	{"empty table", line.Contents{Size: 8 << 30, Kind: diskKind(signature.MBR)}, "8 GiB MBR with 0 partitions", ""},
	{"LUKS", line.Contents{Size: 1 << 30, Kind: diskKind(signature.LUKS)}, "1 GiB LUKS", ""},
	{"LVM", line.Contents{Size: 1 << 30, Kind: diskKind(signature.LVM)}, "1 GiB LVM", ""},
	{"swap", line.Contents{Size: 1 << 30, Kind: diskKind(signature.Swap)}, "1 GiB swap", ""},
}

func TestAnnounce(t *testing.T) {
	for _, c := range announced {
		t.Run(c.name, func(t *testing.T) {
			if got := c.disk.String(); got != c.words {
				t.Errorf("in a few words: %q, want %q", got, c.words)
			}
			want := "cloopfs: mounted at /m: disk.img, " + c.words + "\n"
			if c.next != "" {
				want += "cloopfs: hint: sudo mount -o loop,ro /m/" + c.next + " /mnt\n"
			}
			if os.Geteuid() == 0 {
				want = strings.Replace(want, "sudo ", "", 1)
			}
			var out bytes.Buffer
			announce(&out, mountOptions{Mountpoint: "/m", Describe: true, AllowOther: true}, readiness{Disk: c.disk})
			if lost := c.disk.Lost(); lost > 0 {
				want = "cloopfs: the disk's size is no multiple of 512: its last 488 bytes can't be read through a loop device\n" + want
			}
			if diff := cmp.Diff(want, out.String()); diff != "" {
				t.Errorf("for a person (-want +got):\n%s", diff)
			}
		})
	}
}

func TestAnnounceInside(t *testing.T) {
	var out bytes.Buffer
	announce(&out, mountOptions{Mountpoint: "/m", Describe: true}, readiness{
		Disk: line.Contents{Size: 512}, Inside: "http://host/k.iso#KNOPPIX/KNOPPIX",
	})
	want := "cloopfs: mounted at /m: disk.img, 512 B\n" +
		"cloopfs: hint: to mount the system inside: cloopfs mount 'http://host/k.iso#KNOPPIX/KNOPPIX' DIR\n"
	if diff := cmp.Diff(want, out.String()); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// A disk that can be written to is mounted so, and has no files of partitions.
func TestAnnounceWritable(t *testing.T) {
	o := mountOptions{Mountpoint: "/m", AllowOther: true, DiskOptions: DiskOptions{Write: writeOptions{Ephemeral: true}}}
	for _, c := range []struct {
		disk line.Contents
		want string
	}{
		{line.Contents{Size: 512, Kind: diskKind("ext4")}, "mount -o loop /m/disk.img /mnt"},
		{line.Contents{Size: 512, Kind: diskKind(signature.MBR), Partitions: make([]partition.Partition, 1)}, "losetup --find --show --partscan /m/disk.img"},
		{line.Contents{Size: 512, Kind: diskKind(signature.MBR)}, ""},
	} {
		if got := strings.TrimPrefix(o.nextStep(c.disk), "sudo "); got != c.want {
			t.Errorf("%v: %q, want %q", c.disk, got, c.want)
		}
	}
}

// A script hears of nothing but what is wrong.
func TestAnnounceToScript(t *testing.T) {
	for size, want := range map[int64]string{
		1024: "",
		1034: "cloopfs: the disk's size is no multiple of 512: its last 10 bytes can't be read through a loop device\n",
	} {
		var out bytes.Buffer
		announce(&out, mountOptions{Mountpoint: "/m"}, readiness{
			Disk: line.Contents{Size: size, Kind: diskKind("ext4")}, Inside: "k.iso#KNOPPIX/KNOPPIX",
		})
		if got := out.String(); got != want {
			t.Errorf("%d bytes: %q, want %q", size, got, want)
		}
	}
}
