package inflate

// careful decodes the rest of a block, with every access checked. It is for the ends of
// the buffers.
func (d *decoder) careful() error {
	for {
		d.refill()
		e, value, err := d.next(d.literals[:], literalBits)
		switch {
		case err != nil:
			return err
		case e&literal != 0:
			if d.out == len(d.dst) {
				return ErrTooLong
			}
			d.dst[d.out] = byte(value)
			d.out++
			continue
		case e&end != 0:
			return nil
		case e&exception != 0:
			return ErrCorrupt
		}
		d.refill()
		e, distance, err := d.next(d.distances[:], distanceBits)
		if err != nil {
			return err
		}
		if e&exception != 0 || distance > d.out {
			return ErrCorrupt
		}
		if value > len(d.dst)-d.out {
			return ErrTooLong
		}
		repeat(d.dst[d.out-distance:d.out+value], distance)
		d.out += value
	}
}

// next takes a code, and the bits that belong to it, and returns what it means.
func (d *decoder) next(table []entry, indexBits uint) (e entry, value int, err error) {
	e = table[d.bits&(1<<indexBits-1)]
	if e&pointer != 0 {
		if d.count < indexBits {
			return 0, 0, ErrTruncated
		}
		d.take(indexBits)
		i := uint64(e >> valueShift)
		e = table[i+d.bits&(1<<e.codeBits()-1)]
	}
	n := uint(e & 0xff)
	if d.count < n {
		return 0, 0, ErrTruncated
	}
	bits := d.take(n)
	return e, int(e&^literal>>valueShift) + int(bits>>e.codeBits()), nil
}

// repeat fills b[distance:] with what is before it.
func repeat(b []byte, distance int) {
	for n := distance; n < len(b); n *= 2 {
		copy(b[n:], b[:n])
	}
}
