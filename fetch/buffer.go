package fetch

import (
	"math/bits"
	"sync"
)

// buffers are recycled by size: pool k holds those of 2^k bytes. headers holds what they
// are wrapped in there, while they are in use.
var (
	buffers [48]sync.Pool // of *[]byte
	headers = sync.Pool{New: func() any { return new([]byte) }}
)

// bufferClass is the pool of buffers for n bytes.
func bufferClass(n int64) int { return bits.Len64(uint64(max(n, 1) - 1)) }

// bufferSize is what a buffer for n bytes takes.
func bufferSize(n int64) int64 { return 1 << bufferClass(n) }

// getBuffer returns n bytes of any content.
func getBuffer(n int64) []byte {
	header, ok := buffers[bufferClass(n)].Get().(*[]byte)
	if !ok {
		return make([]byte, n, bufferSize(n))
	}
	b := *header
	*header = nil
	headers.Put(header)
	return b[:n]
}

// putBuffer gives back what getBuffer returned. nil is let pass.
func putBuffer(b []byte) {
	if b != nil {
		header := headers.Get().(*[]byte)
		*header = b[:cap(b)]
		buffers[bufferClass(int64(cap(b)))].Put(header)
	}
}
