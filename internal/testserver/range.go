package testserver

import (
	"fmt"
	"math"
	"strconv"
	"strings"
)

// parseRange reads a Range header that asks for length bytes at off of a file of
// size bytes. ok is false if there is no header, or one to ignore: another unit,
// several ranges, or nonsense. A range that cannot be satisfied is ok.
func parseRange(header string, size int64) (off, length int64, ok bool) {
	spec, ok := strings.CutPrefix(header, "bytes=")
	if !ok {
		return 0, 0, false
	}
	from, to, ok := strings.Cut(spec, "-")
	if !ok {
		return 0, 0, false
	}
	first, errFirst := strconv.ParseUint(from, 10, 63)
	last, errLast := strconv.ParseUint(to, 10, 63)
	switch {
	case errFirst == nil && errLast == nil && first <= last: // bytes=a-b
		last = min(last, math.MaxInt64-1) // so that the length fits
		return int64(first), int64(last) - int64(first) + 1, true
	case errFirst == nil && to == "": // bytes=a-
		return int64(first), max(0, size-int64(first)), true
	case from == "" && errLast == nil: // bytes=-n
		length = min(int64(last), size)
		return size - length, length, true
	}
	return 0, 0, false
}

// formatRange is the Range header for length bytes at off. No bytes are not a
// range; the header then asks for all from off, which is at or after the file's
// end, so that it cannot be satisfied either.
func formatRange(off, length int64) string {
	if length == 0 {
		return fmt.Sprintf("bytes=%d-", off)
	}
	return fmt.Sprintf("bytes=%d-%d", off, off+length-1)
}
