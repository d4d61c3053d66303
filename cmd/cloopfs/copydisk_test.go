package main

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"testing/synctest"
)

const sector = 512

// numbers is a disk of sectors that begin with their own offset.
type numbers struct {
	size   int64
	block  int64
	before func(ctx context.Context, off int64) error // called by each read; may be nil
	reads  atomic.Int64
	odd    atomic.Int64 // reads of parts of blocks
}

func (d *numbers) Size() int64 { return d.size }

func (d *numbers) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	d.reads.Add(1)
	if off%d.block != 0 || int64(len(p))%d.block != 0 && off+int64(len(p)) != d.size {
		d.odd.Add(1)
	}
	if d.before != nil {
		if err := d.before(ctx, off); err != nil {
			return 0, err
		}
	}
	for i := 0; i < len(p); i += sector {
		binary.LittleEndian.PutUint64(p[i:], uint64(off)+uint64(i))
	}
	return len(p), nil
}

// checker is a writer that checks that it gets a disk of numbers in order.
type checker struct {
	t    *testing.T
	off  int64 // of what comes next
	fail error // of the write that reaches beyond at; nil: none
	at   int64
}

func (c *checker) Write(p []byte) (int, error) {
	if c.fail != nil && c.off+int64(len(p)) > c.at {
		return 0, c.fail
	}
	for i := 0; i < len(p); i += sector {
		if got, want := binary.LittleEndian.Uint64(p[i:]), uint64(c.off)+uint64(i); got != want {
			c.t.Errorf("got the sector of %d at %d", got, want)
			return i, errors.New("wrong sector")
		}
	}
	c.off += int64(len(p))
	return len(p), nil
}

func TestCopyDisk(t *testing.T) {
	for _, c := range []struct{ size, block int64 }{
		{0, 512},
		{512, 512},
		{copyChunk, 512},
		{copyChunk - 512, 512},
		{copyChunk + 512, 512},
		{3*copyChunk + 1024, 65536},
		{20 * 1000 * 512, 1000 * 512}, // blocks that do not divide a chunk
		{3 * (copyChunk + 512), copyChunk + 512},
		{512 + 8, 512}, // not a whole block
	} {
		t.Run(fmt.Sprintf("%d by %d", c.size, c.block), func(t *testing.T) {
			disk := &numbers{size: c.size, block: c.block}
			w := &checker{t: t}
			if err := copyDisk(t.Context(), w, disk, int(c.block)); err != nil {
				t.Errorf("got error %v", err)
			}
			if w.off != c.size {
				t.Errorf("got %d bytes, want %d", w.off, c.size)
			}
			if n := disk.odd.Load(); n > 0 {
				t.Errorf("got %d reads of parts of blocks, want none", n)
			}
		})
	}
}

// The tests below run in a bubble of synctest, which fails if a goroutine is
// left when copyDisk has returned.

// Chunks are read ahead, a bounded number of them, and written in order
// whatever order they arrive in.
func TestCopyDiskReadsAhead(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const chunks = 40
		var mu sync.Mutex
		waiting := make(map[int64]chan struct{})
		disk := &numbers{size: chunks * copyChunk, block: copyChunk, before: func(ctx context.Context, off int64) error {
			c := make(chan struct{})
			mu.Lock()
			waiting[off] = c
			mu.Unlock()
			<-c
			return nil
		}}
		w := &checker{t: t}
		result := make(chan error)
		go func() { result <- copyDisk(t.Context(), w, disk, copyChunk) }()
		most := 0
		for range chunks {
			synctest.Wait()
			mu.Lock()
			most = max(most, len(waiting))
			var last int64 = -1 // let the last one go first
			for off := range waiting {
				last = max(last, off)
			}
			close(waiting[last])
			delete(waiting, last)
			mu.Unlock()
		}
		if err := <-result; err != nil || w.off != disk.size {
			t.Errorf("got %d bytes, error %v, want %d", w.off, err, disk.size)
		}
		if most < 4 || most >= chunks {
			t.Errorf("got up to %d reads at a time, want several, but not all", most)
		}
	})
}

// A writer that is slow holds the readers up: no more is read than there are
// buffers. When all is over nothing more is written, whatever has been read.
func TestCopyDiskWaitsForTheWriter(t *testing.T) {
	for _, chunks := range []int64{3, 100} { // fewer than there are buffers, and more
		synctest.Test(t, func(t *testing.T) {
			disk := &numbers{size: chunks * copyChunk, block: copyChunk}
			ctx, cancel := context.WithCancel(t.Context())
			block := make(chan struct{})
			writes := 0
			w := writerFunc(func(p []byte) (int, error) {
				writes++
				<-block
				return len(p), nil
			})
			result := make(chan error)
			go func() { result <- copyDisk(ctx, w, disk, copyChunk) }()
			synctest.Wait()
			if n := disk.reads.Load(); n > 50 {
				t.Errorf("got %d reads while nothing was written, want a bounded number", n)
			}
			cancel()
			close(block)
			if err := <-result; !errors.Is(err, context.Canceled) {
				t.Errorf("got error %v, want %v", err, context.Canceled)
			}
			if writes != 1 {
				t.Errorf("got %d writes, want that which was under way", writes)
			}
		})
	}
}

type writerFunc func(p []byte) (int, error)

func (f writerFunc) Write(p []byte) (int, error) { return f(p) }

func TestCopyDiskReaderFails(t *testing.T) {
	bad := errors.New("bad block")
	for _, chunk := range []int64{0, 1, 7, 19} {
		t.Run(fmt.Sprint(chunk), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := &numbers{size: 20 * copyChunk, block: copyChunk, before: func(_ context.Context, off int64) error {
					if off == chunk*copyChunk {
						return bad
					}
					return nil
				}}
				w := &checker{t: t}
				err := copyDisk(t.Context(), w, disk, copyChunk)
				var out *outputError
				if !errors.Is(err, bad) || errors.As(err, &out) {
					t.Errorf("got error %v, want %v", err, bad)
				}
				if w.off > chunk*copyChunk {
					t.Errorf("got %d bytes, want none behind the bad one at %d", w.off, chunk*copyChunk)
				}
			})
		})
	}
}

func TestCopyDiskWriterFails(t *testing.T) {
	full := errors.New("disk full")
	for _, hang := range []bool{false, true} {
		t.Run(fmt.Sprintf("readers hang: %v", hang), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				disk := &numbers{size: 20 * copyChunk, block: copyChunk, before: func(ctx context.Context, off int64) error {
					if hang && off > 0 {
						<-ctx.Done()
						return ctx.Err()
					}
					return nil
				}}
				w := &checker{t: t, fail: full}
				if !hang {
					w.at = 5 * copyChunk
				}
				err := copyDisk(t.Context(), w, disk, copyChunk)
				var out *outputError
				if !errors.As(err, &out) || out.err != full {
					t.Errorf("got error %v, want an outputError of %v", err, full)
				}
				if w.off != w.at {
					t.Errorf("got %d bytes, want %d", w.off, w.at)
				}
			})
		})
	}
}

func TestCopyDiskCancel(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := &numbers{size: 20 * copyChunk, block: copyChunk, before: func(ctx context.Context, off int64) error {
			if off >= 3*copyChunk {
				<-ctx.Done()
				return ctx.Err()
			}
			return nil
		}}
		ctx, cancel := context.WithCancel(t.Context())
		w := &checker{t: t}
		result := make(chan error)
		go func() { result <- copyDisk(ctx, w, disk, copyChunk) }()
		synctest.Wait()
		if w.off != 3*copyChunk {
			t.Errorf("got %d bytes, want %d", w.off, 3*copyChunk)
		}
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want %v", err, context.Canceled)
		}
	})
}

// A sparse file reads as if it had been written in full, and has holes.
func TestSparseWriter(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rnd := rand.New(rand.NewPCG(seed, 0))
	for i := range 200 {
		// Stretches of zeros and of data, and of data with few bytes in it.
		var want []byte
		for range 1 + rnd.IntN(10) {
			part := make([]byte, rnd.IntN(5*holeSize))
			switch rnd.IntN(3) {
			case 0:
				for k := range part {
					part[k] = byte(1 + rnd.IntN(255))
				}
			case 1:
				if len(part) > 0 {
					part[rnd.IntN(len(part))] = 1
				}
			}
			want = append(want, part...)
		}
		f, err := os.Create(filepath.Join(t.TempDir(), "f"))
		if err != nil {
			t.Fatal(err)
		}
		w := &sparseWriter{f: f}
		for p := want; len(p) > 0; {
			n := 1 + rnd.IntN(len(p))
			if got, err := w.Write(p[:n]); got != n || err != nil {
				t.Fatalf("Write(%d bytes): got %d, error %v", n, got, err)
			}
			p = p[n:]
		}
		if err := w.finish(); err != nil {
			t.Fatal(err)
		}
		if got, err := os.ReadFile(f.Name()); err != nil || !bytes.Equal(got, want) {
			t.Fatalf("file %d: got %d bytes, error %v, want the %d that were written", i, len(got), err, len(want))
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// allocated is how many bytes of a file take room.
func allocated(t *testing.T, f *os.File) int64 {
	t.Helper()
	var stat syscall.Stat_t
	if err := syscall.Fstat(int(f.Fd()), &stat); err != nil {
		t.Fatal(err)
	}
	return stat.Blocks * 512
}

func TestSparseWriterHoles(t *testing.T) {
	data := bytes.Repeat([]byte{1}, holeSize)
	tests := []struct {
		name  string
		write func(w io.Writer)
		size  int64
		most  int64 // allocated
	}{
		{"nothing", func(io.Writer) {}, 0, 0},
		{"zeros", func(w io.Writer) { w.Write(make([]byte, 1<<20)) }, 1 << 20, 0},
		{"zeros, not a whole page", func(w io.Writer) { w.Write(make([]byte, 1<<20+1)) }, 1<<20 + 1, 0},
		{"zeros, in small pieces", func(w io.Writer) {
			for range 1000 {
				w.Write(make([]byte, 1000))
			}
		}, 1_000_000, 0},
		{"data first", func(w io.Writer) { w.Write(data); w.Write(make([]byte, 1<<20)) }, 1<<20 + holeSize, 64 << 10},
		{"data last", func(w io.Writer) { w.Write(make([]byte, 1<<20)); w.Write(data) }, 1<<20 + holeSize, 64 << 10},
		{"data in the middle", func(w io.Writer) {
			p := make([]byte, 2<<20)
			copy(p[1<<20:], data)
			w.Write(p)
		}, 2 << 20, 64 << 10},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			f, err := os.Create(filepath.Join(t.TempDir(), "f"))
			if err != nil {
				t.Fatal(err)
			}
			defer f.Close()
			w := &sparseWriter{f: f}
			tt.write(w)
			if err := w.finish(); err != nil {
				t.Fatal(err)
			}
			info, err := f.Stat()
			if err != nil {
				t.Fatal(err)
			}
			if info.Size() != tt.size {
				t.Errorf("got %d bytes, want %d", info.Size(), tt.size)
			}
			if got := allocated(t, f); got > tt.most {
				t.Errorf("got %d bytes allocated, want at most %d", got, tt.most)
			}
		})
	}
}

func TestSparseWriterFails(t *testing.T) {
	path := filepath.Join(t.TempDir(), "f")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path) // for reading only
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	w := &sparseWriter{f: f}
	p := append(make([]byte, 2*holeSize), 1)
	if n, err := w.Write(p); n >= len(p) || !errors.Is(err, syscall.EBADF) {
		t.Errorf("Write: got %d bytes, error %v, want fewer than %d and %v", n, err, len(p), syscall.EBADF)
	}
	if err := w.finish(); err == nil {
		t.Error("finish: got no error")
	}
}

func TestUmask(t *testing.T) {
	old := syscall.Umask(0o027)
	defer syscall.Umask(old)
	if got := umask(); got != 0o027 {
		t.Errorf("got %#o, want 027", got)
	}
	if got := umask(); got != 0o027 {
		t.Errorf("got %#o after asking, want 027 as before", got)
	}
}
