package blockio_test

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
)

func TestSourceConforms(t *testing.T) {
	src := &blockiotest.Source{Data: []byte(strings.Repeat("0123456789abcdef", 500))}
	blockiotest.TestRanges(t, src, src.Data)
	blockiotest.TestReaderAt(t, src, src.Data)
}

func TestReadRangeShortSource(t *testing.T) {
	src := &blockiotest.Source{
		Data: make([]byte, 100),
		Open: func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			return io.LimitReader(body, 10), nil
		},
	}
	n, err := blockio.ReadRange(t.Context(), src, make([]byte, 50), 0)
	if n != 10 || !errors.Is(err, blockio.ErrShortSource) {
		t.Errorf("ReadRange = %d, %v; want 10 and ErrShortSource", n, err)
	}
}

// Only who reads again goes past what is kept.
func TestReadAgain(t *testing.T) {
	src := &blockiotest.Source{Data: []byte("0123456789")}
	p := make([]byte, 5)
	for again, read := range []func(context.Context, blockio.Ranges, []byte, int64) (int, error){blockio.ReadRange, blockio.ReadAgain} {
		if n, err := read(t.Context(), src, p, 7); n != 3 || err != io.EOF || string(p[:n]) != "789" {
			t.Errorf("read %q, %v; want 789 and the end", p[:n], err)
		}
		want := []blockio.Range{{Extent: blockio.Extent{Off: 7, Len: 3}, Refetch: again == 1}}
		if asked := src.Asked(); !slices.Equal(asked, want) {
			t.Errorf("asked for %v, want %v", asked, want)
		}
	}
}

func TestReadUpTo(t *testing.T) {
	src := &blockiotest.Source{Data: []byte("0123456789")}
	for _, c := range []struct {
		off  int64
		n    int
		want string
	}{{0, 3, "012"}, {7, 3, "789"}, {7, 4, "789"}, {10, 1, ""}} {
		if got, err := blockio.ReadUpTo(t.Context(), src, c.off, c.n); string(got) != c.want || err != nil {
			t.Errorf("%d bytes at %d: %q, %v; want %q", c.n, c.off, got, err, c.want)
		}
	}
	if got, err := blockio.ReadUpTo(t.Context(), src, -1, 1); err == nil {
		t.Errorf("at -1: %q, and no error", got)
	}
}

func TestInside(t *testing.T) {
	for _, c := range []struct {
		off, n, size int64
		want         bool
	}{
		{0, 0, 0, true},
		{0, 10, 10, true},
		{3, 7, 10, true},
		{10, 0, 10, true},
		{3, 8, 10, false},
		{11, 0, 10, false},
		{0, 11, 10, false},
		{-1, 5, 10, false},
		{5, -1, 10, false},
		{math.MaxInt64, math.MaxInt64, 10, false},
		{math.MaxInt64, 1, math.MaxInt64, false},
		{math.MinInt64, 1, 10, false},
		{1, math.MinInt64, 10, false},
		{0, math.MaxInt64, math.MaxInt64, true},
	} {
		if got := (blockio.Extent{Off: c.off, Len: c.n}).Inside(c.size); got != c.want {
			t.Errorf("%d+%d inside %d: %v, want %v", c.off, c.n, c.size, got, c.want)
		}
	}
}
