package blockiotest

import (
	"bytes"
	"context"
	"io"
	"math/rand/v2"
	"testing"
	"testing/iotest"

	"github.com/cloopfs/cloopfs/blockio"
)

// TestRanges checks that the streams of src bring the bytes of want.
func TestRanges(t *testing.T, src blockio.Ranges, want []byte) {
	t.Helper()
	size := int64(len(want))
	if got := src.Size(); got != size {
		t.Fatalf("Size() = %d, want %d", got, size)
	}
	t.Run("streams", func(t *testing.T) {
		for _, c := range []struct{ off, n int64 }{{0, size}, {0, 1}, {size - 1, 1}, {size / 3, size / 3}, {size / 2, 0}} {
			body := open(t, t.Context(), src, c.off, c.n)
			if err := iotest.TestReader(body, want[c.off:c.off+c.n]); err != nil {
				t.Errorf("bytes %d+%d: %v", c.off, c.n, err)
			}
			body.Close()
		}
	})
	t.Run("refetch", func(t *testing.T) {
		body, err := src.OpenRange(t.Context(), blockio.Range{Extent: blockio.Extent{Len: size}, Refetch: true})
		if err != nil {
			t.Fatal(err)
		}
		defer body.Close()
		if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, want) {
			t.Errorf("refetch: %d bytes, %v; want the source's %d", len(got), err, size)
		}
	})
	t.Run("closed early", func(t *testing.T) {
		for range 3 {
			body := open(t, t.Context(), src, 0, size)
			if _, err := io.ReadFull(body, make([]byte, 1)); err != nil {
				t.Error(err)
			}
			body.Close()
		}
	})
	t.Run("out of bounds", func(t *testing.T) {
		for _, e := range []blockio.Extent{{Off: -1, Len: 1}, {Off: 0, Len: size + 1}, {Off: size, Len: 1}, {Off: 0, Len: -1}} {
			body, err := src.OpenRange(t.Context(), blockio.Range{Extent: e})
			if err == nil {
				_, err = io.ReadAll(body)
				body.Close()
			}
			if err == nil {
				t.Errorf("bytes %d+%d of %d: no error", e.Off, e.Len, size)
			}
		}
	})
	t.Run("ended context", func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		body := open(t, ctx, src, 0, size)
		defer body.Close()
		cancel()
		if got, err := io.ReadAll(body); err == nil && !bytes.Equal(got, want) {
			t.Error("a stream under an ended context brought other bytes and no error")
		}
	})
	t.Run("parallel", func(t *testing.T) {
		inParallel(25, func(rnd *rand.Rand) {
			off := rnd.Int64N(size)
			n := rnd.Int64N(min(size-off, 1<<18) + 1)
			p := make([]byte, n)
			if _, err := blockio.ReadRange(t.Context(), src, p, off); err != nil && err != io.EOF {
				t.Errorf("bytes %d+%d: %v", off, n, err)
			} else if !bytes.Equal(p, want[off:off+n]) {
				t.Errorf("bytes %d+%d: other bytes", off, n)
			}
		})
	})
}

func open(t *testing.T, ctx context.Context, src blockio.Ranges, off, n int64) io.ReadCloser {
	t.Helper()
	body, err := src.OpenRange(ctx, blockio.Range{Extent: blockio.Extent{Off: off, Len: n}})
	if err != nil {
		t.Fatalf("OpenRange(%d+%d): %v", off, n, err)
	}
	return body
}
