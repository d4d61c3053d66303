package fetch

import (
	"math/bits"
	"sync"
)

// buffers are recycled by size: pool k holds those of 2^k bytes.
var buffers [48]sync.Pool

// getBuffer returns n bytes of any content.
func getBuffer(n int64) []byte {
	k := bits.Len64(uint64(max(n, 1) - 1))
	if b, ok := buffers[k].Get().(*[]byte); ok {
		return (*b)[:n]
	}
	return make([]byte, n, 1<<k)
}

// putBuffer gives back what getBuffer returned. nil is let pass.
func putBuffer(b []byte) {
	if b != nil {
		b = b[:cap(b)]
		buffers[bits.Len64(uint64(cap(b))-1)].Put(&b)
	}
}
