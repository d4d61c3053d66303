package inflate

import "math/bits"

// entry says what a code means. Tables are indexed by the next bits of the stream. From
// the lowest bit on:
//
//	 8 bits: how many bits to take: the code, and what follows it
//	 4 bits: how many of those are the code; of a pointer: the bits of its subtable
//	 1 bit unused, then end, pointer and exception
//	16 bits: the value, the lowest of a length or distance, or where a subtable begins;
//	         the highest bit is literal
type entry uint32

const (
	valueShift = 16
	codeShift  = 8

	literal   entry = 1 << 31
	exception entry = 1 << 15 // neither a literal nor a length or distance
	pointer   entry = 1 << 14 // to a subtable, for codes that are longer than the index
	end       entry = 1 << 13 // of the block
)

// Index bits of the tables, and their sizes: 2342 and 402 entries at most with the
// subtables of any code of up to 15 bits, rounded up so that a mask is a bounds check.
const (
	maxBits      = 15
	literalBits  = 11
	distanceBits = 8
	precodeBits  = 7

	literalsSize  = 4096
	distancesSize = 512
)

// build fills a table, which is indexed by up to indexBits bits, for the canonical code
// (RFC 1951, 3.2.2) with these lengths: 0 stands for symbols without a code. A code has
// to be complete, but that one without symbols and one of a single symbol of one bit are
// taken, as by others; where nothing is assigned there is an exception.
func build(table []entry, indexBits uint, lengths []uint8, symbols []entry) error {
	var count [maxBits + 1]int
	for _, n := range lengths {
		count[n]++
	}
	unused := 1 // codes of n bits
	for _, n := range count[1:] {
		unused = unused<<1 - n
		if unused < 0 {
			return ErrCorrupt
		}
	}
	if unused > 0 {
		return buildIncomplete(table[:1<<indexBits], lengths, symbols)
	}

	// Symbols in the order of their codes.
	var next [maxBits + 1]int
	for n := 1; n < maxBits; n++ {
		next[n+1] = next[n] + count[n]
	}
	var sorted [maxLiterals]uint16
	for symbol, n := range lengths {
		if n > 0 {
			sorted[next[n]] = uint16(symbol)
			next[n]++
		}
	}
	fill(table, indexBits, &count, sorted[:], symbols)
	return nil
}

// fill fills a table for a complete code. Codes come with their first bit lowest, so that
// what follows a code is above it in the index: a table of one more bit is one and the
// same table twice, until the codes of its length are entered.
func fill(table []entry, indexBits uint, count *[maxBits + 1]int, sorted []uint16, symbols []entry) {
	n := uint(1)
	for count[n] == 0 {
		n++
	}
	code, done := uint(0), false
	for size := uint(1) << n; n <= indexBits; n, size = n+1, size*2 {
		for range count[n] {
			table[code] = symbols[sorted[0]] + entry(n)<<codeShift + entry(n)
			sorted = sorted[1:]
			code, done = increment(code, n)
		}
		if n < indexBits {
			copy(table[size:2*size], table[:size])
		}
	}
	if done {
		return
	}

	next := uint(1) << indexBits // where a subtable has room
	prefix, start, size := ^uint(0), uint(0), uint(0)
	for ; !done; n++ {
		for left := count[n]; left > 0; left-- {
			if code&(1<<indexBits-1) != prefix {
				prefix, start = code&(1<<indexBits-1), next
				k := subtableBits(count, n, indexBits, left)
				size = 1 << k
				next += size
				table[prefix] = exception | pointer | entry(start)<<valueShift | entry(k)<<codeShift | entry(indexBits)
			}
			e := symbols[sorted[0]] + entry(n-indexBits)<<codeShift + entry(n-indexBits)
			sorted = sorted[1:]
			for i := code >> indexBits; i < size; i += 1 << (n - indexBits) {
				table[start+i] = e
			}
			code, done = increment(code, n)
		}
	}
}

// increment is the code of n bits that follows another; done says that there is none.
func increment(code, n uint) (next uint, done bool) {
	zeros := code ^ (1<<n - 1)
	if zeros == 0 {
		return code, true
	}
	highest := uint(1) << (bits.Len(zeros) - 1)
	return code&(highest-1) | highest, false
}

// subtableBits is how many bits index a subtable whose first code has n bits, of which so
// many are left.
func subtableBits(count *[maxBits + 1]int, n, indexBits uint, left int) uint {
	k := n - indexBits
	for codes := left; codes < 1<<k; n++ {
		codes = codes<<1 + count[n+1]
		k++
	}
	return k
}

// buildIncomplete is build for a code that lacks symbols.
func buildIncomplete(table []entry, lengths []uint8, symbols []entry) error {
	for i := range table {
		table[i] = exception
	}
	for symbol, n := range lengths {
		if n == 0 {
			continue
		}
		if n > 1 { // with two of one bit it would be complete
			return ErrCorrupt
		}
		for i := 0; i < len(table); i += 2 {
			table[i] = symbols[symbol] + 1<<codeShift + 1
		}
	}
	return nil
}

// codeBits is how many bits the code has that is left to take; of a pointer, how many
// index its subtable.
func (e entry) codeBits() uint { return uint(e>>codeShift) & 15 }
