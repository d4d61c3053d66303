//go:build integration

package test

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/internal/testserver"
)

const (
	pageSize = 4096
	kib      = 1 << 10
	mib      = 1 << 20
)

// synthetic is a V2.0 image whose stored blocks have the sizes a test needs.
type synthetic struct {
	blockSize int
	image     []byte
	disk      []byte // what image decodes to
	offsets   []int  // of the stored blocks in image, and of the end of the last
}

// makeImage makes an image of as many blocks as sizes are given, each the size of
// a stored block in bytes (see makeBlock). No two pages of the disk are equal,
// except for zeros.
func makeImage(t *testing.T, blockSize int, sizes ...int) *synthetic {
	t.Helper()
	s := &synthetic{blockSize: blockSize}
	var stored [][]byte
	for n, size := range sizes {
		block, packed, err := makeBlock(uint64(n), blockSize, size)
		if err != nil {
			t.Fatal(err)
		}
		s.disk = append(s.disk, block...)
		stored = append(stored, packed)
	}
	s.image = clooptest.Assemble(blockSize, stored)
	off := len(s.image) - len(bytes.Join(stored, nil))
	for _, packed := range stored {
		s.offsets = append(s.offsets, off)
		off += len(packed)
	}
	s.offsets = append(s.offsets, off)
	return s
}

// makeBlock makes a block of noise and then zeros that is stored in size bytes.
// Size 0 means nothing but zeros, blockSize nothing but noise; these are stored
// in a few bytes more.
func makeBlock(seed uint64, blockSize, size int) (block, packed []byte, err error) {
	noise := size
	for try := range 1000 {
		block = make([]byte, blockSize)
		var key [32]byte
		binary.BigEndian.PutUint64(key[:], seed)
		binary.BigEndian.PutUint64(key[8:], uint64(try/10)) // in case that no length fits
		_, _ = rand.NewChaCha8(key).Read(block[:noise])     // never fails
		packed, err := compress(block[:noise], block[noise:])
		if err != nil {
			return nil, nil, err
		}
		if size == 0 || size == blockSize || len(packed) == size {
			return block, packed, nil
		}
		noise = max(0, noise+size-len(packed))
	}
	return nil, nil, fmt.Errorf("no block of %d bytes is stored in %d", blockSize, size)
}

// compress makes one zlib stream of parts, each compressed on its own.
func compress(parts ...[]byte) ([]byte, error) {
	var out bytes.Buffer
	w, err := zlib.NewWriterLevel(&out, zlib.BestSpeed)
	if err != nil {
		return nil, err
	}
	for _, part := range parts {
		if _, err := w.Write(part); err != nil {
			return nil, err
		}
		if err := w.Flush(); err != nil {
			return nil, err
		}
	}
	err = w.Close()
	return out.Bytes(), err
}

// blocks is n sizes of stored blocks.
func blocks(n, size int) []int {
	sizes := make([]int, n)
	for i := range sizes {
		sizes[i] = size
	}
	return sizes
}

// stored is the offset and the size of stored block n.
func (s *synthetic) stored(n int) (off, size int) {
	return s.offsets[n], s.offsets[n+1] - s.offsets[n]
}

// block is decoded block n.
func (s *synthetic) block(n int) []byte { return s.disk[n*s.blockSize : (n+1)*s.blockSize] }

// serve starts a test server with one file and returns that file's URL.
func serve(t testing.TB, image []byte) (*testserver.Server, string) {
	t.Helper()
	srv, err := testserver.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(srv.Close)
	srv.AddBytes("disk.cloop", image)
	return srv, srv.URL("disk.cloop")
}

// serveFile starts a test server with the file at path and returns its URL.
func serveFile(t testing.TB, path string) string {
	t.Helper()
	srv, url := serve(t, nil)
	if err := srv.AddFile("disk.cloop", path); err != nil {
		t.Fatal(err)
	}
	return url
}

// asked says whether a request for the byte of the image at off has arrived.
func asked(srv *testserver.Server, off int) bool {
	for _, r := range srv.Stats().Ranges {
		if r.Off <= int64(off) && int64(off) < r.Off+r.Len {
			return true
		}
	}
	return false
}

// lastModified is what the test server says of files given as bytes.
var lastModified = time.Date(2020, time.January, 2, 3, 4, 5, 0, time.UTC)

// directRead is a reader of size bytes of file at off, past the page cache.
func directRead(file string, off, size int) []string {
	return []string{
		"dd", "if=" + file, "iflag=direct,skip_bytes", "status=none",
		fmt.Sprintf("bs=%d", size), fmt.Sprintf("skip=%d", off), "count=1",
	}
}

// bufferedRead is a reader of size bytes of file at off, through the page cache.
func bufferedRead(file string, off, size int) []string {
	return []string{
		"dd", "if=" + file, "iflag=skip_bytes", "status=none",
		fmt.Sprintf("bs=%d", size), fmt.Sprintf("skip=%d", off), "count=1",
	}
}

// checkBytes compares what a reader got with what is on the disk.
func checkBytes(t *testing.T, what, got string, want []byte) {
	t.Helper()
	if got == string(want) {
		return
	}
	if len(got) != len(want) {
		t.Fatalf("%s: got %d bytes, want %d", what, len(got), len(want))
	}
	for i := range want {
		if got[i] != want[i] {
			t.Fatalf("%s: byte %d is %#x, want %#x", what, i, got[i], want[i])
		}
	}
}
