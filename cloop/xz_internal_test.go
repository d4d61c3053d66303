package cloop

import (
	"bytes"
	"encoding/binary"
	"hash/crc32"
	"os"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// largestDictionary makes an xz stream of one block and one filter name a dictionary of
// 64 MiB.
func largestDictionary(tb testing.TB, stream []byte) []byte {
	tb.Helper()
	const blockHeader = 12
	s := bytes.Clone(stream)
	header := s[blockHeader:][:4*(int(s[blockHeader])+1)]
	filter := bytes.LastIndex(header[:len(header)-4], []byte{0x21, 1}) // LZMA2, one byte of properties
	if filter < 0 {
		tb.Fatalf("block header % x", header)
	}
	header[filter+2] = 28
	binary.LittleEndian.PutUint32(header[len(header)-4:], crc32.ChecksumIEEE(header[:len(header)-4]))
	return s
}

// resident is how many bytes of memory this process takes.
func resident(tb testing.TB) int64 {
	tb.Helper()
	statm, err := os.ReadFile("/proc/self/statm")
	if err != nil {
		tb.Fatal(err)
	}
	pages, err := strconv.ParseInt(strings.Fields(string(statm))[1], 10, 64)
	if err != nil {
		tb.Fatal(err)
	}
	return pages * int64(os.Getpagesize())
}

// Of the dictionary that a block names no more memory is taken than the block fills.
func TestXZMemory(t *testing.T) {
	want := bytes.Repeat([]byte("never more than it needs "), 2000)
	stored, _, err := newEncoder(Encoding{Method: XZ, BlockSize: 1 << 20}).encode(nil, want)
	if err != nil {
		t.Fatal(err)
	}
	big := largestDictionary(t, stored)
	before := resident(t)
	var wg sync.WaitGroup
	for range 8 * cap(xzReaders) {
		wg.Go(func() {
			got := make([]byte, len(want))
			if n, err := decodeXZ(got, big); err != nil || !bytes.Equal(got[:n], want) {
				t.Errorf("%d bytes, error %v", n, err)
			}
		})
	}
	wg.Wait()
	if more := resident(t) - before; more > 16<<20 {
		t.Errorf("takes %d KiB more", more>>10)
	}
}
