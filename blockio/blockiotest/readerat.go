package blockiotest

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
)

// TestReaderAt checks that r reads as want: the whole, parts of every kind,
// the end, beyond it, and all that from many goroutines at a time; and that what it knows
// of its zeros is true.
func TestReaderAt(t *testing.T, r blockio.ReaderAt, want []byte) {
	t.Helper()
	size := int64(len(want))
	if got := r.Size(); got != size {
		t.Fatalf("Size() = %d, want %d", got, size)
	}
	t.Run("whole", func(t *testing.T) { readAt(t, r, want, 0, size) })
	t.Run("ends", func(t *testing.T) {
		for _, c := range []struct{ off, n int64 }{
			{0, 0},
			{0, 1},
			{size - 1, 1},
			{size, 0},
			{size, 1},
			{size + 1, 1},
			{size + 1, 0},
			{size - 1, 2},
			{max(0, size-10), 20},
			{0, size + 1},
		} {
			readAt(t, r, want, c.off, c.n)
		}
	})
	t.Run("negative offset", func(t *testing.T) {
		if n, err := r.ReadAtContext(t.Context(), make([]byte, 1), -1); err == nil || err == io.EOF || n != 0 {
			t.Errorf("ReadAtContext(1 byte, -1) = %d, %v; want 0 and an error", n, err)
		}
	})
	t.Run("random, in parallel", func(t *testing.T) {
		inParallel(20, func(rnd *rand.Rand) { readAt(t, r, want, rnd.Int64N(size+1), rnd.Int64N(min(size, 1<<20)+2)) })
	})
	t.Run("map", func(t *testing.T) { checkMap(t, r, want) })
	t.Run("ended context", func(t *testing.T) {
		// What is at hand may still be read; what is not must not hang.
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		p := make([]byte, size)
		if n, err := r.ReadAtContext(ctx, p, 0); err == nil && !bytes.Equal(p[:n], want) {
			t.Error("a read under an ended context returned other bytes and no error")
		}
	})
}

// readAt reads n bytes at off and compares bytes, count and error.
func readAt(t *testing.T, r blockio.ReaderAt, want []byte, off, n int64) {
	t.Helper()
	size := int64(len(want))
	from, to := min(off, size), min(off+n, size)
	wantN, wantErr := int(to-from), error(nil)
	if int64(wantN) < n {
		wantErr = io.EOF
	}
	p := bytes.Repeat([]byte{0xa5}, int(n)) // zeros have to be written, too
	got, err := r.ReadAtContext(t.Context(), p, off)
	if got != wantN || err != wantErr {
		t.Errorf("ReadAtContext(%d bytes, %d) = %d, %v; want %d, %v", n, off, got, err, wantN, wantErr)
	} else if !bytes.Equal(p[:got], want[from:to]) {
		t.Errorf("ReadAtContext(%d bytes, %d) returned other bytes", n, off)
	}
}
