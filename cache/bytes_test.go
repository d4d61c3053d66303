package cache

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"testing"
	"testing/iotest"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
)

func TestBytesConform(t *testing.T) {
	for _, size := range []int64{1, 1000, chunkSize, 100_001} {
		src := &blockiotest.Source{Data: random(size)}
		e := openEntry(t, newDir(t, roomy), image("a", size))
		for range 2 { // cold and warm
			blockiotest.TestReaderAt(t, e.Bytes(src), src.Data)
			blockiotest.TestRanges(t, e.Bytes(src), src.Data)
		}
	}
}

// What is asked for is what is missing, in whole chunks, at once, and never again.
func TestBytesAsk(t *testing.T) {
	const size = 10*chunkSize + 100
	src := &blockiotest.Source{Data: random(size)}
	d := newDir(t, roomy)
	e := openEntry(t, d, image("a", size))
	read := func(b *Bytes, off, n int64, want ...blockio.Extent) {
		t.Helper()
		p := make([]byte, n)
		got, err := b.ReadAtContext(t.Context(), p, off)
		if end := min(off+n, size); int64(got) != end-off || (err != nil) != (off+n > size) || !bytes.Equal(p[:got], src.Data[off:end]) {
			t.Errorf("read of %d+%d: %d bytes, %v", off, n, got, err)
		}
		var asked []blockio.Extent
		for _, r := range src.Asked() {
			asked = append(asked, r.Extent)
		}
		if diff := cmp.Diff(want, asked); diff != "" {
			t.Errorf("read of %d+%d asked for (-want +got):\n%s", off, n, diff)
		}
	}
	chunks := func(first, n int64) blockio.Extent {
		return blockio.Extent{Off: first * chunkSize, Len: min(n*chunkSize, size-first*chunkSize)}
	}
	b := e.Bytes(src)
	read(b, 2*chunkSize+5, 1, chunks(2, 1))
	read(b, 2*chunkSize, chunkSize)
	read(b, 2*chunkSize-1, 1, chunks(1, 1))
	read(b, chunkSize, 2*chunkSize)
	read(b, 2*chunkSize, 2*chunkSize+1, chunks(3, 2))
	read(b, 6*chunkSize, chunkSize, chunks(6, 1))
	read(b, 5*chunkSize, 3*chunkSize, chunks(5, 3)) // the middle is there, but one request is less than two
	read(b, size-1, 1, chunks(10, 1))
	read(b, size-50, 51)
	read(b, size, 1)
	e.Close()
	b = openEntry(t, openDir(t, d.Path(), roomy), image("a", size)).Bytes(src)
	read(b, chunkSize, 7*chunkSize)
	read(b, size-50, 50)
	read(b, 0, size, blockio.Extent{Len: 10 * chunkSize})
	read(b, 0, size)
}

// What makes no sense is read from the source once more, and until then it stays:
// whether it was damaged is known then.
func TestBytesForget(t *testing.T) {
	const size = 20 * chunkSize
	for _, damaged := range []bool{false, true} {
		src := &blockiotest.Source{Data: random(size)}
		e := openEntry(t, newDir(t, roomy), image("a", size))
		fill(e, src.Data)
		if err := e.Completed(true, true); err != nil {
			t.Fatal(err)
		}
		if damaged { // on its way: the checksum is that of what came
			p := bytes.Clone(src.Data[3*chunkSize : 4*chunkSize])
			p[7]++
			e.writeChunks(p, 3*chunkSize)
		}
		b := e.Bytes(src)
		read := func(first, n int64, asks bool) {
			t.Helper()
			p := make([]byte, n*chunkSize)
			if _, err := b.ReadAtContext(t.Context(), p, first*chunkSize); err != nil {
				t.Fatal(err)
			}
			again := false
			list := src.Asked()
			for _, r := range list {
				again = r.Refetch
			}
			if asked := len(list) > 0; asked != asks {
				t.Errorf("read of chunks %d+%d asked the source: %v, want %v", first, n, asked, asks)
			}
			if asks && !again {
				t.Errorf("chunks %d+%d may come from what the source keeps", first, n)
			}
			if asks && !bytes.Equal(p, src.Data[first*chunkSize:(first+n)*chunkSize]) {
				t.Errorf("chunks %d+%d are others", first, n)
			}
		}
		b.forget(blockio.Extent{Off: 2*chunkSize + 1, Len: 8 * chunkSize}) // 2 to 10
		if n := holds(t, e.files, src.Data[:2*chunkSize]); n != 2*chunkSize {
			t.Errorf("%d bytes before it are there", n)
		}
		read(0, 2, false)
		read(4, 2, true)
		read(4, 2, false)
		read(3, 2, true)
		read(2, 1, true)
		read(6, 5, true)
		read(0, 20, false)
		if _, err := b.ReadAgain(t.Context(), make([]byte, 5), 15*chunkSize); err != nil {
			t.Error(err)
		}
		if asked := src.Asked(); len(asked) != 1 || !asked[0].Refetch || asked[0].Extent != (blockio.Extent{Off: 15 * chunkSize, Len: chunkSize}) {
			t.Errorf("to read chunk 15 again, asked for %v", asked)
		}
		read(15, 1, false)
		if m, err := readMeta(e.f); err != nil || m.Complete == damaged || !m.Kept {
			t.Errorf("damaged %v: complete %v, kept %v, %v", damaged, m.Complete, m.Kept, err)
		}
	}
}

// What could not be had is an error, and nothing is kept of it.
func TestBytesFail(t *testing.T) {
	const size = 4 * chunkSize
	bad := errors.New("no luck")
	src := &blockiotest.Source{Data: random(size)}
	e := openEntry(t, newDir(t, roomy), image("a", size))
	b := e.Bytes(failingSource{src, bad})
	if n, err := b.ReadAtContext(t.Context(), make([]byte, 10), 5000); n != 0 || !errors.Is(err, bad) {
		t.Errorf("read %d bytes, %v; want the error below", n, err)
	}
	if n := holds(t, e.files, src.Data); n != 0 {
		t.Errorf("%d bytes kept of what did not come", n)
	}
}

// failingSource brings half of what it is asked for.
type failingSource struct {
	*blockiotest.Source
	err error
}

func (s failingSource) ReadAtContext(_ context.Context, p []byte, off int64) (int, error) {
	return copy(p[:len(p)/2], s.Data[off:]), s.err
}

// Whoever throws away meanwhile: right bytes.
func TestBytesWhileEvicted(t *testing.T) {
	const size = 3*mib + 1
	src := &blockiotest.Source{Data: random(size)}
	d := newDir(t, roomy)
	e := openEntry(t, d, image("a", size))
	end := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		for {
			select {
			case <-end:
				return
			default:
				_, _ = d.evict(mib, true)
			}
		}
	})
	b := e.Bytes(src)
	for range 5 {
		blockiotest.TestReaderAt(t, b, src.Data)
	}
	close(end)
	wg.Wait()
}

// What came from disk and makes no sense together is read from the source once more,
// what came from the source is not, and it is said whether that is of any use.
func TestForgetServed(t *testing.T) {
	const size = 200 * chunkSize
	src := &blockiotest.Source{Data: random(size)}
	e := openEntry(t, newDir(t, roomy), image("a", size))
	b := e.Bytes(src)
	read := func(chunk int64) []blockio.Range {
		t.Helper()
		p := make([]byte, 10)
		if _, err := b.ReadAtContext(t.Context(), p, chunk*chunkSize+7); err != nil || !bytes.Equal(p, src.Data[chunk*chunkSize+7:][:10]) {
			t.Fatalf("chunk %d: wrong bytes, %v", chunk, err)
		}
		return src.Asked()
	}
	read(3)
	if b.ForgetServed() {
		t.Error("something is forgotten, and nothing came from disk")
	}
	read(3)
	if !b.ForgetServed() || b.ForgetServed() {
		t.Error("want that what came from disk is forgotten, once")
	}
	if asked := read(3); len(asked) != 1 || !asked[0].Refetch {
		t.Errorf("asked for %v, want one refetch", asked)
	}
	if asked := read(3); len(asked) != 0 {
		t.Errorf("asked for %v, want nothing", asked)
	}
	// No more is remembered than what came last.
	fill(e, src.Data)
	for chunk := range int64(2 * maxServed) {
		read(chunk)
	}
	b.ForgetServed()
	for chunk := range int64(2 * maxServed) {
		if asked, want := read(chunk), chunk >= maxServed; (len(asked) > 0) != want {
			t.Errorf("chunk %d is asked for: %v, want %v", chunk, asked, want)
		}
	}
	for range 3 * maxDoubts {
		b.forget(blockio.Extent{Len: 1})
	}
	b.believe(blockio.Extent{Off: chunkSize, Len: 1}, b.forgets, false)
	if len(b.doubts) != maxDoubts {
		t.Errorf("%d extents are doubted, want %d", len(b.doubts), maxDoubts)
	}
}

// A read that waits for the source takes back no doubt that has come up since: neither of
// what it had from disk, nor of what it is reading once more.
func TestForgetWhileRead(t *testing.T) {
	for name, doubted := range map[string]bool{"the rest is missing": false, "doubted before": true} {
		src := &blockiotest.Source{Data: random(4 * chunkSize)}
		e := openEntry(t, newDir(t, roomy), image("a", 4*chunkSize))
		fill(e, src.Data[:2*chunkSize])
		b := e.Bytes(src)
		bad := blockio.Extent{Off: chunkSize, Len: chunkSize}
		if doubted {
			b.forget(bad)
		}
		src.Open = func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			b.forget(bad)
			src.Open = nil
			return body, nil
		}
		for i, asks := range []bool{true, true, false} { // for what is missing or doubted, for the new doubt
			p := make([]byte, 4*chunkSize)
			if _, err := b.ReadAtContext(t.Context(), p, 0); err != nil || !bytes.Equal(p, src.Data) {
				t.Errorf("%s: read %d: wrong bytes, %v", name, i, err)
			}
			if asked := src.Asked(); (len(asked) > 0) != asks {
				t.Errorf("%s: read %d asked for %v, want something: %v", name, i, asked, asks)
			}
		}
	}
}

// A refetch that fails is an error, and what is kept stays in doubt.
func TestRefetchFails(t *testing.T) {
	bad := errors.New("no luck")
	src := &blockiotest.Source{Data: random(chunkSize)}
	e := openEntry(t, newDir(t, roomy), image("a", chunkSize))
	fill(e, src.Data)
	b := e.Bytes(src)
	b.forget(blockio.Extent{Len: 10})
	for _, open := range []func(context.Context, blockio.Range, io.Reader) (io.Reader, error){
		func(context.Context, blockio.Range, io.Reader) (io.Reader, error) { return nil, bad },
		func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			return io.MultiReader(io.LimitReader(body, 100), iotest.ErrReader(bad)), nil
		},
	} {
		src.Open = open
		if _, err := b.ReadAtContext(t.Context(), make([]byte, 5), 0); !errors.Is(err, bad) {
			t.Errorf("%v, want the error below", err)
		}
	}
	src.Open = nil
	src.Asked()
	if _, err := b.ReadAtContext(t.Context(), make([]byte, 5), 0); err != nil || len(src.Asked()) != 1 {
		t.Errorf("%v; want that it is read from the source", err)
	}
}

// What was wrong is not served once more, nor said to be here, where what replaces it can't
// be stored.
func TestReadAgainNotStored(t *testing.T) {
	const size = 4 * chunkSize
	failing := func(f file) file { return &spy{file: f, write: func() error { return unix.EIO }} }
	for _, c := range []struct {
		name  string
		spoil func(*Entry)
		stays bool // what was wrong can't be cleared either
	}{
		{"no room", func(e *Entry) { e.admit = func(int64) bool { return false } }, false},
		{"data fails", func(e *Entry) { e.data = failing(e.data) }, false},
		{"the table fails", func(e *Entry) { e.chunks.file = failing(e.chunks.file) }, true},
		{"not to be written", func(e *Entry) { e.write = false }, true},
	} {
		for _, again := range []bool{true, false} {
			t.Run(fmt.Sprintf("%s, at once %v", c.name, again), func(t *testing.T) {
				src := &blockiotest.Source{Data: random(size)}
				e := openEntry(t, newDir(t, roomy), image("a", size))
				bad := bytes.Clone(src.Data)
				bad[2*chunkSize+100] ^= 1
				fill(e, bad)
				if err := e.Completed(true, true); err != nil {
					t.Fatal(err)
				}
				c.spoil(e)
				b, p := e.Bytes(src), make([]byte, 200)
				if again {
					if _, err := b.ReadAgain(t.Context(), p, 2*chunkSize); err != nil {
						t.Fatal(err)
					}
				} else {
					b.forget(blockio.Extent{Off: 2 * chunkSize, Len: 1})
				}
				for i := range 3 {
					if _, err := b.ReadAtContext(t.Context(), p, 2*chunkSize); err != nil || !bytes.Equal(p, src.Data[2*chunkSize:][:200]) {
						t.Errorf("read %d: wrong bytes, %v", i, err)
					}
				}
				whole := []blockio.Extent{{Len: size}}
				if here := e.HaveBytes(whole, whole[0]); here != c.stays {
					t.Errorf("said to be here: %v, want %v", here, c.stays)
				}
				if m, err := readMeta(e.f); err != nil || m.Complete || len(b.doubts) > 1 {
					t.Errorf("complete %v, %v, %d doubts; want not complete and one doubt at most", m.Complete, err, len(b.doubts))
				}
			})
		}
	}
}

// blamed is a source that keeps what it is blamed for.
type blamed struct {
	*blockiotest.Source
	extents []blockio.Extent
}

func (s *blamed) Blame(e blockio.Extent) { s.extents = append(s.extents, e) }

// Whom to blame for wrong bytes is told to the source, if that can tell.
func TestBytesBlame(t *testing.T) {
	src := &blamed{Source: &blockiotest.Source{Data: random(1000)}}
	e := openEntry(t, newDir(t, roomy), image("a", 1000))
	want := blockio.Extent{Off: 5, Len: 7}
	e.Bytes(src.Source).Blame(want) // can't
	e.Bytes(src).Blame(want)
	if diff := cmp.Diff([]blockio.Extent{want}, src.extents); diff != "" {
		t.Errorf("blamed for (-want +got):\n%s", diff)
	}
}
