package inflate_test

import (
	"bytes"
	"compress/zlib"
	"errors"
	"fmt"
	"hash/adler32"
	"math/rand/v2"
	"testing"

	"github.com/cloopfs/cloopfs/internal/deflate"
	"github.com/cloopfs/cloopfs/internal/inflate"
	"github.com/cloopfs/cloopfs/internal/zlibtest"
)

// compare decodes src both ways into room bytes. Neither src nor those may be left.
func compare(t *testing.T, room int, src []byte) (n int, err error) {
	t.Helper()
	want, wantErr := zlibtest.Decode(room, src)
	for _, g := range guards {
		in, out := g(source, len(src)), g(destination, room)
		copy(in, src)
		n, err = inflate.Zlib(out, in)
		if (err == nil) != (wantErr == nil) {
			t.Fatalf("%d bytes into %d: %d, %v; the reference says %d, %v", len(src), room, n, err, len(want), wantErr)
		}
		if err == nil && !bytes.Equal(out[:n], want) {
			t.Fatalf("%d bytes into %d: %d bytes differ from the reference's %d", len(src), room, n, len(want))
		}
	}
	return n, err
}

// encodings are p by different encoders.
func encodings(t testing.TB, p []byte) map[string][]byte {
	t.Helper()
	list := make(map[string][]byte)
	for _, level := range []int{zlib.HuffmanOnly, 1, 9} {
		var b bytes.Buffer
		w, err := zlib.NewWriterLevel(&b, level)
		if err != nil {
			t.Fatal(err)
		}
		for part := range 3 { // blocks end where parts do, with an empty one behind
			if _, err := w.Write(p[len(p)*part/3 : len(p)*(part+1)/3]); err != nil {
				t.Fatal(err)
			}
			if err := w.Flush(); err != nil {
				t.Fatal(err)
			}
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		list[fmt.Sprintf("standard library, level %d", level)] = b.Bytes()
	}
	for _, level := range []int{0, 9} {
		list[fmt.Sprintf("deflate, level %d", level)] = deflate.New(level).Append(nil, p)
	}
	return list
}

func TestZlib(t *testing.T) {
	for name, in := range zlibtest.Inputs() {
		in = in[:min(len(in), 1<<17)]
		for encoder, src := range encodings(t, in) {
			t.Run(name+"/"+encoder, func(t *testing.T) {
				for _, room := range []int{len(in), len(in) + 1, len(in) + 1000} {
					if n, err := compare(t, room, src); err != nil || n != len(in) {
						t.Errorf("into %d bytes: %d, %v", room, n, err)
					}
				}
				if n, err := compare(t, len(in), append(bytes.Clone(src), "what follows"...)); err != nil || n != len(in) {
					t.Errorf("with something behind it: %d, %v", n, err)
				}
				for _, room := range []int{len(in) - 1, len(in) / 2, 0} {
					if room < 0 || room == len(in) {
						continue
					}
					if _, err := compare(t, room, src); !errors.Is(err, inflate.ErrTooLong) {
						t.Errorf("into %d bytes: %v", room, err)
					}
				}
				for cut := 1; cut < len(src); cut += 1 + cut {
					if _, err := compare(t, len(in), src[:len(src)-cut]); !errors.Is(err, inflate.ErrTruncated) {
						t.Errorf("without the last %d of %d bytes: %v", cut, len(src), err)
					}
				}
				for i := 1; i <= 4; i++ {
					bad := bytes.Clone(src)
					bad[len(bad)-i] ^= 0x10
					if _, err := compare(t, len(in), bad); !errors.Is(err, inflate.ErrChecksum) {
						t.Errorf("with a wrong checksum: %v", err)
					}
				}
			})
		}
	}
}

// Whatever happens to a stream, there is the same verdict, and the same bytes.
func TestDamaged(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 2))
	list := zlibtest.Inputs()
	for _, name := range []string{"mixed", "skewed", "text", "period 7", "19 bytes"} {
		in := list[name]
		in = in[:min(len(in), 5000)]
		for _, src := range encodings(t, in) {
			for range 100 {
				bad := bytes.Clone(src)
				for range 1 + rnd.IntN(3) {
					bad[rnd.IntN(len(bad))] ^= 1 << rnd.IntN(8)
				}
				_, _ = compare(t, len(in)+rnd.IntN(300), bad)
			}
		}
	}
}

func TestNoAllocation(t *testing.T) {
	in := zlibtest.Inputs()["mixed"]
	src := deflate.New(6).Append(nil, in)
	dst := make([]byte, len(in))
	if n := testing.AllocsPerRun(100, func() { _, _ = inflate.Zlib(dst, src) }); n > 0 && !raceEnabled {
		t.Errorf("%v allocations", n)
	}
}

func TestAdler32(t *testing.T) {
	p := make([]byte, 9<<20)
	for i := range p {
		p[i] = 0xff
	}
	rnd := rand.New(rand.NewPCG(3, 4))
	for i := range 3000 {
		from := rnd.IntN(64)
		q := p[from : from+rnd.IntN(1+i)]
		if got, want := inflate.Adler32(q), adler32.Checksum(q); got != want {
			t.Fatalf("of %d bytes: %#x, want %#x", len(q), got, want)
		}
		p[rnd.IntN(4096)] = byte(rnd.Uint32())
	}
	if got, want := inflate.Adler32(p), adler32.Checksum(p); got != want {
		t.Errorf("of %d bytes: %#x, want %#x", len(p), got, want)
	}
}

// FuzzZlib compares with another decoder: the same verdict, and the same bytes.
func FuzzZlib(f *testing.F) {
	for _, in := range zlibtest.Inputs() {
		in = in[:min(len(in), 1000)]
		for _, src := range encodings(f, in) {
			f.Add(src, uint16(len(in)))
		}
	}
	f.Fuzz(func(t *testing.T, src []byte, room uint16) {
		compareRight(t, src, int(room))
	})
}

// compareRight compares src, and if it has nothing wrong but its checksum also with the
// right one: behind most of what was changed nothing else would be seen.
func compareRight(t *testing.T, src []byte, room int) {
	t.Helper()
	_, _ = compare(t, room, src)
	if right := zlibtest.Repair(1<<16, src); right != nil {
		if n, err := compare(t, 1<<16, right); err != nil {
			t.Fatalf("with the right checksum: %d, %v", n, err)
		}
	}
}
