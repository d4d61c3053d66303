package blockiotest

import (
	"bytes"
	"math/rand/v2"
	"sync/atomic"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
)

// Handy is a source whose first Near bytes are at hand.
type Handy struct {
	*Source
	Near int64
}

// ReadNow reads what is at hand.
func (h Handy) ReadNow(p []byte, off int64) bool {
	return off >= 0 && off+int64(len(p)) <= h.Near && copy(p, h.Data[off:]) == len(p)
}

// TestPrompt checks that what src has at hand is as want, and that it has nothing beyond
// that. If all is set, it must have everything at hand.
func TestPrompt(t *testing.T, src blockio.Prompt, want []byte, all bool) {
	t.Helper()
	size := int64(len(want))
	var reads, done atomic.Int64
	read := func(off, n int64) {
		p := make([]byte, n)
		reads.Add(1)
		if !src.ReadNow(p, off) {
			return
		}
		done.Add(1)
		if !bytes.Equal(p, want[off:off+n]) {
			t.Errorf("ReadNow(%d bytes, %d): other bytes", n, off)
		}
	}
	read(0, size)
	read(size-1, 1)
	inParallel(20, func(rnd *rand.Rand) {
		off := rnd.Int64N(size)
		read(off, 1+rnd.Int64N(size-off))
	})
	if all && done.Load() != reads.Load() {
		t.Errorf("%d of %d reads were not at hand", reads.Load()-done.Load(), reads.Load())
	}
	for _, beyond := range []blockio.Extent{{Off: -1, Len: 1}, {Off: 0, Len: size + 1}, {Off: size, Len: 1}, {Off: size + 1, Len: 1}} {
		if src.ReadNow(make([]byte, beyond.Len), beyond.Off) {
			t.Errorf("ReadNow(%d bytes, %d) of %d bytes has succeeded", beyond.Len, beyond.Off, size)
		}
	}
}
