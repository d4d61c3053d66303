package inflate

import "encoding/binary"

// decoder decodes a raw deflate stream. Its tables are as the last block left them.
type decoder struct {
	src []byte
	in  int // of src, what is in bits or was there
	// bits holds the next bits of the stream, the first one lowest: count of them, and
	// above those zeros or bits that come again with the next refill.
	bits  uint64
	count uint

	dst []byte
	out int // of dst

	literals  [literalsSize]entry // literals and lengths
	distances [distancesSize]entry
	fixed     bool // the tables hold the fixed codes
	lengths   [maxLiterals + maxDistances]uint8
}

// inflate decodes the stream at the beginning of src and returns what it has come to and
// how long it was.
func (d *decoder) inflate(dst, src []byte) (n, used int, err error) {
	d.src, d.in, d.bits, d.count = src, 0, 0, 0
	d.dst, d.out = dst, 0
	for last := false; !last; {
		if last, err = d.block(); err != nil {
			break
		}
	}
	d.giveBack()
	d.src, d.dst = nil, nil // they are not ours
	return d.out, d.in, err
}

// block decodes a block (RFC 1951, 3.2.3).
func (d *decoder) block() (last bool, err error) {
	d.refill()
	if d.count < 3 {
		return false, ErrTruncated
	}
	head := d.take(3)
	switch head >> 1 {
	case 0:
		return head&1 != 0, d.stored()
	case 1:
		d.useFixed()
	case 2:
		if err := d.readCodes(); err != nil {
			return false, err
		}
	default:
		return false, ErrCorrupt
	}
	return head&1 != 0, d.symbols()
}

// symbols decodes the rest of a block, whose codes are in the tables.
func (d *decoder) symbols() error {
	done, err := d.fast()
	if done || err != nil {
		return err
	}
	return d.careful()
}

// refill has at least 56 bits in bits, or all that are left.
func (d *decoder) refill() {
	if d.in+8 <= len(d.src) {
		d.bits |= binary.LittleEndian.Uint64(d.src[d.in:]) << d.count
		d.in += int(63-d.count) >> 3
		d.count |= 56
		return
	}
	for d.count < 56 && d.in < len(d.src) {
		d.bits |= uint64(d.src[d.in]) << d.count
		d.in++
		d.count += 8
	}
}

// take takes n of the count bits.
func (d *decoder) take(n uint) uint {
	v := uint(d.bits & (1<<n - 1))
	d.bits >>= n
	d.count -= n
	return v
}

// giveBack drops the bits up to the next byte of the stream, and has that as the next one
// of src.
func (d *decoder) giveBack() {
	d.in -= int(d.count >> 3)
	d.bits, d.count = 0, 0
}

// stored copies a block that is not compressed.
func (d *decoder) stored() error {
	d.giveBack()
	if len(d.src)-d.in < 4 {
		return ErrTruncated
	}
	n := binary.LittleEndian.Uint16(d.src[d.in:])
	if n != ^binary.LittleEndian.Uint16(d.src[d.in+2:]) {
		return ErrCorrupt
	}
	d.in += 4
	if len(d.src)-d.in < int(n) {
		return ErrTruncated
	}
	if len(d.dst)-d.out < int(n) {
		return ErrTooLong
	}
	copy(d.dst[d.out:], d.src[d.in:][:n])
	d.in += int(n)
	d.out += int(n)
	return nil
}
