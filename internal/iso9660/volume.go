package iso9660

import (
	"encoding/binary"
	"fmt"
	"io"
	"strings"
	"unicode/utf16"

	"github.com/cloopfs/cloopfs/blockio"
)

const (
	// sectorSize is the unit of descriptors and directories.
	sectorSize = 2048
	// firstDescriptor is where the volume descriptors begin.
	firstDescriptor = 16 * sectorSize
	// maxDescriptors bounds them; there are three or four.
	maxDescriptors = 32
	// maxDirectory bounds a directory's bytes: some 40,000 files.
	maxDirectory = 4 << 20
	// recordSize is the least that a directory's record has.
	recordSize = 34
	// maxAreas bounds a chain of continuation areas, which might never end.
	maxAreas = 16
)

// volume is a file system in an image.
type volume struct {
	r     io.ReaderAt
	block int64          // the unit of locations
	root  blockio.Extent // of the root directory
	names naming
	skip  int // bytes before the Rock Ridge fields of a record
}

// naming is where names are.
type naming int

const (
	plain naming = iota
	joliet
	rockRidge
)

// kind is what an entry is.
type kind int

const (
	regular kind = iota
	directory
	other
)

// entry is a name in a directory.
type entry struct {
	name    string
	kind    kind
	extents []blockio.Extent // a directory has one
}

// open reads the volume descriptors of an image of size bytes: those of the
// plain names, and of the Joliet names beside them.
func open(r io.ReaderAt, size int64) (*volume, error) {
	var primary, supplementary *volume
	for i := range int64(maxDescriptors) {
		var buf [sectorSize]byte
		if off := firstDescriptor + i*sectorSize; i == 0 && off > size-sectorSize {
			return nil, ErrFormat
		} else if _, err := r.ReadAt(buf[:], off); err != nil {
			return nil, err
		}
		if string(buf[1:6]) != "CD001" {
			if i == 0 {
				return nil, ErrFormat
			}
			break
		}
		const (
			typePrimary, typeSupplementary, typeEnd = 1, 2, 255
			escape                                  = 88 // what says that names are Joliet's
		)
		if buf[0] == typeEnd {
			break
		}
		var err error
		switch {
		case buf[0] == typePrimary && primary == nil:
			primary, err = parseDescriptor(r, buf[:])
		case buf[0] == typeSupplementary && buf[escape] == '%' && buf[escape+1] == '/' && strings.IndexByte("@CE", buf[escape+2]) >= 0:
			supplementary, err = parseDescriptor(r, buf[:])
		}
		if err != nil {
			return nil, err
		}
	}
	if primary == nil {
		return nil, fmt.Errorf("%w: no volume", ErrDamaged)
	}
	if err := primary.findRockRidge(); err != nil {
		return nil, err
	}
	if primary.names != rockRidge && supplementary != nil {
		supplementary.names = joliet
		return supplementary, nil
	}
	return primary, nil
}

// parseDescriptor takes from a descriptor where the root directory is.
func parseDescriptor(r io.ReaderAt, buf []byte) (*volume, error) {
	const blockSize, root = 128, 156
	v := &volume{r: r, block: int64(binary.LittleEndian.Uint16(buf[blockSize:]))}
	switch v.block {
	case 512, 1024, 2048:
	default:
		return nil, fmt.Errorf("%w: blocks of %d bytes", ErrDamaged, v.block)
	}
	v.root = v.extent(buf[root:])
	return v, nil
}

// extent is where the bytes of a record's file lie, behind its attributes.
func (v *volume) extent(rec []byte) blockio.Extent {
	location := int64(binary.LittleEndian.Uint32(rec[2:])) + int64(rec[1])
	return blockio.Extent{Off: location * v.block, Len: int64(binary.LittleEndian.Uint32(rec[10:]))}
}

// findRockRidge looks for the field SP in the root directory's own record: at
// its start, or behind those of a CD-ROM XA.
func (v *volume) findRockRidge() error {
	rec, err := v.first(v.root.Off)
	if err != nil {
		return err
	}
	const indicator = "SP\x07\x01\xbe\xef"
	for _, xa := range []int{0, 14} {
		if area := systemUse(rec); len(area) >= xa+7 && string(area[xa:xa+6]) == indicator {
			v.names, v.skip = rockRidge, int(area[xa+6])
		}
	}
	return nil
}

// first returns the first record of the directory at off: its own.
func (v *volume) first(off int64) ([]byte, error) {
	buf := make([]byte, sectorSize)
	if _, err := v.r.ReadAt(buf, off); err != nil {
		return nil, err
	}
	return record(buf)
}

// record cuts off the record at the start of buf, the rest of a sector. There
// is none where the length is 0.
func record(buf []byte) ([]byte, error) {
	n := int(buf[0])
	if n == 0 {
		return nil, nil
	}
	if n < recordSize || n > len(buf) || recordSize-1+int(buf[32]) > n {
		return nil, fmt.Errorf("%w: a directory with a record of %d bytes", ErrDamaged, n)
	}
	return buf[:n], nil
}

// identifier is the name in a record.
func identifier(rec []byte) []byte { return rec[33 : 33+int(rec[32])] }

// systemUse is what follows the name in a record: Rock Ridge's fields.
func systemUse(rec []byte) []byte {
	if rec == nil {
		return nil
	}
	start := (33 + int(rec[32]) + 1) &^ 1
	return rec[min(start, len(rec)):]
}

// records calls each with the records of a directory, sector by sector.
func (v *volume) records(dir blockio.Extent, each func(rec []byte) error) error {
	if dir.Len > maxDirectory {
		return fmt.Errorf("%w: a directory of %d bytes", ErrDamaged, dir.Len)
	}
	for at := int64(0); at < dir.Len; at += sectorSize {
		buf := make([]byte, sectorSize)
		if _, err := v.r.ReadAt(buf, dir.Off+at); err != nil {
			return err
		}
		for len(buf) > 0 {
			rec, err := record(buf)
			if err == nil && rec != nil {
				err = each(rec)
			}
			if err != nil {
				return err
			}
			if rec == nil {
				break // the rest of the sector is empty
			}
			buf = buf[len(rec):]
		}
	}
	return nil
}

// list returns the entries of a directory.
func (v *volume) list(dir blockio.Extent) ([]entry, error) {
	l := listing{volume: v}
	if err := v.records(dir, l.add); err != nil {
		return nil, err
	}
	if l.unfinished != "" {
		return nil, l.lacksExtent()
	}
	return l.entries, nil
}

// listing is a directory that is being read. A file of several extents has
// several records, one behind the other, all but the last with a mark.
type listing struct {
	*volume
	entries    []entry
	unfinished string // identifier of the last entry, if it has more records
}

func (l *listing) last() *entry { return &l.entries[len(l.entries)-1] }

func (l *listing) lacksExtent() error {
	return fmt.Errorf("%w: %s lacks an extent", ErrDamaged, l.last().name)
}

// What a record's flags say.
const (
	flags          = 25 // where they are
	flagDirectory  = 0x02
	flagAssociated = 0x04
	flagMore       = 0x80
)

// add takes the next record.
func (l *listing) add(rec []byte) error {
	id := string(identifier(rec))
	if rec[flags]&flagAssociated != 0 || id == "\x00" || id == "\x01" { // "." and ".."
		return nil
	}
	if l.unfinished == "" {
		e, listed, err := l.entry(rec)
		if err != nil || !listed {
			return err
		}
		l.entries = append(l.entries, e)
	} else {
		last := l.last()
		if id != l.unfinished || last.extents[len(last.extents)-1].Len%l.block != 0 {
			return l.lacksExtent()
		}
		last.extents = append(last.extents, l.extent(rec))
	}
	l.unfinished = ""
	if rec[flags]&flagMore != 0 && rec[flags]&flagDirectory == 0 {
		l.unfinished = id
	}
	return nil
}

// entry is what a record describes, if it is to be listed.
func (v *volume) entry(rec []byte) (e entry, listed bool, err error) {
	const unit, gap = 26, 27 // of an interleaved file
	e = entry{name: v.name(string(identifier(rec))), extents: []blockio.Extent{v.extent(rec)}}
	switch {
	case rec[flags]&flagDirectory != 0:
		e.kind = directory
	case rec[unit] != 0 || rec[gap] != 0:
		e.kind = other
	}
	listed, err = v.rockRidge(rec, &e)
	return e, listed, err
}

// name is what an identifier says: a name, a dot even where nothing follows it,
// and a version.
func (v *volume) name(id string) string {
	if v.names == joliet {
		units := make([]uint16, len(id)/2)
		for i := range units {
			units[i] = binary.BigEndian.Uint16([]byte(id[2*i:]))
		}
		id = string(utf16.Decode(units))
	}
	if name, version, ok := strings.Cut(id, ";"); ok && strings.Trim(version, "0123456789") == "" {
		id = name
	}
	if v.names == joliet {
		return id
	}
	return strings.TrimSuffix(id, ".")
}

// rockRidge completes e by the Rock Ridge fields of its record (IEEE P1282). A
// directory that lies elsewhere only because it is nested too deep is not listed
// there.
func (v *volume) rockRidge(rec []byte, e *entry) (listed bool, err error) {
	if v.names != rockRidge {
		return true, nil
	}
	area := systemUse(rec)
	area = area[min(v.skip, len(area)):]
	name, child := "", int64(0)
	for range maxAreas {
		var next []byte
		for len(area) >= 4 {
			n := int(area[2])
			if n < 4 || n > len(area) {
				break // filled up
			}
			f := area[:n]
			area = area[n:]
			switch sign := string(f[:2]); {
			case sign == "NM" && n >= 5:
				name += string(f[5:])
			case sign == "PX" && n >= 8:
				if e.kind == regular && binary.LittleEndian.Uint32(f[4:])&0o170000 != 0o100000 {
					e.kind = other
				}
			case sign == "SL":
				e.kind = other
			case sign == "RE":
				return false, nil
			case sign == "CL" && n >= 8:
				child = int64(binary.LittleEndian.Uint32(f[4:]))
			case sign == "CE" && n >= 24:
				if next, err = v.continuation(f); err != nil {
					return false, err
				}
			case sign == "ST":
				area = nil
			}
		}
		if area = next; area == nil {
			break
		}
	}
	if area != nil {
		return false, fmt.Errorf("%w: %s has too many fields", ErrDamaged, e.name)
	}
	if name != "" {
		e.name = name
	}
	if child != 0 {
		own, err := v.first(child * v.block)
		if err != nil {
			return false, err
		}
		if own == nil {
			return false, fmt.Errorf("%w: %s is not where it should be", ErrDamaged, e.name)
		}
		e.kind, e.extents = directory, []blockio.Extent{v.extent(own)}
	}
	return true, nil
}

// continuation reads the area that a field CE refers to: within a sector.
func (v *volume) continuation(ce []byte) ([]byte, error) {
	number := func(at int) int64 { return int64(binary.LittleEndian.Uint32(ce[at:])) }
	block, off, size := number(4), number(12), number(20)
	if size == 0 || size > sectorSize {
		return nil, fmt.Errorf("%w: fields of %d bytes", ErrDamaged, size)
	}
	buf := make([]byte, size)
	_, err := v.r.ReadAt(buf, block*v.block+off)
	return buf, err
}
