package deflate_test

import (
	"bytes"
	"compress/zlib"
	"fmt"
	"io"
	"testing"

	"github.com/cloopfs/cloopfs/internal/deflate"
	"github.com/cloopfs/cloopfs/internal/zlibtest"
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

func TestRoundTrip(t *testing.T) {
	list := zlibtest.Inputs()
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
	in := zlibtest.Inputs()["mixed"]
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
