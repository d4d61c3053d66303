package cache

import (
	"encoding/binary"
	"io"
	"slices"

	"github.com/zeebo/xxh3"
)

// sumSize is the size of an entry of a table.
const sumSize = 8

// sumOf is the checksum of p as tables have it: XXH3 of 64 bits, and 1 in place of
// 0, which says that nothing is here.
func sumOf(p []byte) uint64 {
	if sum := xxh3.Hash(p); sum != 0 {
		return sum
	}
	return 1
}

// matches says whether p is what was stored with sum. Every read asks: another
// process may throw bytes away at any time, and a crash keeps what it likes.
func matches(p []byte, sum uint64) bool { return sum != 0 && sumOf(p) == sum }

// table is a file of checksums. What is not there, or can't be read, is 0.
type table struct{ file }

// load returns entries [first, first+n).
func (t table) load(first, n int64) []uint64 {
	raw := make([]byte, n*sumSize)
	got, _ := t.ReadAt(raw, first*sumSize)
	sums := make([]uint64, n)
	for i := range got / sumSize {
		sums[i] = binary.LittleEndian.Uint64(raw[i*sumSize:])
	}
	return sums
}

// loadOne returns entry n.
func (t table) loadOne(n int64) uint64 {
	var raw [sumSize]byte
	if _, err := t.ReadAt(raw[:], n*sumSize); err != nil {
		return 0
	}
	return binary.LittleEndian.Uint64(raw[:])
}

// store sets the entries from first on.
func (t table) store(first int64, sums ...uint64) error {
	raw := make([]byte, 0, len(sums)*sumSize)
	for _, sum := range sums {
		raw = binary.LittleEndian.AppendUint64(raw, sum)
	}
	_, err := t.WriteAt(raw, first*sumSize)
	return err
}

// clear sets entries [first, first+n) to 0, as far as there are any.
func (t table) clear(first, n int64) error {
	zeros := make([]byte, 64<<10)
	for off, end := first*sumSize, (first+n)*sumSize; off < end; {
		at, err := t.NextData(off)
		if err == io.EOF || at >= end {
			return nil
		}
		if err != nil {
			return err
		}
		off = max(off, at)
		p := zeros[:min(int64(len(zeros)), end-off)]
		if _, err := t.WriteAt(p, off); err != nil {
			return err
		}
		off += int64(len(p))
	}
	return nil
}

// count is how many entries are not 0.
func (t table) count() (n int64) {
	raw := make([]byte, 64<<10)
	for off := int64(0); ; {
		if at, err := t.NextData(off); err == io.EOF {
			return n
		} else if err == nil { // else a file system that does not tell
			off = max(off, at/sumSize*sumSize)
		}
		got, _ := t.ReadAt(raw, off)
		for i := range got / sumSize {
			if binary.LittleEndian.Uint64(raw[i*sumSize:]) != 0 {
				n++
			}
		}
		if got < len(raw) {
			return n
		}
		off += int64(got)
	}
}

// hasSum says whether some of the entries are not 0.
func hasSum(sums []uint64) bool {
	return slices.ContainsFunc(sums, func(sum uint64) bool { return sum != 0 })
}
