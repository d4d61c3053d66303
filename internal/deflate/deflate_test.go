package deflate_test

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"io"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/cloopfs/cloopfs/internal/deflate"
)

// inflate decodes a zlib stream, which must end where p does.
func inflate(p []byte) ([]byte, error) {
	r := bytes.NewReader(p)
	zr, err := zlib.NewReader(r)
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(zr)
	if err == nil && r.Len() > 0 {
		err = fmt.Errorf("%d bytes are left", r.Len())
	}
	return out, err
}

// inputs are what is awkward, and what is usual.
func inputs() map[string][]byte {
	random := make([]byte, 150_000)
	chacha := rand.NewChaCha8([32]byte{3})
	chacha.Read(random)
	rnd := rand.New(chacha)
	list := map[string][]byte{
		"nothing": nil, "random": random, "zeros": make([]byte, 1<<20+3),
		"text": []byte(strings.Repeat("a line of text, and another\n", 5000)),
		"far":  append(append(bytes.Clone(random[:32<<10]), random[:32<<10]...), random[:40<<10]...),
	}
	for n := range 20 {
		list[fmt.Sprintf("%d bytes", n)] = random[:n]
		list[fmt.Sprintf("%d zeros", n)] = make([]byte, n)
	}
	// Frequencies like these make codes that are too long.
	var skewed []byte
	for s, n := 0, 1; n < 20_000; s, n = s+1, n*8/5+1 {
		skewed = append(skewed, bytes.Repeat([]byte{byte(s * 7)}, n)...)
	}
	rnd.Shuffle(len(skewed), func(i, j int) { skewed[i], skewed[j] = skewed[j], skewed[i] })
	list["skewed"] = skewed
	// Parts of different kinds, with copies of what came before.
	var mixed []byte
	for len(mixed) < 300_000 {
		switch n := 1 + rnd.IntN(3000); rnd.IntN(4) {
		case 0:
			mixed = append(mixed, random[:n]...)
		case 1:
			mixed = append(mixed, list["text"][:n]...)
		case 2:
			for range n {
				mixed = append(mixed, "0123456789abcdef"[rnd.IntN(16)])
			}
		default:
			if n < len(mixed) {
				from := rnd.IntN(len(mixed) - n)
				mixed = append(mixed, mixed[from:from+n]...)
			}
		}
	}
	list["mixed"] = mixed
	return list
}

func TestRoundTrip(t *testing.T) {
	list := inputs()
	for level := range 10 {
		e := deflate.New(level)
		for name, in := range list {
			before := []byte("before")
			out := e.Append(before, in)
			if !bytes.HasPrefix(out, before) {
				t.Fatalf("level %d, %s: what was there before is lost", level, name)
			}
			out = out[len(before):]
			if got, err := inflate(out); err != nil || !bytes.Equal(got, in) {
				t.Errorf("level %d, %s: decodes to %d bytes, %v", level, name, len(got), err)
			}
			if most := len(in) + len(in)/1000 + 32; len(out) > most {
				t.Errorf("level %d, %s: %d bytes from %d", level, name, len(out), len(in))
			}
			if again := deflate.New(level).Append(nil, in); !bytes.Equal(again, out) {
				t.Errorf("level %d, %s: what came before changes the output", level, name)
			}
		}
	}
}

// It is there because it is smaller than this one.
func TestSize(t *testing.T) {
	in := inputs()["mixed"]
	for _, level := range []int{1, 6, 9} {
		var std bytes.Buffer
		w, err := zlib.NewWriterLevel(&std, level)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := w.Write(in); err != nil {
			t.Fatal(err)
		}
		if err := w.Close(); err != nil {
			t.Fatal(err)
		}
		if got := len(deflate.New(level).Append(nil, in)); got > std.Len() {
			t.Errorf("level %d: %d bytes, compress/zlib makes %d", level, got, std.Len())
		}
	}
}

func FuzzRoundTrip(f *testing.F) {
	f.Add([]byte("abcabcabcabc"), uint8(6))
	f.Add(make([]byte, 1000), uint8(9))
	f.Fuzz(func(t *testing.T, in []byte, level uint8) {
		e := deflate.New(int(level % 10))
		for range 2 {
			if got, err := inflate(e.Append(nil, in)); err != nil || !bytes.Equal(got, in) {
				t.Fatalf("decodes to %d bytes of %d, %v", len(got), len(in), err)
			}
		}
	})
}
