package fetch

import (
	"math/bits"
	"sync"
)

// buffers are recycled by size: pool k holds those of 2^k bytes.
var buffers [48]sync.Pool

// bufferClass is the pool of buffers for n bytes.
func bufferClass(n int64) int { return bits.Len64(uint64(max(n, 1) - 1)) }

// bufferSize is what a buffer for n bytes takes.
func bufferSize(n int64) int64 { return 1 << bufferClass(n) }

// getBuffer returns n bytes of any content.
func getBuffer(n int64) []byte {
	if b, ok := buffers[bufferClass(n)].Get().(*[]byte); ok {
		return (*b)[:n]
	}
	return make([]byte, n, bufferSize(n))
}

// putBuffer gives back what getBuffer returned. nil is let pass.
func putBuffer(b []byte) {
	if b != nil {
		b = b[:cap(b)]
		buffers[bufferClass(int64(cap(b)))].Put(&b)
	}
}
