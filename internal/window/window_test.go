package window_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/internal/window"
)

const mib = 1 << 20

func source(n int) *blockiotest.Source {
	data := make([]byte, n)
	rand.NewChaCha8([32]byte{5}).Read(data)
	return &blockiotest.Source{Data: data}
}

// read runs parse and returns its error and the number of bytes asked for.
func read(t *testing.T, src *blockiotest.Source, parse func(s io.ReaderAt) error) (asked int64, err error) {
	t.Helper()
	err = window.Read(t.Context(), src, parse)
	for _, r := range src.Asked() {
		asked += r.Len
	}
	return asked, err
}

func TestReadsRightBytes(t *testing.T) {
	src := source(3*mib + 77)
	rnd := rand.New(rand.NewPCG(1, 2))
	_, err := read(t, src, func(s io.ReaderAt) error {
		reads := []blockio.Extent{
			{Off: 0, Len: 0},
			{Off: 0, Len: 32 << 10},
			{Off: src.Size(), Len: 0},
			{Off: src.Size() - 1, Len: 1},
			{Off: 0, Len: src.Size()},
			{Off: 5, Len: 2 * mib},
		}
		for range 300 { // more windows than are kept
			off := rnd.Int64N(src.Size())
			reads = append(reads, blockio.Extent{Off: off, Len: rnd.Int64N(min(src.Size()-off, 10_000) + 1)})
		}
		for _, e := range reads {
			p := make([]byte, e.Len)
			if n, err := s.ReadAt(p, e.Off); n != len(p) || err != nil {
				t.Fatalf("%d bytes at %d: %d, %v", e.Len, e.Off, n, err)
			}
			if !bytes.Equal(p, src.Data[e.Off:e.End()]) {
				t.Fatalf("%d bytes at %d: other bytes", e.Len, e.Off)
			}
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// Many small reads, one after the other or near each other, are few requests.
func TestFewRequests(t *testing.T) {
	for _, c := range []struct {
		name   string
		size   int
		at     func(i int64) int64
		reads  int64
		most   int
		mostKB int64
	}{
		{"the same bytes", mib, func(int64) int64 { return 5000 }, 1000, 1, 16},
		{"forwards", mib, func(i int64) int64 { return i * 100 }, 10_000, 8, 1024},
		{"two places in turn", mib, func(i int64) int64 { return i % 2 * 500_000 }, 1000, 2, 48},
		{"the end of a small disk", 10_000, func(i int64) int64 { return 9000 + i }, 900, 1, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := source(c.size)
			err := window.Read(t.Context(), src, func(s io.ReaderAt) error {
				for i := range c.reads {
					if _, err := s.ReadAt(make([]byte, 10), c.at(i)); err != nil {
						return err
					}
				}
				return nil
			})
			if err != nil {
				t.Fatal(err)
			}
			asked, sum := src.Asked(), int64(0)
			for _, r := range asked {
				sum += r.Len
				if r.Off%2048 != 0 {
					t.Errorf("a request begins at %d, within a sector", r.Off)
				}
			}
			if len(asked) > c.most || sum > c.mostKB<<10 {
				t.Errorf("%d requests, %d bytes; want at most %d and %d KiB", len(asked), sum, c.most, c.mostKB)
			}
		})
	}
}

// What was read is kept for a while, not for ever.
func TestFewAreKept(t *testing.T) {
	src := source(10 * mib)
	err := window.Read(t.Context(), src, func(s io.ReaderAt) error {
		for i := range int64(18) {
			if _, err := s.ReadAt(make([]byte, 1), i%17*512<<10); err != nil {
				return err
			}
		}
		return nil
	})
	if n := len(src.Asked()); err != nil || n != 18 {
		t.Errorf("%v; %d requests for 17 places and the first again, want 18", err, n)
	}
}

func TestReadsAreBounded(t *testing.T) {
	large := &blockiotest.Source{Data: make([]byte, 100*mib)}
	for _, c := range []struct {
		name  string
		parse func(s io.ReaderAt) error
	}{
		{"too many bytes", func(s io.ReaderAt) error {
			for i := int64(0); ; i++ {
				if _, err := s.ReadAt(make([]byte, 4*mib), i%25*4*mib); err != nil {
					return err
				}
			}
		}},
		{"too many bytes, a few here and there", func(s io.ReaderAt) error {
			for i := int64(0); ; i++ {
				if _, err := s.ReadAt(make([]byte, 1), i*12_345_678%(100*mib)); err != nil {
					return err
				}
			}
		}},
		{"too many reads", func(s io.ReaderAt) error {
			for {
				if _, err := s.ReadAt(make([]byte, 1), 0); err != nil {
					return err
				}
			}
		}},
		{"a read too large", func(s io.ReaderAt) error {
			_, err := s.ReadAt(make([]byte, 4*mib+1), 0)
			return err
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			asked, err := read(t, large, c.parse)
			if !errors.Is(err, window.ErrDamaged) || !strings.Contains(err.Error(), "too much to read") {
				t.Errorf("got %v, want ErrDamaged for too much to read", err)
			}
			if asked > 64*mib {
				t.Errorf("%d bytes read", asked)
			}
		})
	}
}

func TestOutOfRange(t *testing.T) {
	for _, c := range []struct {
		off int64
		n   int
	}{{-1, 1}, {-1 << 63, 1}, {1000, 1}, {999, 2}, {0, 1001}, {1001, 0}, {1<<63 - 1, 1}} {
		src := source(1000)
		asked, err := read(t, src, func(s io.ReaderAt) error {
			n, err := s.ReadAt(make([]byte, c.n), c.off)
			if n != 0 || err == nil {
				t.Errorf("ReadAt(%d bytes, %d) = %d, %v; want an error", c.n, c.off, n, err)
			}
			return err
		})
		if !errors.Is(err, window.ErrDamaged) || asked != 0 {
			t.Errorf("%d bytes at %d: %v, %d bytes read; want ErrDamaged and none", c.n, c.off, err, asked)
		}
	}
}

// What Read returns: the reason for a failure, whatever the parser makes of it.
func TestErrors(t *testing.T) {
	bad, own := errors.New("no luck"), errors.New("own error")
	failing := func() *blockiotest.Source {
		src := source(1000)
		src.Open = func(context.Context, blockio.Range, io.Reader) (io.Reader, error) { return nil, bad }
		return src
	}
	fail := func(s io.ReaderAt) error { _, err := s.ReadAt(make([]byte, 1), 0); return err }
	for _, c := range []struct {
		name  string
		src   *blockiotest.Source
		parse func(s io.ReaderAt) error
		want  error // nil: none
		not   error
	}{
		{"none", source(1000), fail, nil, nil},
		{"the parser's", source(1000), func(io.ReaderAt) error { return own }, own, nil},
		{"panic", source(1000), func(io.ReaderAt) error { panic("index out of range") }, window.ErrDamaged, nil},
		{"panic with an error", source(1000), func(io.ReaderAt) error { var p []byte; i := 3; p[i] = 1; return nil }, window.ErrDamaged, nil},
		{"the source's", failing(), fail, bad, window.ErrDamaged},
		{"the source's, replaced", failing(), func(s io.ReaderAt) error { _ = fail(s); return own }, bad, own},
		{"the source's, ignored", failing(), func(s io.ReaderAt) error { _ = fail(s); return nil }, bad, nil},
		{"the source's, then panic", failing(), func(s io.ReaderAt) error { _ = fail(s); panic("x") }, bad, window.ErrDamaged},
		{"the source's, then out of range", failing(), func(s io.ReaderAt) error {
			_ = fail(s)
			_, err := s.ReadAt(make([]byte, 1), 2000)
			return err
		}, bad, window.ErrDamaged},
		{"out of range, then the source's", failing(), func(s io.ReaderAt) error {
			_, _ = s.ReadAt(make([]byte, 1), 2000)
			return fail(s)
		}, window.ErrDamaged, bad},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := read(t, c.src, c.parse)
			if !errors.Is(err, c.want) || c.want == nil && err != nil || c.not != nil && errors.Is(err, c.not) {
				t.Errorf("got %v, want %v", err, c.want)
			}
		})
	}
}

// The reader's end is its error, not the image's fault.
func TestContextEnds(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	src := source(mib)
	src.Open = func(ctx context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) { return body, ctx.Err() }
	err := window.Read(ctx, src, func(s io.ReaderAt) error {
		if _, err := s.ReadAt(make([]byte, 10), 0); err != nil {
			return err
		}
		cancel()
		_, err := s.ReadAt(make([]byte, 10), 500_000)
		return err
	})
	if !errors.Is(err, context.Canceled) || errors.Is(err, window.ErrDamaged) {
		t.Errorf("got %v, want the context's error", err)
	}
}
