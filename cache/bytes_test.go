package cache

import (
	"bytes"
	"context"
	"errors"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
)

func TestBytesConform(t *testing.T) {
	for _, size := range []int64{1, 1000, ChunkSize, 100_001} {
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
	const size = 10*ChunkSize + 100
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
		return blockio.Extent{Off: first * ChunkSize, Len: min(n*ChunkSize, size-first*ChunkSize)}
	}
	b := e.Bytes(src)
	read(b, 2*ChunkSize+5, 1, chunks(2, 1))
	read(b, 2*ChunkSize, ChunkSize)
	read(b, 2*ChunkSize-1, 1, chunks(1, 1))
	read(b, ChunkSize, 2*ChunkSize)
	read(b, 2*ChunkSize, 2*ChunkSize+1, chunks(3, 2))
	read(b, 6*ChunkSize, ChunkSize, chunks(6, 1))
	read(b, 5*ChunkSize, 3*ChunkSize, chunks(5, 3)) // the middle is there, but one request is less than two
	read(b, size-1, 1, chunks(10, 1))
	read(b, size-50, 51)
	read(b, size, 1)
	e.Close()
	b = openEntry(t, openDir(t, d.Path(), roomy), image("a", size)).Bytes(src)
	read(b, ChunkSize, 7*ChunkSize)
	read(b, size-50, 50)
	read(b, 0, size, blockio.Extent{Len: 10 * ChunkSize})
	read(b, 0, size)
}

// What makes no sense is read from the source once more, and until then it stays:
// whether it was damaged is known then.
func TestBytesForget(t *testing.T) {
	const size = 20 * ChunkSize
	for _, damaged := range []bool{false, true} {
		src := &blockiotest.Source{Data: random(size)}
		e := openEntry(t, newDir(t, roomy), image("a", size))
		fill(e, src.Data)
		if err := e.Completed(true, true); err != nil {
			t.Fatal(err)
		}
		if damaged { // on its way: the checksum is that of what came
			p := bytes.Clone(src.Data[3*ChunkSize : 4*ChunkSize])
			p[7]++
			e.writeChunks(p, 3*ChunkSize)
		}
		b := e.Bytes(src)
		read := func(first, n int64, asks bool) {
			t.Helper()
			p := make([]byte, n*ChunkSize)
			if _, err := b.ReadAtContext(t.Context(), p, first*ChunkSize); err != nil {
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
			if asks && !bytes.Equal(p, src.Data[first*ChunkSize:(first+n)*ChunkSize]) {
				t.Errorf("chunks %d+%d are others", first, n)
			}
		}
		b.Forget(blockio.Extent{Off: 2*ChunkSize + 1, Len: 8 * ChunkSize}) // 2 to 10
		if n := holds(t, e.Disk, src.Data[:2*ChunkSize]); n != 2*ChunkSize {
			t.Errorf("%d bytes before it are there", n)
		}
		read(0, 2, false)
		read(4, 2, true)
		read(4, 2, false)
		read(3, 2, true)
		read(2, 1, true)
		read(6, 5, true)
		read(0, 20, false)
		if m, err := readMeta(e.f); err != nil || m.Complete == damaged || !m.Kept {
			t.Errorf("damaged %v: complete %v, kept %v, %v", damaged, m.Complete, m.Kept, err)
		}
	}
}

// What could not be had is an error, and nothing is kept of it.
func TestBytesFail(t *testing.T) {
	const size = 4 * ChunkSize
	bad := errors.New("no luck")
	src := &blockiotest.Source{Data: random(size)}
	e := openEntry(t, newDir(t, roomy), image("a", size))
	b := e.Bytes(failingSource{src, bad})
	if n, err := b.ReadAtContext(t.Context(), make([]byte, 10), 5000); n != 0 || !errors.Is(err, bad) {
		t.Errorf("read %d bytes, %v; want the error below", n, err)
	}
	if n := holds(t, e.Disk, src.Data); n != 0 {
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
