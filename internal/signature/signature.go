// Package signature tells by a few bytes at known places what a file is: a
// disk, or something that people take for one.
package signature

import (
	"bytes"
	"context"
	"encoding/binary"

	"github.com/cloopfs/cloopfs/blockio"
)

// Kind is what a file is.
type Kind struct {
	// Name is what people call it; empty if it is nothing known.
	Name string
	// Disk says that it can be presented as a disk as it is.
	Disk bool
	// Hint is what to do with something that is no disk.
	Hint string
}

// Names of kinds that others ask for.
const (
	ISO9660 = "ISO 9660"
	MBR     = "MBR"
	GPT     = "GPT"
	LUKS    = "LUKS"
	LVM     = "LVM"
	Swap    = "swap"
)

// The stretches of a file where signatures are looked for.
const (
	deepOff  = 32 << 10
	deepSize = 36 << 10
	tailSize = 512
)

// HeadSize is how many bytes of its start OfHead wants to see of a file.
const HeadSize = 8 << 10

// OfHead says what a file is by its first HeadSize bytes alone, which do not
// tell every kind.
func OfHead(head []byte) Kind {
	if k, ok := match(fileSystems, head, 0); ok {
		return k
	}
	if name := extName(head); name != "" {
		return disk(name)
	}
	if name := tableName(head); name != "" {
		return disk(name)
	}
	if k, ok := match(cloops, head, 0); ok && len(head) >= cloopHeader {
		return k
	}
	if k, ok := match(noDisks, head, 0); ok {
		return k
	}
	if isHTML(head) {
		return Kind{Name: "an HTML page", Hint: "the URL has to be that of the file itself, not of a page about it"}
	}
	return Kind{}
}

// StartSize is how many bytes of its start OfStart wants to see of a file.
const StartSize = deepOff + deepSize

// OfStart says what a file is by its first StartSize bytes alone: all that Detect
// says, but for what has its mark at the end.
func OfStart(start []byte) Kind {
	k := OfHead(start[:min(len(start), HeadSize)])
	if settled(k) {
		return k
	}
	if deep, ok := match(deepSystems, start, 0); ok {
		return deep
	}
	return k
}

// settled says that what lies further in does not change what the head told. An
// ISO file may hold a table too, for USB sticks.
func settled(k Kind) bool { return k.Disk && k.Name != MBR && k.Name != GPT }

// Detect reads the start of r, and as much more as it takes to say what r is:
// at most 45 KiB in three reads.
func Detect(ctx context.Context, r blockio.ReaderAt) (Kind, error) {
	head, err := blockio.ReadUpTo(ctx, r, 0, HeadSize)
	if err != nil {
		return Kind{}, err
	}
	k := OfHead(head)
	if settled(k) {
		return k, nil
	}
	deep, err := blockio.ReadUpTo(ctx, r, deepOff, deepSize)
	if err != nil {
		return Kind{}, err
	}
	if k, ok := match(deepSystems, deep, deepOff); ok {
		return k, nil
	}
	if k.Name != "" {
		return k, nil
	}
	tail, err := blockio.ReadUpTo(ctx, r, max(0, r.Size()-tailSize), tailSize)
	if err != nil {
		return Kind{}, err
	}
	// A VHD of fixed size has its mark at the end, and any disk before it.
	if bytes.HasPrefix(tail, []byte(vhdMark)) {
		return virtual("VHD"), nil
	}
	return k, nil
}

// mark is bytes at a place.
type mark struct {
	off   int // in the file
	bytes string
	kind  Kind
}

// match returns the kind of the first mark that is found in buf, which was read
// at off.
func match(marks []mark, buf []byte, off int) (Kind, bool) {
	for _, m := range marks {
		if at := m.off - off; at <= len(buf) && bytes.HasPrefix(buf[at:], []byte(m.bytes)) {
			return m.kind, true
		}
	}
	return Kind{}, false
}

func disk(name string) Kind { return Kind{Name: name, Disk: true} }

// fileSystems are told by the first 8 KiB. Sources: the superblocks' headers in
// Linux's fs/ and include/uapi/linux/magic.h, LVM2's label.h, LUKS's format.
var fileSystems = []mark{
	{0, "hsqs", disk("squashfs")},
	{0, "XFSB", disk("xfs")},
	{0, "LUKS\xba\xbe", disk(LUKS)},
	{1024, "\xe2\xe1\xf5\xe0", disk("erofs")},
	{3, "NTFS    ", disk("NTFS")},
	{54, "FAT12   ", disk("FAT")},
	{54, "FAT16   ", disk("FAT")},
	{82, "FAT32   ", disk("FAT")},
	{4096 - 10, "SWAPSPACE2", disk(Swap)},
	{4096 - 10, "SWAP-SPACE", disk(Swap)},
	{0 + 24, "LVM2 001", disk(LVM)}, // a label lies in one of the first four sectors
	{512 + 24, "LVM2 001", disk(LVM)},
	{1024 + 24, "LVM2 001", disk(LVM)},
	{1536 + 24, "LVM2 001", disk(LVM)},
}

// deepSystems are told by what lies further in.
var deepSystems = []mark{
	{32<<10 + 1, "CD001", disk(ISO9660)},
	{64<<10 + 64, "_BHRfS_M", disk("btrfs")},
	{64<<10 - 10, "SWAPSPACE2", disk(Swap)}, // of a machine with pages of 64 KiB
}

// cloopHeader is the length of a cloop image's header.
const cloopHeader = 136

// cloops are told by their versions.
var cloops = []mark{
	{11, "V2.0", Kind{Name: "cloop V2.0"}},
	{11, "V4.0", Kind{Name: "cloop V4.0"}},
}

func packed(name, tool string) Kind {
	return Kind{Name: name + " file", Hint: "unpack it first: " + tool}
}

func virtual(name string) Kind {
	return Kind{Name: "a " + name + " disk image", Hint: "convert it first: qemu-img convert -O raw IN OUT"}
}

const vhdMark = "conectix"

// noDisks are what people take for a disk image.
var noDisks = []mark{
	{0, "\x1f\x8b", packed("a gzip", "gunzip")},
	{0, "\xfd7zXZ\x00", packed("an xz", "unxz")},
	{0, "\x28\xb5\x2f\xfd", packed("a zstd", "unzstd")},
	{0, "BZh", packed("a bzip2", "bunzip2")},
	{0, "PK\x03\x04", packed("a zip", "unzip")},
	{0, "QFI\xfb", virtual("qcow2")},
	{0, "KDMV", virtual("VMDK")},
	{0, "COWD", virtual("VMDK")},
	{0, "# Disk DescriptorFile", virtual("VMDK")},
	{0x40, "\x7f\x10\xda\xbe", virtual("VDI")},
	{0, vhdMark, virtual("VHD")},
	{0, "vhdxfile", virtual("VHD")},
}

// extName names the member of the ext family in buf, by the features that it
// needs (Linux, fs/ext4/ext4.h).
func extName(buf []byte) string {
	const super, magic = 1024, "\x53\xef"
	if len(buf) < super+0x68 || string(buf[super+0x38:super+0x3a]) != magic {
		return ""
	}
	const (
		hasJournal   = 0x4   // compatible
		ext4Incompat = 0x2c0 // extents, 64bit, flex_bg
		ext4ROCompat = 0x478 // huge_file, gdt_csum, dir_nlink, extra_isize, metadata_csum
	)
	compat := binary.LittleEndian.Uint32(buf[super+0x5c:])
	incompat := binary.LittleEndian.Uint32(buf[super+0x60:])
	roCompat := binary.LittleEndian.Uint32(buf[super+0x64:])
	switch {
	case incompat&ext4Incompat != 0 || roCompat&ext4ROCompat != 0:
		return "ext4"
	case compat&hasJournal != 0:
		return "ext3"
	}
	return "ext2"
}

// tableName names the partition table in buf: GPT, or an MBR whose entries
// could be some.
func tableName(buf []byte) string {
	const table, entry = 446, 16
	if bytes.HasPrefix(buf[min(512, len(buf)):], []byte("EFI PART")) ||
		bytes.HasPrefix(buf[min(4096, len(buf)):], []byte("EFI PART")) { // with sectors of 4 KiB
		return GPT
	}
	if len(buf) < 512 || buf[510] != 0x55 || buf[511] != 0xaa {
		return ""
	}
	used := false
	for e := table; e < 510; e += entry {
		if buf[e]&0x7f != 0 { // neither active nor inactive
			return ""
		}
		used = used || buf[e+4] != 0 && binary.LittleEndian.Uint32(buf[e+12:]) > 0
	}
	if !used {
		return ""
	}
	return MBR
}

// isHTML says whether buf is a page: what a server sends for a file that it
// does not have.
func isHTML(buf []byte) bool {
	start := bytes.ToLower(bytes.TrimLeft(buf[:min(len(buf), 512)], "\xef\xbb\xbf \t\r\n"))
	return bytes.HasPrefix(start, []byte("<!doctype html")) || bytes.HasPrefix(start, []byte("<html")) ||
		bytes.HasPrefix(start, []byte("<?xml")) && bytes.Contains(start, []byte("<html"))
}
