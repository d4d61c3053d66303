package cloop

import (
	"bytes"
	"context"
	"errors"
	"os"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
)

// sample returns the first stored block of a fixture whose blocks all have one
// codec, and what it decodes to according to the fixture of stored blocks.
func sample(t testing.TB, file string) (stored, block []byte) {
	t.Helper()
	first := func(name string) []byte {
		data, err := os.ReadFile("../testdata/cloop/" + name)
		if err != nil {
			t.Fatal(err)
		}
		ix, err := Open(context.Background(), readerAt{bytes.NewReader(data)})
		if err != nil {
			t.Fatal(err)
		}
		e, err := ix.Extent(context.Background(), 0)
		if err != nil {
			t.Fatal(err)
		}
		return data[e.Off:e.End()]
	}
	return first(file), first("v4-stored.cloop")
}

type readerAt struct{ *bytes.Reader }

func (r readerAt) ReadAtContext(_ context.Context, p []byte, off int64) (int, error) {
	return r.ReadAt(p, off)
}

var _ blockio.ReaderAt = readerAt{}

var samples = map[codec]string{
	codecZlib: "v4-zlib.cloop", codecStored: "v4-stored.cloop", codecXZ: "v4-xz.cloop",
	codecLZ4: "v4-lz4.cloop", codecLZO: "v4-lzo.cloop",
}

// Each codec decodes what it should, says so when there is no room for it, and
// refuses what is torn.
func TestDecoders(t *testing.T) {
	for c, file := range samples {
		stored, want := sample(t, file)
		dst := make([]byte, len(want))
		if n, err := decoders[c](dst, stored); n != len(want) || err != nil || !bytes.Equal(dst, want) {
			t.Errorf("%s: %d bytes, %v; want %d", file, n, err, len(want))
		}
		if n, err := decoders[c](make([]byte, 2*len(want)), stored); n != len(want) || err != nil {
			t.Errorf("%s with room to spare: %d bytes, %v; want %d", file, n, err, len(want))
		}
		if n, err := decoders[c](dst[:len(dst)-1], stored); err == nil {
			t.Errorf("%s with a byte less room: %d bytes and no error", file, n)
		}
		if c == codecStored {
			continue
		}
		if n, err := decoders[c](dst, stored[:len(stored)/2]); err == nil && n == len(want) {
			t.Errorf("the first half of %s decodes to a whole block", file)
		}
	}
}

// What has a checksum is refused if a bit is wrong.
func TestChecksums(t *testing.T) {
	for _, c := range []codec{codecZlib, codecXZ} {
		stored, want := sample(t, samples[c])
		for i := 0; i < len(stored); i += 97 {
			stored[i] ^= 0x10
			dst := make([]byte, len(want))
			if n, err := decoders[c](dst, stored); err == nil && (n != len(want) || !bytes.Equal(dst, want)) {
				t.Errorf("%s with bit 4 of byte %d flipped: other bytes and no error", samples[c], i)
			}
			stored[i] ^= 0x10
		}
	}
}

// Once a block has decoded to zeros, what is stored in the same bytes is zeros, and
// nothing else is.
func TestZeros(t *testing.T) {
	for _, size := range []int{512, 64 << 10, 1 << 20} {
		for _, method := range []Method{Zlib, XZ, LZ4} {
			ix := &Index{header: header{blockSize: size, blocks: 10, disk: 10*int64(size) - 512}}
			dst := make([]byte, size)
			stored, c, err := newEncoder(Encoding{Method: method, Level: 6, BlockSize: size}).encode(nil, dst)
			if err != nil {
				t.Fatal(err)
			}
			decode := func(stored []byte) error {
				for i := range dst {
					dst[i] = 0xa5
				}
				_, err := ix.decode(3, c, dst, stored)
				return err
			}
			for range 2 {
				if err := decode(stored); err != nil || !isZero(dst) {
					t.Fatalf("%d zeros as %v: %v", size, method, err)
				}
				if !ix.zeroForm.Load().is(c, stored) {
					t.Fatalf("%d zeros as %v: %d bytes are not remembered", size, method, len(stored))
				}
			}
			for i := 0; i < len(stored); i += 1 + len(stored)/40 {
				bad := bytes.Clone(stored)
				bad[i] ^= 1
				if err := decode(bad); err == nil && !isZero(dst) && method != LZ4 {
					t.Errorf("%d zeros as %v, with byte %d changed: something else and no error", size, method, i)
				} else if ix.zeroForm.Load().is(c, bad) && !isZero(dst) {
					t.Errorf("%d zeros as %v, with byte %d changed: remembered as zeros", size, method, i)
				}
			}
			if _, err := ix.decode(9, c, dst[:size/2], stored); !errors.Is(err, ErrCorrupt) {
				t.Errorf("%d zeros as %v, where half of them are expected: %v", size, method, err)
			}
		}
	}
}

func FuzzXZ(f *testing.F)  { fuzzCodec(f, codecXZ) }
func FuzzLZ4(f *testing.F) { fuzzCodec(f, codecLZ4) }
func FuzzLZO(f *testing.F) { fuzzCodec(f, codecLZO) }

// fuzzCodec decodes anything to blocks of two sizes, and looks for what was
// written beyond.
func fuzzCodec(f *testing.F, c codec) {
	addSamples(f, c)
	f.Fuzz(func(t *testing.T, stored []byte) {
		buf := make([]byte, 64<<10+8)
		for _, size := range []int{64 << 10, 512} {
			guard := buf[size : size+8 : size+8]
			copy(guard, "unharmed")
			n, err := decoders[c](buf[:size:size], stored)
			if n < 0 || n > size || string(guard) != "unharmed" {
				t.Errorf("%d bytes of %d, %v; beyond them %q", n, size, err, guard)
			}
		}
	})
}

// addSamples adds what the reference encoder has made of blocks of 64 KiB.
func addSamples(f *testing.F, c codec) {
	stored, _ := sample(f, samples[c])
	f.Add(stored)
	f.Add(stored[:len(stored)/2])
}
