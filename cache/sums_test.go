package cache

import "testing"

// The format's checksum is that of the reference implementation (xxhsum -H3), so
// that a cache stays right with another library.
func TestSumOf(t *testing.T) {
	page := make([]byte, chunkSize)
	for i := range page {
		page[i] = byte(i * 7)
	}
	for _, c := range []struct {
		name string
		p    []byte
		want uint64
	}{
		{"nothing", nil, 0x2d06800538d394c2},
		{"abc", []byte("abc"), 0x78af5f94892f3950},
		{"a page", page, 0x8fb047a89e810965},
	} {
		if got := sumOf(c.p); got != c.want {
			t.Errorf("%s: %016x, want %016x", c.name, got, c.want)
		}
	}
}
