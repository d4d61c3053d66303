package inflate

// Alphabets of RFC 1951, 3.2.5 and 3.2.7.
const (
	maxLiterals  = 288 // of which 286 and 287 mean nothing
	maxDistances = 32  // of which 30 and 31 mean nothing
	maxPrecodes  = 19
	endOfBlock   = 256
)

// literalSymbols, distanceSymbols and precodeSymbols are what tables have for each
// symbol, but for the length of its code.
var (
	literalSymbols  = makeLiterals()
	distanceSymbols = makeDistances()
	precodeSymbols  = makePrecodes()
)

func makeLiterals() (s [maxLiterals]entry) {
	for i := range endOfBlock {
		s[i] = literal | entry(i)<<valueShift
	}
	s[endOfBlock] = exception | end
	// In groups of four the lengths have one more bit each than the group before.
	base := entry(3)
	for i := range entry(28) {
		extra := max(i/4, 1) - 1
		s[endOfBlock+1+i] = base<<valueShift | extra
		base += 1 << extra
	}
	s[endOfBlock+29] = 258 << valueShift
	s[286], s[287] = exception, exception
	return s
}

func makeDistances() (s [maxDistances]entry) {
	// In groups of two.
	base := entry(1)
	for i := range entry(30) {
		extra := max(i/2, 1) - 1
		s[i] = base<<valueShift | extra
		base += 1 << extra
	}
	s[30], s[31] = exception, exception
	return s
}

func makePrecodes() (s [maxPrecodes]entry) {
	for i := range s {
		s[i] = entry(i) << valueShift
	}
	return s
}

// precodeOrder is the order in which lengths of the code for lengths come.
var precodeOrder = [maxPrecodes]uint8{16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15}

// useFixed fills the tables with the fixed codes (RFC 1951, 3.2.6).
func (d *decoder) useFixed() {
	if d.fixed {
		return
	}
	lengths := &d.lengths
	for i := range maxLiterals {
		switch {
		case i < 144:
			lengths[i] = 8
		case i < 256:
			lengths[i] = 9
		case i < 280:
			lengths[i] = 7
		default:
			lengths[i] = 8
		}
	}
	for i := range maxDistances {
		lengths[maxLiterals+i] = 5
	}
	// They are complete.
	_ = build(d.literals[:], literalBits, lengths[:maxLiterals], literalSymbols[:])
	_ = build(d.distances[:], distanceBits, lengths[maxLiterals:], distanceSymbols[:])
	d.fixed = true
}

// readCodes reads the codes of a block into the tables (RFC 1951, 3.2.7).
func (d *decoder) readCodes() error {
	d.fixed = false
	d.refill()
	if d.count < 14 {
		return ErrTruncated
	}
	literals, distances, precodes := 257+d.take(5), 1+d.take(5), 4+d.take(4)
	if literals > 286 || distances > 30 {
		return ErrCorrupt
	}
	var lengths [maxPrecodes]uint8
	for _, symbol := range precodeOrder[:precodes] {
		if d.count < 3 {
			if d.refill(); d.count < 3 {
				return ErrTruncated
			}
		}
		lengths[symbol] = uint8(d.take(3))
	}
	// Its table is overwritten when all lengths are known.
	precode := d.distances[:1<<precodeBits]
	if err := build(precode, precodeBits, lengths[:], precodeSymbols[:]); err != nil {
		return err
	}
	if err := d.readLengths((*[1 << precodeBits]entry)(precode), d.lengths[:literals+distances]); err != nil {
		return err
	}
	if err := build(d.literals[:], literalBits, d.lengths[:literals], literalSymbols[:]); err != nil {
		return err
	}
	return build(d.distances[:], distanceBits, d.lengths[literals:literals+distances], distanceSymbols[:])
}

// readLengths reads the lengths of codes.
func (d *decoder) readLengths(precode *[1 << precodeBits]entry, lengths []uint8) error {
	for i := 0; i < len(lengths); {
		if d.count < precodeBits+7 {
			d.refill()
		}
		e := precode[d.bits&(1<<precodeBits-1)]
		if e&exception != 0 {
			return ErrCorrupt
		}
		if d.count < uint(e&0xff) {
			return ErrTruncated
		}
		d.take(uint(e & 0xff))
		symbol := e >> valueShift
		if symbol < 16 {
			lengths[i] = uint8(symbol)
			i++
			continue
		}
		var extra, n uint
		value := uint8(0)
		switch symbol {
		case 16:
			if i == 0 {
				return ErrCorrupt
			}
			value, extra, n = lengths[i-1], 2, 3
		case 17:
			extra, n = 3, 3
		default:
			extra, n = 7, 11
		}
		if d.count < extra {
			return ErrTruncated
		}
		n += d.take(extra)
		if n > uint(len(lengths)-i) {
			return ErrCorrupt
		}
		for range n {
			lengths[i] = value
			i++
		}
	}
	return nil
}
