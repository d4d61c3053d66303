package lzo_test

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"testing"

	anchore "github.com/anchore/go-lzo"

	"github.com/cloopfs/cloopfs/internal/lzo"
)

// stream is a stream and what it decodes to, one instruction after the other.
type stream struct {
	packed, plain []byte
	state         int // literals that the last instruction has copied; 4 for more
}

// long is what follows an instruction whose length field is 0: n is beyond its largest.
func long(n int) []byte {
	p := make([]byte, (n-1)/255)
	return append(p, byte(n-255*len(p)))
}

// first starts with literals: 1 to 238.
func (s *stream) first(p []byte) {
	s.packed = append(append(s.packed, byte(17+len(p))), p...)
	s.plain = append(s.plain, p...)
	s.state = min(4, len(p))
}

// literals are at least 4, behind a match without literals.
func (s *stream) literals(p []byte) {
	if n := len(p) - 3; n <= 15 {
		s.packed = append(s.packed, byte(n))
	} else {
		s.packed = append(append(s.packed, 0), long(n-15)...)
	}
	s.packed = append(s.packed, p...)
	s.plain = append(s.plain, p...)
	s.state = 4
}

// match copies, by the shortest instruction there is, and has 0 to 3 literals behind it.
func (s *stream) match(length, distance int, behind []byte) {
	d, b := distance-1, len(behind)
	withLength := func(code, largest int) {
		if n := length - 2; n <= largest {
			s.packed = append(s.packed, byte(code|n))
		} else {
			s.packed = append(append(s.packed, byte(code)), long(n-largest)...)
		}
	}
	switch {
	case length == 2 && distance <= 1024 && s.state >= 1 && s.state <= 3:
		s.packed = append(s.packed, byte(d&3<<2|b), byte(d>>2))
	case length == 3 && distance > 2048 && distance <= 3072 && s.state == 4:
		d -= 2048
		s.packed = append(s.packed, byte(d&3<<2|b), byte(d>>2))
	case length >= 3 && length <= 8 && distance <= 2048:
		s.packed = append(s.packed, byte((length-1)<<5|d&7<<2|b), byte(d>>3))
	case distance <= 16384:
		withLength(32, 31)
		s.packed = append(s.packed, byte(d<<2|b), byte(d>>6))
	default:
		d = distance - 16384
		withLength(16|d>>14<<3, 7)
		s.packed = append(s.packed, byte(d<<2|b), byte(d>>6))
	}
	for range length {
		s.plain = append(s.plain, s.plain[len(s.plain)-distance])
	}
	s.packed = append(s.packed, behind...)
	s.plain = append(s.plain, behind...)
	s.state = b
}

func (s *stream) end() { s.packed = append(s.packed, 17, 0, 0) }

// random is a stream of about n bytes, of all instructions.
func random(rnd *rand.Rand, n int) *stream {
	bytes := func(n int) []byte {
		p := make([]byte, n)
		for i := range p {
			p[i] = byte(rnd.Uint32())
		}
		return p
	}
	// Most lengths are short.
	length := func(least int) int { return least + rnd.IntN(1<<rnd.IntN(12)) }
	s := new(stream)
	if rnd.IntN(4) > 0 {
		s.first(bytes(min(238, length(1))))
	} else {
		s.literals(bytes(length(4)))
	}
	for len(s.plain) < n {
		if s.state == 0 && rnd.IntN(2) == 0 {
			s.literals(bytes(length(4)))
			continue
		}
		far := []int{16, 1024, 3072, 16384, 49151}[rnd.IntN(5)] // what the instructions reach
		distance := 1 + rnd.IntN(min(far, len(s.plain)))
		least := 3
		if s.state >= 1 && s.state <= 3 && distance <= 1024 {
			least = 2
		}
		s.match(length(least), distance, bytes(rnd.IntN(4)))
	}
	s.end()
	return s
}

// What is packed by the book is decoded, to just as much room and to more; with less room,
// a byte less or a byte more it is refused.
func TestDecode(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 1))
	for i := range 3000 {
		s := random(rnd, 1<<rnd.IntN(18))
		for _, room := range []int{len(s.plain), len(s.plain) + 1 + rnd.IntN(40)} {
			dst := bytes.Repeat([]byte{0xa5}, room+8)
			n, err := lzo.Decode(dst[:room:room], s.packed)
			if err != nil || !bytes.Equal(dst[:n], s.plain) {
				t.Fatalf("stream %d: %d of %d bytes, %v", i, n, len(s.plain), err)
			}
			if !bytes.Equal(dst[room:], bytes.Repeat([]byte{0xa5}, 8)) {
				t.Fatalf("stream %d: written beyond the end", i)
			}
		}
		if n, err := lzo.Decode(make([]byte, len(s.plain)-1), s.packed); !errors.Is(err, lzo.ErrTooLong) {
			t.Fatalf("stream %d with a byte less room: %d, %v", i, n, err)
		}
		cut := rnd.IntN(len(s.packed))
		if n, err := lzo.Decode(make([]byte, len(s.plain)), s.packed[:cut]); !errors.Is(err, lzo.ErrTruncated) {
			t.Fatalf("stream %d cut off: %d, %v", i, n, err)
		}
		if n, err := lzo.Decode(make([]byte, len(s.plain)), append(s.packed, 0)); !errors.Is(err, lzo.ErrTrailing) {
			t.Fatalf("stream %d with a byte more: %d, %v", i, n, err)
		}
	}
}

func TestRefused(t *testing.T) {
	for name, c := range map[string]struct {
		packed []byte
		want   error
	}{
		"nothing":                         {nil, lzo.ErrTruncated},
		"a copy at the start":             {[]byte{16, 1, 4, 0, 17, 0, 0}, lzo.ErrDistance},
		"a copy from before the start":    {[]byte{21, 1, 2, 3, 4, 64 | 3<<2, 1, 17, 0, 0}, lzo.ErrDistance},
		"an end of another length":        {[]byte{21, 1, 2, 3, 4, 18, 0, 0}, lzo.ErrSyntax},
		"a length that never ends":        {[]byte{0, 0, 0, 0, 0, 0, 0, 0}, lzo.ErrTooLong},
		"a length that breaks off":        {[]byte{0, 0, 0}, lzo.ErrTruncated},
		"literals that break off":         {[]byte{25, 1, 2}, lzo.ErrTruncated},
		"a distance that breaks off":      {[]byte{21, 1, 2, 3, 4, 33, 0}, lzo.ErrTruncated},
		"a near distance that breaks off": {[]byte{21, 1, 2, 3, 4, 64}, lzo.ErrTruncated},
		"no end":                          {[]byte{21, 1, 2, 3, 4}, lzo.ErrTruncated},
	} {
		if n, err := lzo.Decode(make([]byte, 1000), c.packed); !errors.Is(err, c.want) {
			t.Errorf("%s: %d, %v; want %v", name, n, err, c.want)
		}
	}
	if n, err := lzo.Decode(nil, []byte{17, 0, 0}); n != 0 || err != nil {
		t.Errorf("an empty stream: %d, %v", n, err)
	}
}

// FuzzDecode compares with anchore/go-lzo.
func FuzzDecode(f *testing.F) {
	rnd := rand.New(rand.NewPCG(2, 2))
	for i := range 14 {
		f.Add(random(rnd, 1<<i).packed)
	}
	f.Fuzz(func(t *testing.T, packed []byte) {
		const room = 64 << 10
		ours, theirs := make([]byte, room+8), make([]byte, room)
		n, err := lzo.Decode(ours[:room:room], packed)
		m, theirErr := anchore.Decompress(packed, theirs)
		if (err == nil) != (theirErr == nil) {
			t.Fatalf("%d, %v; anchore/go-lzo says %d, %v", n, err, m, theirErr)
		}
		if err == nil && !bytes.Equal(ours[:n], theirs[:m]) {
			t.Fatalf("%d bytes differ from %d", n, m)
		}
		if !bytes.Equal(ours[room:], make([]byte, 8)) {
			t.Fatal("written beyond the end")
		}
	})
}
