package signature_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/internal/signature"
)

// at is a file with bytes at a place, and nothing behind them.
func at(off int, mark string) []byte { return append(make([]byte, off), mark...) }

// entry is one of an MBR.
func entry(active, kind byte, start, size uint32) string {
	e := make([]byte, 16)
	e[0], e[4] = active, kind
	binary.LittleEndian.PutUint32(e[8:], start)
	binary.LittleEndian.PutUint32(e[12:], size)
	return string(e)
}

// mbr is a sector with a table.
func mbr(entries ...string) []byte {
	p := append(make([]byte, 446), strings.Join(entries, "")...)
	return append(p, string(make([]byte, 510-len(p)))+"\x55\xaa"...)
}

// Every mark, as it is in the file by the format's specification.
var kinds = []struct {
	name string
	file []byte // ends with the mark
	want string
}{
	{"squashfs", at(0, "hsqs"), "squashfs"},
	{"xfs", at(0, "XFSB"), "xfs"},
	{"LUKS", at(0, "LUKS\xba\xbe"), "LUKS"},
	{"erofs", at(1024, "\xe2\xe1\xf5\xe0"), "erofs"},
	{"NTFS", at(3, "NTFS    "), "NTFS"},
	{"FAT12", at(54, "FAT12   "), "FAT"},
	{"FAT16", at(54, "FAT16   "), "FAT"},
	{"FAT32", at(82, "FAT32   "), "FAT"},
	{"swap", at(4086, "SWAPSPACE2"), "swap"},
	{"old swap", at(4086, "SWAP-SPACE"), "swap"},
	{"swap, pages of 64 KiB", at(65_526, "SWAPSPACE2"), "swap"},
	{"LVM, sector 0", at(24, "LVM2 001"), "LVM"},
	{"LVM, sector 1", at(536, "LVM2 001"), "LVM"},
	{"LVM, sector 2", at(1048, "LVM2 001"), "LVM"},
	{"LVM, sector 3", at(1560, "LVM2 001"), "LVM"},
	{"ISO 9660", at(32_769, "CD001"), signature.ISO9660},
	{"btrfs", at(65_600, "_BHRfS_M"), "btrfs"},
	{"GPT", at(512, "EFI PART"), signature.GPT},
	{"GPT, sectors of 4 KiB", at(4096, "EFI PART"), signature.GPT},
	{"MBR", mbr(entry(0x80, 0x83, 2048, 100)), signature.MBR},
	{"MBR, last entry", mbr(entry(0, 0, 0, 0), entry(0, 0, 0, 0), entry(0, 0, 0, 0), entry(0, 0x0c, 63, 1)), signature.MBR},

	{"gzip", at(0, "\x1f\x8b"), "a gzip file: unpack it first: gunzip"},
	{"xz", at(0, "\xfd7zXZ\x00"), "an xz file: unpack it first: unxz"},
	{"zstd", at(0, "\x28\xb5\x2f\xfd"), "a zstd file: unpack it first: unzstd"},
	{"bzip2", at(0, "BZh"), "a bzip2 file: unpack it first: bunzip2"},
	{"zip", at(0, "PK\x03\x04"), "a zip file: unpack it first: unzip"},
	{"qcow2", at(0, "QFI\xfb"), "a qcow2" + convert},
	{"VMDK", at(0, "KDMV"), "a VMDK" + convert},
	{"old VMDK", at(0, "COWD"), "a VMDK" + convert},
	{"VMDK descriptor", at(0, "# Disk DescriptorFile"), "a VMDK" + convert},
	{"VDI", at(64, "\x7f\x10\xda\xbe"), "a VDI" + convert},
	{"VHD", at(0, "conectix"), "a VHD" + convert},
	{"VHDX", at(0, "vhdxfile"), "a VHD" + convert},
	{"HTML", at(0, "<!DOCTYPE html"), page},
	{"HTML without a type", at(0, "<html"), page},
}

const (
	convert = " disk image: convert it first: qemu-img convert -O raw IN OUT"
	page    = "an HTML page: the URL has to be that of the file itself, not of a page about it"
)

// shown is a kind as a line: its name, and the hint of what is no disk.
func shown(k signature.Kind) string {
	if !k.Disk && k.Name != "" {
		return k.Name + ": " + k.Hint
	}
	return k.Name + k.Hint
}

func detect(t *testing.T, file []byte) string {
	t.Helper()
	src := &blockiotest.Source{Data: file}
	k, err := signature.Detect(t.Context(), src)
	if err != nil {
		t.Fatal(err)
	}
	asked, sum := src.Asked(), int64(0)
	for _, r := range asked {
		sum += r.Len
	}
	if len(asked) > 3 || sum > 45<<10 {
		t.Errorf("%d requests, %d bytes; want at most 3 and 45 KiB", len(asked), sum)
	}
	return shown(k)
}

// Every kind is told by its mark, wherever the file ends behind it, and not by a
// part of the mark.
func TestKinds(t *testing.T) {
	for _, k := range kinds {
		t.Run(k.name, func(t *testing.T) {
			long := append(bytes.Clone(k.file), make([]byte, 200_000)...)
			for _, file := range [][]byte{k.file, long, long[:len(k.file)+1]} {
				if got := detect(t, file); got != k.want {
					t.Errorf("%d bytes: %q, want %q", len(file), got, k.want)
				}
			}
			long[len(k.file)-1] ^= 0x20
			if strings.HasPrefix(k.want, "an HTML") { // in which case does not count
				long[len(k.file)-1] ^= 0x21
			}
			for _, file := range [][]byte{k.file[:len(k.file)-1], long} {
				if got := detect(t, file); got != "" {
					t.Errorf("%d bytes, mark incomplete: %q", len(file), got)
				}
			}
		})
	}
}

func TestExt(t *testing.T) {
	for _, c := range []struct {
		compat, incompat, roCompat uint32
		want                       string
	}{
		// As mke2fs -t makes them (util-linux's blkid calls them so too).
		{0x38, 0x2, 0x3, "ext2"},
		{0x3c, 0x2, 0x3, "ext3"},
		{0x3c, 0x2c2, 0x46b, "ext4"},
		{0, 0, 0, "ext2"},
		{0x4, 0, 0, "ext3"},
		{0x4, 0x40, 0, "ext4"},
		{0x4, 0x80, 0, "ext4"},
		{0x4, 0x200, 0, "ext4"},
		{0x4, 0, 0x8, "ext4"},
		{0x4, 0, 0x10, "ext4"},
		{0x4, 0, 0x20, "ext4"},
		{0x4, 0, 0x40, "ext4"},
		{0x4, 0, 0x400, "ext4"},
		{0x0, 0x40, 0, "ext4"}, // without a journal
		{0x4, 0x4, 0, "ext3"},  // to be recovered
	} {
		file := at(1024+0x38, "\x53\xef")
		file = append(file, make([]byte, 100)...)
		for i, n := range []uint32{c.compat, c.incompat, c.roCompat} {
			binary.LittleEndian.PutUint32(file[1024+0x5c+4*i:], n)
		}
		if got := detect(t, file); got != c.want {
			t.Errorf("features %#x %#x %#x: %q, want %q", c.compat, c.incompat, c.roCompat, got, c.want)
		}
		if got := detect(t, file[:1024+0x67]); got != "" {
			t.Errorf("cut off: %q", got)
		}
	}
}

func TestNothingKnown(t *testing.T) {
	for name, file := range map[string][]byte{
		"empty":                           nil,
		"one byte":                        {0},
		"zeros":                           make([]byte, 100_000),
		"text":                            []byte(strings.Repeat("hello, world\n", 10_000)),
		"HTML further in":                 at(600, "<html>"),
		"XML":                             []byte("<?xml version='1.0'?><svg></svg>"),
		"table without a partition":       mbr(),
		"table with an entry of no type":  mbr(entry(0, 0, 1, 1)),
		"table with an entry of size 0":   mbr(entry(0, 0x83, 1, 0)),
		"sector with something else":      mbr(entry(0, 0x83, 1, 1), entry(0x12, 0x34, 5, 6)),
		"sector without its end":          mbr(entry(0, 0x83, 1, 1))[:511],
		"another mark at the end":         append(make([]byte, 10_000), append([]byte("\x1f\x8b"), make([]byte, 510)...)...),
		"the mark of a VHD not quite end": append(make([]byte, 10_000), append([]byte("conectix"), make([]byte, 505)...)...),
	} {
		if got := detect(t, file); got != "" {
			t.Errorf("%s: %q", name, got)
		}
	}
}

func TestHTML(t *testing.T) {
	for _, file := range []string{
		"<!doctype html>",
		"<!DOCTYPE HTML PUBLIC",
		"<HTML lang=en>",
		"\xef\xbb\xbf<html>",
		" \r\n\t<html>",
		"<?xml version='1.0'?>\n<!DOCTYPE x>\n<html xmlns='x'>",
	} {
		if got := detect(t, []byte(file)); got != page {
			t.Errorf("%q: %q", file, got)
		}
	}
}

// A file may bear two marks: the one that says what can be done with it wins.
func TestFirstOfTwo(t *testing.T) {
	both := func(a, b []byte) []byte {
		p := append(bytes.Clone(a), make([]byte, max(0, len(b)-len(a)))...)
		for i, c := range b {
			p[i] |= c
		}
		return p
	}
	table := mbr(entry(0x80, 0x17, 0, 100))
	for _, c := range []struct {
		name string
		file []byte
		want string
	}{
		{"an ISO file for USB sticks", both(table, at(32_769, "CD001")), signature.ISO9660},
		{"the same with a GPT", both(both(table, at(512, "EFI PART")), at(32_769, "CD001")), signature.ISO9660},
		{"a GPT and its MBR", both(mbr(entry(0, 0xee, 1, 100)), at(512, "EFI PART")), signature.GPT},
		{"a boot sector that could be a table", both(at(54, "FAT16   "), table), "FAT"},
		{"a file system before what lies further in", both(at(0, "hsqs"), at(32_769, "CD001")), "squashfs"},
		{"a table before what it starts with", both(table, at(0, "BZh")), signature.MBR},
		{"what it starts with before the end", append(at(0, "hsqs"), append(make([]byte, 1000), append([]byte("conectix"), make([]byte, 504)...)...)...), "squashfs"},
		{"a VHD of fixed size", append(make([]byte, 100_000), append([]byte("conectix"), make([]byte, 504)...)...), "a VHD" + convert},
	} {
		if got := detect(t, c.file); got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// The head alone tells all but what lies further in.
func TestOfHead(t *testing.T) {
	for _, k := range kinds {
		want := k.want
		if len(k.file) > signature.HeadSize {
			want = ""
		}
		if got := shown(signature.OfHead(k.file[:min(len(k.file), signature.HeadSize)])); got != want {
			t.Errorf("%s: %q, want %q", k.name, got, want)
		}
	}
	for _, c := range []struct{ version, want string }{{"V2.0", "cloop V2.0: "}, {"V4.0", "cloop V4.0: "}, {"V3.0", ""}} {
		head := append(at(11, c.version), make([]byte, 200)...)
		if got := shown(signature.OfHead(head)); got != c.want {
			t.Errorf("%s: %q, want %q", c.version, got, c.want)
		}
		if got := shown(signature.OfHead(head[:135])); got != "" {
			t.Errorf("%s, less than a header: %q", c.version, got)
		}
	}
}

// The start tells what Detect does.
func TestOfStart(t *testing.T) {
	for _, k := range kinds {
		for _, file := range [][]byte{k.file, append(bytes.Clone(k.file), make([]byte, 100_000)...)} {
			if got := shown(signature.OfStart(file[:min(len(file), signature.StartSize)])); got != k.want {
				t.Errorf("%s, %d bytes: %q, want %q", k.name, len(file), got, k.want)
			}
		}
	}
	iso := append(mbr(entry(0x80, 0x17, 0, 100)), make([]byte, signature.StartSize)...)
	copy(iso[32_769:], "CD001")
	if got := shown(signature.OfStart(iso)); got != signature.ISO9660 {
		t.Errorf("an ISO file for USB sticks: %q", got)
	}
}

func TestReadFails(t *testing.T) {
	bad := errors.New("no luck")
	for fail := range 3 {
		requests := 0
		src := &blockiotest.Source{Data: make([]byte, 100_000), Open: func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			if requests++; requests > fail {
				return nil, bad
			}
			return body, nil
		}}
		if _, err := signature.Detect(t.Context(), src); !errors.Is(err, bad) {
			t.Errorf("after %d requests: %v, want the error below", fail, err)
		}
	}
}

// FuzzDetect looks at anything: at 45 KiB of it at most, and without a crash.
func FuzzDetect(f *testing.F) {
	for _, name := range []string{"iso9660/xorriso-rr.iso.gz", "partition/gpt.gz", "partition/mbr.gz"} {
		f.Add(unpacked(f, name))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		src := &blockiotest.Source{Data: data}
		kind, err := signature.Detect(t.Context(), src)
		if err != nil {
			t.Fatal(err)
		}
		if kind.Disk && kind.Hint != "" || kind.Name == "" && (kind.Disk || kind.Hint != "") {
			t.Errorf("%+v", kind)
		}
		var read int64
		for _, r := range src.Asked() {
			read += r.Len
		}
		if read > 45<<10 {
			t.Errorf("%d bytes read", read)
		}
		signature.OfHead(data[:min(len(data), signature.HeadSize)])
		signature.OfStart(data[:min(len(data), signature.StartSize)])
	})
}

func unpacked(f *testing.F, name string) []byte {
	f.Helper()
	file, err := os.Open("../../testdata/" + name)
	if err != nil {
		f.Fatal(err)
	}
	defer file.Close()
	r, err := gzip.NewReader(file)
	if err != nil {
		f.Fatal(err)
	}
	data, err := io.ReadAll(io.LimitReader(r, 512<<10))
	if err != nil {
		f.Fatal(err)
	}
	return data
}
