// Package partition reads partition tables: MBR, with the logical partitions in
// an extended one, and GPT (UEFI specification, chapter 5). The parsing is
// go-diskfs's.
package partition

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"

	"github.com/diskfs/go-diskfs/partition/gpt"
	"github.com/diskfs/go-diskfs/partition/mbr"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/window"
)

// ErrDamaged says that there is a table that contradicts itself.
var ErrDamaged = errors.New("damaged partition table")

// Partition is a part of a disk.
type Partition struct {
	// Number is the one by which Linux calls it: 1 to 4 are the entries of an
	// MBR, 5 and up its logical partitions; a GPT's are its entries.
	Number int
	blockio.Extent
}

const (
	sectorSize = 512
	// firstLogical is the number of the first logical partition.
	firstLogical = 5
	// maxLogical bounds a chain of logical partitions.
	maxLogical = 128
	// maxEntries bounds a GPT; 128 is usual.
	maxEntries = 1024
	// entrySize is that of a GPT's entry; another has not been seen.
	entrySize = 128
)

// MBR types that are not partitions.
const (
	typeEmpty      = 0x00
	typeProtective = 0xee // there is a GPT
)

// Read returns the partitions of a disk, by number; none if it has no table. One
// that is not within the disk is left out. The error wraps ErrDamaged or disk's.
func Read(ctx context.Context, disk blockio.ReaderAt) ([]Partition, error) {
	if disk.Size() < 2*sectorSize {
		return nil, nil
	}
	var found []Partition
	err := window.Read(ctx, disk, func(r io.ReaderAt) error {
		table, err := mbr.Read(storage{ReaderAt: r}, sectorSize, sectorSize)
		if err != nil {
			return nil // no table, but something else
		}
		if slices.ContainsFunc(table.Partitions, func(p *mbr.Partition) bool { return p.Type == typeProtective }) {
			found, err = readGPT(r)
			return err
		}
		found, err = readMBR(ctx, disk, table)
		return err
	})
	if errors.Is(err, window.ErrDamaged) {
		err = fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	found = slices.DeleteFunc(found, func(p Partition) bool { return p.Len == 0 || !p.Inside(disk.Size()) })
	return found, err
}

// readMBR returns the partitions of an MBR and of its extended ones.
func readMBR(ctx context.Context, disk blockio.ReaderAt, table *mbr.Table) ([]Partition, error) {
	var primary, logical []Partition
	for i, p := range table.Partitions {
		switch {
		case p.Type == typeEmpty:
		case isExtended(p.Type):
			var err error
			if logical, err = readLogical(ctx, disk, int64(p.Start)*sectorSize, logical); err != nil {
				return nil, err
			}
		default:
			primary = append(primary, Partition{i + 1, extent(p, 0)})
		}
	}
	return append(primary, logical...), nil
}

// readLogical appends the logical partitions of the extended one at start: a
// chain of tables with an entry for a partition, which counts from its table, and
// one for the next table, which counts from start. It ends where it makes no sense,
// and soon: each table costs a request.
func readLogical(ctx context.Context, disk blockio.ReaderAt, start int64, found []Partition) ([]Partition, error) {
	at := start
	for tables := 0; tables < maxLogical && at > 0 && at <= disk.Size()-sectorSize; tables++ {
		var table *mbr.Table
		err := window.Read(ctx, blockio.Part(disk, at, disk.Size()-at), func(r io.ReaderAt) error {
			table, _ = mbr.Read(storage{ReaderAt: r}, sectorSize, sectorSize)
			return nil
		})
		if table == nil {
			return found, err
		}
		next := int64(0)
		for _, p := range table.Partitions[:2] {
			switch {
			case p.Type == typeEmpty || p.Size == 0: // Linux does not count it
			case isExtended(p.Type):
				next = start + int64(p.Start)*sectorSize
			default:
				found = append(found, Partition{firstLogical + len(found), extent(p, at)})
			}
		}
		if next <= at { // a chain that goes back might never end
			break
		}
		at = next
	}
	return found, nil
}

func isExtended(t mbr.Type) bool { return t == 0x05 || t == 0x0f || t == 0x85 }

func extent(p *mbr.Partition, base int64) blockio.Extent {
	return blockio.Extent{Off: base + int64(p.Start)*sectorSize, Len: int64(p.Size) * sectorSize}
}

// readGPT returns the partitions of a GPT, of a disk with sectors of 512 bytes
// or of 4 KiB.
func readGPT(r io.ReaderAt) ([]Partition, error) {
	for _, sector := range []int{512, 4096} {
		header := make([]byte, 92)
		if _, err := r.ReadAt(header, int64(sector)); err != nil {
			return nil, err
		}
		if string(header[:8]) != "EFI PART" {
			continue
		}
		// The library would make room for whatever they say.
		if n := binary.LittleEndian.Uint32(header[80:]); n > maxEntries {
			return nil, fmt.Errorf("%w: %d entries", ErrDamaged, n)
		}
		if n := binary.LittleEndian.Uint32(header[84:]); n != entrySize {
			return nil, fmt.Errorf("%w: entries of %d bytes", ErrDamaged, n)
		}
		table, err := gpt.Read(storage{ReaderAt: r}, sector, sector)
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		var found []Partition
		for _, p := range table.Partitions {
			const most = 1 << 50 // sectors; of more, the bytes might be taken for few
			if p.Start > p.End || p.End >= most {
				continue
			}
			found = append(found, Partition{p.Index, blockio.Extent{Off: p.GetStart(), Len: p.GetSize()}})
		}
		return found, nil
	}
	return nil, fmt.Errorf("%w: no GPT where the MBR says so", ErrDamaged)
}
