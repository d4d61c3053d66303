package line

import (
	"context"
	"errors"
	"fmt"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/partition"
	"github.com/cloopfs/cloopfs/internal/signature"
	"github.com/cloopfs/cloopfs/internal/units"
)

// SectorSize is what loop devices and guests cut a disk into.
const SectorSize = 512

// Contents is what is on a disk.
type Contents struct {
	Size       int64
	Kind       signature.Kind
	Partitions []partition.Partition
}

// Contents finds out what is on the disk.
func (l *Line) Contents(ctx context.Context) (Contents, error) {
	if l.index.Raw() {
		return Examine(ctx, l.start, l.kind)
	}
	return Examine(ctx, l.disk, l.kind)
}

// startSize is how many bytes hold what there is to know of most disks: a
// partition table, the directories of a disc.
const startSize = 256 << 10

// diskStart is a disk whose first startSize bytes are read in one request, when
// the first of them are wanted. It is not safe for concurrent use.
type diskStart struct {
	blockio.ReaderAt
	start []byte // nil: not read yet
}

// ReadAtContext reads bytes of the disk.
func (d *diskStart) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	size := min(d.Size(), startSize)
	if off < 0 || off > size-int64(len(p)) {
		return d.ReaderAt.ReadAtContext(ctx, p, off)
	}
	if d.start == nil {
		buf := make([]byte, size)
		if _, err := d.ReaderAt.ReadAtContext(ctx, buf, 0); err != nil {
			return 0, err
		}
		d.start = buf
	}
	return copy(p, d.start[off:]), nil
}

// Examine finds out what is on a disk, unless kind says that much.
func Examine(ctx context.Context, disk blockio.ReaderAt, kind signature.Kind) (Contents, error) {
	c := Contents{Size: disk.Size(), Kind: kind}
	var err error
	if kind.Name == "" {
		if c.Kind, err = signature.Detect(ctx, disk); err != nil {
			return c, err
		}
	}
	switch c.Kind.Name {
	case signature.MBR, signature.GPT, signature.ISO9660: // an ISO file may have a table for USB sticks
		c.Partitions, err = partition.Read(ctx, disk)
	}
	if errors.Is(err, partition.ErrDamaged) {
		err = nil
	}
	return c, err
}

// String is the disk in a few words: "2.0 GiB ext4".
func (c Contents) String() string {
	s := units.FormatSize(c.Size)
	if c.Kind.Disk {
		s += " " + c.Kind.Name
	}
	if c.Tabled() {
		s += fmt.Sprintf(" with %d partition", len(c.Partitions))
		if len(c.Partitions) != 1 {
			s += "s"
		}
	}
	return s
}

// Tabled says that the disk is made of partitions.
func (c Contents) Tabled() bool {
	return c.Kind.Name == signature.MBR || c.Kind.Name == signature.GPT
}

// Mountable says whether the kernel can mount the disk as it is.
func (c Contents) Mountable() bool {
	switch c.Kind.Name {
	case signature.MBR, signature.GPT, signature.LUKS, signature.LVM, signature.Swap, "":
		return false
	}
	return c.Kind.Disk
}

// Lost is how many bytes at the disk's end are out of reach of what reads whole
// sectors.
func (c Contents) Lost() int64 { return c.Size % SectorSize }
