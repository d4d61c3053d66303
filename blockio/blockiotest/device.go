package blockiotest

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math"
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
)

// TestDevice checks the devices that newDevice makes: that they read as they were
// written to, and nowhere else than there. They may hold anything at first, and
// are of one size, 64 KiB or more.
func TestDevice(t *testing.T, newDevice func() blockio.Device) {
	t.Helper()
	t.Run("reads", func(t *testing.T) {
		m := newModel(t, newDevice())
		TestReaderAt(t, m.dev, m.want)
		m.write(t, m.size/3, m.size/3)
		m.zero(t, m.size/2, m.size/3)
		TestReaderAt(t, m.dev, m.want)
		checkMap(t, m.dev, m.want)
	})
	t.Run("writes and zeros", func(t *testing.T) {
		m := newModel(t, newDevice())
		const page = 4096
		for _, c := range []struct{ off, n int64 }{
			{0, 0},
			{0, 1},
			{m.size - 1, 1},
			{m.size, 0},
			{page, page},
			{2*page + 1, page},
			{4*page - 1, 2},
			{5 * page, 3 * page},
			{5*page + 512, 512},
			{8*page - 1, page + 2},
			{0, m.size},
			{1, m.size - 2},
		} {
			m.zero(t, c.off, c.n)
			m.write(t, c.off, c.n)
			m.check(t)
			m.zero(t, c.off, c.n)
			m.check(t)
			checkMap(t, m.dev, m.want)
			m.write(t, c.off, c.n)
		}
	})
	t.Run("at random", func(t *testing.T) {
		m := newModel(t, newDevice())
		for i := range 500 {
			off := m.rnd.Int64N(m.size)
			n := m.rnd.Int64N(min(m.size-off, 1<<uint(m.rnd.IntN(18))) + 1)
			switch m.rnd.IntN(8) {
			case 0:
				m.zero(t, off, n)
			case 1:
				m.flush(t)
			case 2, 3:
				readAt(t, m.dev, m.want, off, n)
			default:
				m.write(t, off, n)
			}
			if i%100 == 99 {
				m.check(t)
				checkMap(t, m.dev, m.want)
			}
		}
	})
	t.Run("beyond the end", func(t *testing.T) {
		m := newModel(t, newDevice())
		for _, e := range []blockio.Extent{
			{Off: -1, Len: 1},
			{Off: m.size, Len: 1},
			{Off: m.size - 1, Len: 2},
			{Off: 0, Len: m.size + 1},
			{Off: m.size + 1, Len: 0},
			{Off: math.MaxInt64, Len: 1},
		} {
			if n, err := m.dev.WriteAtContext(t.Context(), make([]byte, e.Len), e.Off); n != 0 || !errors.Is(err, blockio.ErrBeyondDevice) {
				t.Errorf("WriteAtContext(%d bytes, %d) of %d = %d, %v; want 0, ErrBeyondDevice", e.Len, e.Off, m.size, n, err)
			}
			if err := m.dev.ZeroContext(t.Context(), e); !errors.Is(err, blockio.ErrBeyondDevice) {
				t.Errorf("ZeroContext(%+v) of %d: %v, want ErrBeyondDevice", e, m.size, err)
			}
		}
		if err := m.dev.ZeroContext(t.Context(), blockio.Extent{Off: 1, Len: math.MaxInt64}); !errors.Is(err, blockio.ErrBeyondDevice) {
			t.Errorf("ZeroContext of more than there can be: %v, want ErrBeyondDevice", err)
		}
		m.check(t)
	})
	t.Run("the buffer stays its owner's", func(t *testing.T) {
		m := newModel(t, newDevice())
		p := bytes.Repeat([]byte{0xA5}, 10_000)
		before := bytes.Clone(p)
		if _, err := m.dev.WriteAtContext(t.Context(), p, 100); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(p, before) {
			t.Error("a write has changed its buffer")
		}
		copy(m.want[100:], p)
		clear(p)
		m.check(t)
	})
	t.Run("ended context", func(t *testing.T) {
		// What needs no waiting may still be done; what fails leaves old bytes
		// or new ones, and none elsewhere.
		m := newModel(t, newDevice())
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		const off, n = 1000, 20_000
		p := m.random(n)
		_, err := m.dev.WriteAtContext(ctx, p, off)
		m.checkMixture(t, off, p, err)
		err = m.dev.ZeroContext(ctx, blockio.Extent{Off: off, Len: n})
		m.checkMixture(t, off, make([]byte, n), err)
		if err := m.dev.Flush(ctx); err != nil && !errors.Is(err, context.Canceled) {
			t.Errorf("Flush: %v, want nothing or the context's error", err)
		}
		m.flush(t)
		m.check(t)
	})
	t.Run("in parallel", func(t *testing.T) {
		m := newModel(t, newDevice())
		const owners, stripe = 4, 1000 // so that they share pages
		ctx, cancel := context.WithCancel(t.Context())
		var owning, others sync.WaitGroup
		others.Go(func() {
			for p := make([]byte, m.size); ctx.Err() == nil; {
				if err := m.dev.Flush(t.Context()); err != nil {
					t.Errorf("Flush: %v", err)
				}
				if _, err := m.dev.ReadAtContext(t.Context(), p, 0); err != nil {
					t.Errorf("read: %v", err)
				}
			}
		})
		for owner := range owners {
			owning.Go(func() {
				rnd := rand.New(rand.NewPCG(6, uint64(owner)))
				for range 200 {
					at := (rnd.Int64N(m.size/stripe/owners)*owners + int64(owner)) * stripe
					off := at + rnd.Int64N(stripe)
					n := rnd.Int64N(at + stripe - off + 1)
					switch rnd.IntN(4) {
					case 0:
						if err := m.dev.ZeroContext(t.Context(), blockio.Extent{Off: off, Len: n}); err != nil {
							t.Errorf("ZeroContext: %v", err)
						}
						clear(m.want[off : off+n])
					case 1:
						readAt(t, m.dev, m.want[:off+n], off, n) // as if it ended here
					default:
						p := m.want[off : off+n]
						for i := range p {
							p[i] = byte(rnd.Uint32())
						}
						if _, err := m.dev.WriteAtContext(t.Context(), p, off); err != nil {
							t.Errorf("WriteAtContext: %v", err)
						}
					}
				}
			})
		}
		owning.Wait()
		cancel()
		others.Wait()
		m.check(t)
		checkMap(t, m.dev, m.want)
	})
}

// model is a device and what it should hold.
type model struct {
	dev  blockio.Device
	size int64
	want []byte
	rnd  *rand.Rand
}

func newModel(t *testing.T, dev blockio.Device) *model {
	t.Helper()
	m := &model{dev: dev, size: dev.Size(), want: make([]byte, dev.Size()), rnd: rand.New(rand.NewPCG(5, 5))}
	if m.size < 64<<10 {
		t.Fatalf("a device of %d bytes is too small for the suite", m.size)
	}
	if _, err := dev.ReadAtContext(t.Context(), m.want, 0); err != nil {
		t.Fatal(err)
	}
	return m
}

// random is n bytes, none of them 0.
func (m *model) random(n int64) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(1 + m.rnd.IntN(255))
	}
	return p
}

func (m *model) write(t *testing.T, off, n int64) {
	t.Helper()
	p := m.random(n)
	if got, err := m.dev.WriteAtContext(t.Context(), p, off); got != len(p) || err != nil {
		t.Fatalf("WriteAtContext(%d bytes, %d) = %d, %v", n, off, got, err)
	}
	copy(m.want[off:], p)
}

func (m *model) zero(t *testing.T, off, n int64) {
	t.Helper()
	if err := m.dev.ZeroContext(t.Context(), blockio.Extent{Off: off, Len: n}); err != nil {
		t.Fatalf("ZeroContext(%d+%d): %v", off, n, err)
	}
	clear(m.want[off : off+n])
}

func (m *model) flush(t *testing.T) {
	t.Helper()
	if err := m.dev.Flush(t.Context()); err != nil {
		t.Fatalf("Flush: %v", err)
	}
}

func (m *model) read(t *testing.T) []byte {
	t.Helper()
	p := make([]byte, m.size)
	if n, err := m.dev.ReadAtContext(t.Context(), p, 0); err != nil && err != io.EOF || n != len(p) {
		t.Fatalf("read of the whole device: %d bytes, %v", n, err)
	}
	return p
}

// check compares the device with what it should hold.
func (m *model) check(t *testing.T) {
	t.Helper()
	if got := m.read(t); !bytes.Equal(got, m.want) {
		for i := range got {
			if got[i] != m.want[i] {
				t.Fatalf("byte %d of %d is %#x, want %#x", i, m.size, got[i], m.want[i])
			}
		}
	}
}

// checkMixture checks that p is at off, or if err is set some of its bytes, and
// takes over what is there.
func (m *model) checkMixture(t *testing.T, off int64, p []byte, err error) {
	t.Helper()
	got := m.read(t)
	for i := range p {
		if b := got[off+int64(i)]; b == p[i] || err != nil && b == m.want[off+int64(i)] {
			continue
		}
		t.Fatalf("byte %d is neither the old one nor the new one (%v)", off+int64(i), err)
	}
	copy(m.want[off:], got[off:off+int64(len(p))])
	m.check(t)
}

// checkMap checks that what a disk knows of its zeros is true.
func checkMap(t *testing.T, r blockio.ReaderAt, want []byte) {
	t.Helper()
	for off := int64(0); off < r.Size(); {
		n, zeros, err := blockio.MapAt(t.Context(), r, off)
		if err != nil || n <= 0 || n > r.Size()-off {
			t.Fatalf("MapAt(%d) = %d, %v, %v with %d bytes left", off, n, zeros, err, r.Size()-off)
		}
		if zeros && len(bytes.TrimLeft(want[off:off+n], "\x00")) > 0 {
			t.Fatalf("MapAt(%d) says that %d bytes are zeros, and they are not", off, n)
		}
		off += n
	}
}
