// Package lzo decodes LZO1X streams in memory: those of liblzo2's lzo1x_1_compress to
// lzo1x_999_compress. Source: the kernel's Documentation/staging/lzo.rst, without its
// run-length extension, which liblzo2 does not have.
package lzo

import "errors"

// The ways in which a stream can be bad.
var (
	ErrTruncated = errors.New("lzo: the stream breaks off")
	ErrTooLong   = errors.New("lzo: decodes to more than there is room for")
	ErrDistance  = errors.New("lzo: copies from before the start")
	ErrTrailing  = errors.New("lzo: bytes follow the end of the stream")
	ErrSyntax    = errors.New("lzo: no stream")
)

const (
	// farther is the shortest distance of a copy behind a run of literals.
	farther = 2049
	// farthest is what the distances of the copies that reach farthest count from; it is
	// none of them itself, but the end.
	farthest = 16384
	// stride is how many bytes are copied at a time where there is room.
	stride = 16
)

// Decode decodes a whole stream into dst and returns its length. It keeps to dst, but may
// write to all of it, and says why the stream is bad if it is.
func Decode(dst, src []byte) (int, error) {
	d := decoder{dst: dst, src: src}
	err := d.run()
	return d.out, err
}

// decoder is where decoding has come to.
type decoder struct {
	dst, src []byte
	in, out  int
}

// What has come before an instruction decides what its first 16 codes mean.
const (
	afterMatch    = 0 // and no literals
	afterLiterals = 4 // a run of them; 1 to 3 are literals behind a match
)

func (d *decoder) run() error {
	if len(d.src) == 0 {
		return ErrTruncated
	}
	state := afterMatch
	if first := int(d.src[0]); first > 17 { // literals from the start
		d.in++
		n := first - 17
		if err := d.literals(n); err != nil {
			return err
		}
		state = min(n, afterLiterals)
	}
	for {
		if d.in >= len(d.src) {
			return ErrTruncated
		}
		code := int(d.src[d.in])
		d.in++
		var length, distance, behind int
		switch {
		case code >= 64:
			// L L L D D D S S, then H; L at least 2
			if d.in >= len(d.src) {
				return ErrTruncated
			}
			length = code>>5 + 1
			distance = int(d.src[d.in])<<3 + code>>2&7 + 1
			behind = code & 3
			d.in++
		case code >= 16:
			// 0 0 1 L L L L L or 0 0 0 1 H L L L, then D in 14 bits and S
			mask := 31
			if code < 32 {
				mask = 7
			}
			length = code&mask + 2
			if length == 2 {
				more, err := d.long(mask)
				if err != nil {
					return err
				}
				length += more
			}
			if len(d.src)-d.in < 2 {
				return ErrTruncated
			}
			low := int(d.src[d.in]) | int(d.src[d.in+1])<<8
			d.in += 2
			behind = low & 3
			distance = low>>2 + 1
			if code < 32 {
				distance += code&8<<11 + farthest - 1
				if distance == farthest {
					return d.end(code)
				}
			}
		case state == afterMatch:
			n := code + 3
			if n == 3 {
				more, err := d.long(15)
				if err != nil {
					return err
				}
				n += more
			}
			if err := d.literals(n); err != nil {
				return err
			}
			state = afterLiterals
			continue
		default:
			// 0 0 0 0 D D S S, then H
			if d.in >= len(d.src) {
				return ErrTruncated
			}
			length, distance = 2, int(d.src[d.in])<<2+code>>2+1
			if state == afterLiterals {
				length, distance = 3, distance+farther-1
			}
			behind = code & 3
			d.in++
		}
		if err := d.match(length, distance); err != nil {
			return err
		}
		if behind > 0 {
			if err := d.literals(behind); err != nil {
				return err
			}
		}
		state = behind
	}
}

// long reads the rest of a length that starts with so much: 255 for each byte of zero, and
// the first that is not.
func (d *decoder) long(base int) (int, error) {
	for n := base; d.in < len(d.src); n += 255 {
		b := d.src[d.in]
		d.in++
		if b != 0 {
			return n + int(b), nil
		}
		if n > len(d.dst) {
			return 0, ErrTooLong
		}
	}
	return 0, ErrTruncated
}

// literals copies n bytes of the stream.
func (d *decoder) literals(n int) error {
	src, dst := d.src[d.in:], d.dst[d.out:]
	switch {
	case n <= stride && len(src) >= stride && len(dst) >= stride:
		*(*[stride]byte)(dst) = *(*[stride]byte)(src)
	case n > len(src):
		return ErrTruncated
	case n > len(dst):
		return ErrTooLong
	default:
		copy(dst[:n], src)
	}
	d.in += n
	d.out += n
	return nil
}

// match copies bytes that have been decoded before.
func (d *decoder) match(length, distance int) error {
	from, end := d.out-distance, d.out+length
	switch {
	case from < 0:
		return ErrDistance
	case end > len(d.dst):
		return ErrTooLong
	case distance >= stride && len(d.dst)-end >= stride:
		for to := d.out; to < end; to += stride {
			*(*[stride]byte)(d.dst[to:]) = *(*[stride]byte)(d.dst[from:])
			from += stride
		}
	case distance >= length:
		copy(d.dst[d.out:end], d.dst[from:])
	default:
		// What is copied grows by what was copied.
		for to := d.out; to < end; {
			to += copy(d.dst[to:end], d.dst[from:to])
		}
	}
	d.out = end
	return nil
}

// end judges the end of the stream, whose instruction is code.
func (d *decoder) end(code int) error {
	switch {
	case code != 17:
		return ErrSyntax
	case d.in < len(d.src):
		return ErrTrailing
	}
	return nil
}
