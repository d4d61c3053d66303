package blockio_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
)

// head is how much of a section is read when it is opened.
const head = 8 << 10

// numbered is n bytes in which no two stretches are equal.
func numbered(n int) []byte {
	var p []byte
	for i := 0; len(p) < n; i++ {
		p = fmt.Appendf(p, "%d,", i)
	}
	return p[:n]
}

func openSection(t *testing.T, src blockio.Source, extents ...blockio.Extent) *blockio.Section {
	t.Helper()
	s, err := blockio.OpenSection(t.Context(), src, extents)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestSectionConforms(t *testing.T) {
	data := numbered(100_000)
	for _, c := range []struct {
		name    string
		extents []blockio.Extent
	}{
		{"one", []blockio.Extent{{Off: 300, Len: 50_000}}},
		{"the whole source", []blockio.Extent{{Off: 0, Len: 100_000}}},
		{"less than a head", []blockio.Extent{{Off: 99_990, Len: 10}}},
		{"several", []blockio.Extent{{Off: 2048, Len: 30_000}, {Off: 50_000, Len: 7}, {Off: 60_000, Len: 20_000}}},
		{"out of order", []blockio.Extent{{Off: 60_000, Len: 20_000}, {Off: 10, Len: 9}, {Off: 2048, Len: 30_000}}},
		{"one twice", []blockio.Extent{{Off: 10, Len: 9000}, {Off: 10, Len: 9000}}},
		{"with empty ones", []blockio.Extent{{Off: 5, Len: 0}, {Off: 100, Len: 20_000}, {Off: 7, Len: 0}, {Off: 30_000, Len: 11}, {Off: 100_000, Len: 0}}},
		{"adjacent", []blockio.Extent{{Off: 100, Len: 9000}, {Off: 9100, Len: 9000}, {Off: 40_000, Len: 10}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := &blockiotest.Source{Data: data}
			var want []byte
			for _, e := range c.extents {
				want = append(want, data[e.Off:e.End()]...)
			}
			s := openSection(t, src, c.extents...)
			blockiotest.TestRanges(t, s, want)
			blockiotest.TestReaderAt(t, s, want)
			blockiotest.TestPrompt(t, s, want, false)
			blockiotest.TestPrompt(t, openSection(t, blockiotest.Handy{Source: src, Near: 100_000}, c.extents...), want, true)
		})
	}
}

// Bytes of a section are at hand if those of all its extents are.
func TestSectionReadsNow(t *testing.T) {
	data := numbered(100)
	extents := []blockio.Extent{{Off: 10, Len: 5}, {Off: 50, Len: 5}}
	for _, c := range []struct {
		src  blockio.Source
		n    int
		want bool
	}{
		{blockiotest.Handy{Source: &blockiotest.Source{Data: data}, Near: 55}, 10, true},
		{blockiotest.Handy{Source: &blockiotest.Source{Data: data}, Near: 54}, 10, false},
		{blockiotest.Handy{Source: &blockiotest.Source{Data: data}, Near: 54}, 9, true},
		{&blockiotest.Source{Data: data}, 1, false}, // it can't tell
	} {
		if got := openSection(t, c.src, extents...).ReadNow(make([]byte, c.n), 0); got != c.want {
			t.Errorf("ReadNow(%d bytes) of %T = %v, want %v", c.n, c.src, got, c.want)
		}
	}
}

func TestEmptySection(t *testing.T) {
	src := &blockiotest.Source{Data: numbered(100)}
	for _, extents := range [][]blockio.Extent{nil, {{Off: 20, Len: 0}}} {
		s := openSection(t, src, extents...)
		if n, err := s.ReadAtContext(t.Context(), make([]byte, 5), 0); s.Size() != 0 || n != 0 || err != io.EOF {
			t.Errorf("%v: size %d, read %d bytes, %v; want nothing and io.EOF", extents, s.Size(), n, err)
		}
	}
	if got := src.Asked(); got != nil {
		t.Errorf("asked for %v of an empty section", got)
	}
}

func TestSectionRefusesExtents(t *testing.T) {
	const max = 1<<63 - 1
	for _, e := range []blockio.Extent{
		{Off: -1, Len: 1},
		{Off: 0, Len: -1},
		{Off: 0, Len: 101},
		{Off: 100, Len: 1},
		{Off: 101, Len: 0},
		{Off: 99, Len: 2},
		{Off: 1, Len: max},
		{Off: max, Len: 1},
		{Off: max, Len: max},
	} {
		src := &blockiotest.Source{Data: make([]byte, 100)}
		if _, err := blockio.OpenSection(t.Context(), src, []blockio.Extent{{Len: 10}, e}); !errors.Is(err, blockio.ErrBeyondEnd) {
			t.Errorf("bytes %d+%d of 100: no error", e.Off, e.Len)
		}
		if got := src.Asked(); got != nil {
			t.Errorf("bytes %d+%d of 100: asked for %v", e.Off, e.Len, got)
		}
	}
}

// What a section asks its source for: once for its head when it is opened, later
// nothing for that, and one range for each extent of a stream.
func TestSectionAsks(t *testing.T) {
	src := &blockiotest.Source{Data: numbered(100_000)}
	s := openSection(t, src, blockio.Extent{Off: 1000, Len: 20_000}, blockio.Extent{Off: 21_000, Len: 9000}, blockio.Extent{Off: 50_000, Len: 40_000})
	demand := func(off, n int64) blockio.Range { return blockio.Range{Extent: blockio.Extent{Off: off, Len: n}} }
	check := func(what string, want ...blockio.Range) {
		t.Helper()
		if diff := cmp.Diff(want, src.Asked()); diff != "" {
			t.Errorf("%s (-want +got):\n%s", what, diff)
		}
	}
	check("opened", demand(1000, head))
	for _, c := range []struct {
		what   string
		off, n int64
		want   []blockio.Range
	}{
		{"the head", 0, head, nil},
		{"within the head", 100, 500, nil},
		{"the head's last byte", head - 1, 1, nil},
		{"nothing at the head's end", head, 0, nil},
		{"over the head's end", head - 1, 2, []blockio.Range{demand(1000+head-1, 2)}},
		{"over the end of an extent that another one follows at once", 19_000, 2000, []blockio.Range{demand(20_000, 2000)}},
		{"over a gap", 28_990, 20, []blockio.Range{demand(29_990, 10), demand(50_000, 10)}},
		{"up to a gap", 28_990, 10, []blockio.Range{demand(29_990, 10)}},
		{"from a gap on", 29_000, 10, []blockio.Range{demand(50_000, 10)}},
	} {
		p := make([]byte, c.n)
		if n, err := s.ReadAtContext(t.Context(), p, c.off); n != len(p) || err != nil {
			t.Fatalf("%s: %d bytes, %v", c.what, n, err)
		}
		check(c.what, c.want...)
	}
}

// Who wants the bytes is said below of every extent.
func TestSectionHandsOn(t *testing.T) {
	src := &blockiotest.Source{Data: numbered(100)}
	s := openSection(t, src, blockio.Extent{Off: 10, Len: 5}, blockio.Extent{Off: 50, Len: 5})
	src.Asked()
	body, err := s.OpenRange(t.Context(), blockio.Range{Extent: blockio.Extent{Off: 1, Len: 8}, Class: blockio.Trace, Refetch: true})
	if err != nil {
		t.Fatal(err)
	}
	defer body.Close()
	if _, err := io.ReadAll(body); err != nil {
		t.Fatal(err)
	}
	want := []blockio.Range{
		{Extent: blockio.Extent{Off: 11, Len: 4}, Class: blockio.Trace, Refetch: true},
		{Extent: blockio.Extent{Off: 50, Len: 4}, Class: blockio.Trace, Refetch: true},
	}
	if diff := cmp.Diff(want, src.Asked()); diff != "" {
		t.Errorf("asked for (-want +got):\n%s", diff)
	}
}

// keeper is a source that keeps what it has read.
type keeper struct {
	*blockiotest.Source
	again []blockio.Extent
}

func (k *keeper) ReadAgain(ctx context.Context, p []byte, off int64) (int, error) {
	k.again = append(k.again, blockio.Extent{Off: off, Len: int64(len(p))})
	return k.ReadAtContext(ctx, p, off)
}

// What is read again is read past all that keeps it: the section itself, and what is below.
func TestSectionReadsAgain(t *testing.T) {
	extents := []blockio.Extent{{Off: 1000, Len: 20_000}, {Off: 50_000, Len: 40_000}}
	for _, c := range []struct {
		off, n int64
		want   []blockio.Extent
		head   bool // it is kept after that
	}{
		{0, 10, []blockio.Extent{{Off: 1000, Len: 10}}, false},
		{head - 1, 2, []blockio.Extent{{Off: 1000 + head - 1, Len: 2}}, false},
		{head, 2, []blockio.Extent{{Off: 1000 + head, Len: 2}}, true},
		{19_990, 30, []blockio.Extent{{Off: 20_990, Len: 10}, {Off: 50_000, Len: 20}}, true},
	} {
		for _, kept := range []bool{true, false} {
			below := &keeper{Source: &blockiotest.Source{Data: numbered(100_000)}}
			var src blockio.Source = below
			if !kept {
				src = below.Source
			}
			s := openSection(t, src, extents...)
			want := make([]byte, c.n)
			if _, err := s.ReadAtContext(t.Context(), want, c.off); err != nil {
				t.Fatal(err)
			}
			below.Asked()
			p := make([]byte, c.n)
			if n, err := blockio.ReadAgain(t.Context(), s, p, c.off); n != len(p) || err != nil || !bytes.Equal(p, want) {
				t.Errorf("%d bytes at %d: %d, %v, or other bytes", c.n, c.off, n, err)
			}
			again := below.again
			for _, r := range below.Asked() {
				if r.Refetch {
					again = append(again, r.Extent)
				}
			}
			if diff := cmp.Diff(c.want, again); diff != "" {
				t.Errorf("%d bytes at %d, kept below %v: asked for again (-want +got):\n%s", c.n, c.off, kept, diff)
			}
			if _, err := s.ReadAtContext(t.Context(), p[:1], 0); err != nil || (len(below.Asked()) == 0) != c.head {
				t.Errorf("%d bytes at %d: %v; want that the head is kept: %v", c.n, c.off, err, c.head)
			}
		}
	}
}

// An extent whose bytes do not come is an error, never passed over: the next
// one's bytes would be taken for its.
func TestSectionPassesNothingOver(t *testing.T) {
	bad := errors.New("no luck")
	for _, c := range []struct {
		name string
		open func(r blockio.Range, body io.Reader) (io.Reader, error)
		want error
	}{
		{"can't be opened", func(r blockio.Range, body io.Reader) (io.Reader, error) { return nil, bad }, bad},
		{"fails", func(r blockio.Range, body io.Reader) (io.Reader, error) {
			return io.MultiReader(io.LimitReader(body, 2), failing{bad}), nil
		}, bad},
		{"ends early", func(r blockio.Range, body io.Reader) (io.Reader, error) { return io.LimitReader(body, 2), nil }, blockio.ErrShortSource},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := &blockiotest.Source{Data: numbered(100)}
			s := openSection(t, src, blockio.Extent{Off: 10, Len: 5}, blockio.Extent{Off: 30, Len: 5}, blockio.Extent{Off: 60, Len: 5})
			src.Open = func(_ context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
				if r.Off == 30 {
					return c.open(r, body)
				}
				return body, nil
			}
			body, err := s.OpenRange(t.Context(), blockio.Range{Extent: blockio.Extent{Len: s.Size()}})
			if err != nil {
				t.Fatal(err)
			}
			defer body.Close()
			var got []byte
			for range 3 { // whoever reads on gets no other bytes
				p, err := io.ReadAll(body)
				if got = append(got, p...); !errors.Is(err, c.want) {
					t.Errorf("read: %v, want %v", err, c.want)
				}
			}
			if want := append(bytes.Clone(src.Data[10:15]), src.Data[30:32]...); !bytes.HasPrefix(want, got) {
				t.Errorf("read %q, want the start of %q", got, want)
			}
		})
	}
}

type failing struct{ err error }

func (f failing) Read([]byte) (int, error) { return 0, f.err }

func TestSectionFails(t *testing.T) {
	bad := errors.New("no luck")
	src := &blockiotest.Source{Data: numbered(100), Open: func(context.Context, blockio.Range, io.Reader) (io.Reader, error) {
		return nil, bad
	}}
	if _, err := blockio.OpenSection(t.Context(), src, []blockio.Extent{{Len: 10}}); !errors.Is(err, bad) {
		t.Errorf("OpenSection: %v, want the source's error", err)
	}
}

func TestPart(t *testing.T) {
	src := &blockiotest.Source{Data: numbered(10_000)}
	for _, e := range []blockio.Extent{{Off: 0, Len: 10_000}, {Off: 100, Len: 5000}, {Off: 9000, Len: 1000}, {Off: 77, Len: 1}} {
		t.Run(fmt.Sprintf("%d+%d", e.Off, e.Len), func(t *testing.T) {
			blockiotest.TestReaderAt(t, blockio.Part(src, e.Off, e.Len), src.Data[e.Off:e.End()])
		})
	}
}

// A failure below is a failure, at the end of the part too.
func TestPartFails(t *testing.T) {
	src := &blockiotest.Source{Data: numbered(100)}
	part := blockio.Part(src, 10, 50)
	bad := errors.New("no luck")
	src.Open = func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
		return io.MultiReader(io.LimitReader(body, 2), failing{bad}), nil
	}
	if n, err := part.ReadAtContext(t.Context(), make([]byte, 10), 5); n != 2 || !errors.Is(err, bad) {
		t.Errorf("read %d, %v; want 2 and the error below", n, err)
	}
	src.Asked()
	if _, err := part.ReadAtContext(t.Context(), make([]byte, 100), 20); !errors.Is(err, bad) {
		t.Errorf("read past the end: %v, want the error below", err)
	}
	if got := src.Asked(); len(got) != 1 || got[0].Off != 30 || got[0].Len != 30 {
		t.Errorf("asked for %v, want no more than the part", got)
	}
}
