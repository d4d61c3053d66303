package blockio_test

import (
	"context"
	"errors"
	"io"
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
