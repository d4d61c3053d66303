// Package zlibtest has what encoders and decoders of zlib streams are tested with.
package zlibtest

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/adler32"
	"io"
	"math/rand/v2"
	"strings"
)

// Inputs are what is awkward, and what is usual: up to a megabyte, the same each time.
func Inputs() map[string][]byte {
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
	for _, period := range []int{1, 2, 3, 4, 5, 6, 7, 8, 9, 15, 16, 17, 31, 32, 33} {
		list[fmt.Sprintf("period %d", period)] = bytes.Repeat(random[:period], 3000/period)
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

// Decode decodes up to room bytes with the standard library, which ends where the
// stream does, and has to end within room. (klauspost/compress 1.20.3 takes a distance
// code that does not exist, which zlib and the standard library do not.)
func Decode(room int, src []byte) ([]byte, error) {
	r, err := zlib.NewReader(bytes.NewReader(src))
	if err != nil {
		return nil, err
	}
	out, err := io.ReadAll(io.LimitReader(r, int64(room)+1))
	if err == nil && len(out) > room {
		err = errors.New("too long")
	}
	return out, err
}

// Repair returns a stream of up to room bytes, which has nothing wrong but its checksum, with
// the right one; of any other it returns nil. Behind most of what is changed in a stream
// nothing else would be seen.
func Repair(room int, src []byte) []byte {
	in := bytes.NewReader(src)
	r, err := zlib.NewReader(in)
	if err != nil {
		return nil
	}
	out, err := io.ReadAll(io.LimitReader(r, int64(room)+1))
	if !errors.Is(err, zlib.ErrChecksum) {
		return nil
	}
	// in is behind the checksum.
	return binary.BigEndian.AppendUint32(bytes.Clone(src[:len(src)-in.Len()-4]), adler32.Checksum(out))
}
