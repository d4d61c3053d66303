package profile

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"
)

const (
	// magic is the first line of a profile, without its version.
	magic   = "cloopfs profile"
	version = 1
	// maxRuns bounds the memory for a profile, to 24 MiB, and its file.
	maxRuns = 1 << 20
	// maxLine is longer than any line that makes sense.
	maxLine     = 256
	maxIdentity = 64
	// maxGap bounds a gap: an hour.
	maxGap = time.Hour
)

// MaxSize is more bytes than the file of any profile has.
const MaxSize = (maxRuns + 3) * 64

// Write writes the profile's file.
func (p *Profile) Write(w io.Writer) error {
	out := bufio.NewWriter(w)
	fmt.Fprintf(out, "%s %d\nimage %d %d %s\n", magic, version, p.Image.Size, p.Image.Blocks, p.Image.Identity)
	for _, r := range p.Runs {
		fmt.Fprintln(out, r.First, r.Count, r.Gap.Microseconds())
	}
	fmt.Fprintln(out, "end", len(p.Runs))
	return out.Flush()
}

// Read reads a profile's file. The error wraps ErrFormat, ErrVersion or ErrDamaged if
// it is no good.
func Read(r io.Reader) (*Profile, error) {
	lines := bufio.NewScanner(io.LimitReader(r, MaxSize))
	lines.Buffer(make([]byte, maxLine), maxLine)
	next := func() []string {
		if !lines.Scan() {
			return nil
		}
		return strings.Split(lines.Text(), " ")
	}
	if err := checkVersion(next()); err != nil {
		return nil, errors.Join(err, readError(lines))
	}
	p := new(Profile)
	if err := p.Image.parse(next()); err != nil {
		return nil, err
	}
	left := p.Image.Blocks
	for number := 3; ; number++ {
		words := next()
		if len(words) == 2 && words[0] == "end" {
			if words[1] != strconv.Itoa(len(p.Runs)) || lines.Scan() {
				return nil, fmt.Errorf("%w: line %d", ErrDamaged, number)
			}
			return p, nil
		}
		if words == nil {
			if err := readError(lines); err != nil {
				return nil, err
			}
			return nil, fmt.Errorf("%w: cut off after line %d", ErrDamaged, number-1)
		}
		run, err := parseRun(words, p.Image.Blocks)
		if left -= run.Count; err != nil || left < 0 || len(p.Runs) == maxRuns {
			return nil, fmt.Errorf("%w: line %d", ErrDamaged, number)
		}
		p.Runs = append(p.Runs, run)
	}
}

// readError is why there are no more lines, if that is not the end of the file.
func readError(lines *bufio.Scanner) error {
	if err := lines.Err(); err != nil && !errors.Is(err, bufio.ErrTooLong) {
		return err
	}
	return nil
}

func checkVersion(words []string) error {
	n := len(words) - 1
	switch {
	case n < 1 || strings.Join(words[:n], " ") != magic:
		return ErrFormat
	case words[n] != strconv.Itoa(version):
		return fmt.Errorf("%w: %.20q, not %d", ErrVersion, words[n], version)
	}
	return nil
}

func (im *Image) parse(words []string) error {
	if len(words) != 4 || words[0] != "image" {
		return fmt.Errorf("%w: no image in line 2", ErrDamaged)
	}
	size, ok := number(words[1], 1<<62)
	blocks, okBlocks := number(words[2], 1<<62)
	if !ok || !okBlocks || blocks == 0 || words[3] == "" || len(words[3]) > maxIdentity || strings.ContainsFunc(words[3], notPrintable) {
		return fmt.Errorf("%w: line 2", ErrDamaged)
	}
	*im = Image{Size: size, Blocks: blocks, Identity: words[3]}
	return nil
}

func notPrintable(r rune) bool { return r <= ' ' || r > '~' }

func parseRun(words []string, blocks int64) (Run, error) {
	if len(words) != 3 {
		return Run{}, ErrDamaged
	}
	first, okFirst := number(words[0], blocks-1)
	count, okCount := number(words[1], blocks)
	gap, okGap := number(words[2], maxGap.Microseconds())
	if !okFirst || !okCount || !okGap || count == 0 || first > blocks-count {
		return Run{}, ErrDamaged
	}
	return Run{first, count, time.Duration(gap) * time.Microsecond}, nil
}

// number reads a decimal from 0 to most.
func number(s string, most int64) (n int64, ok bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= 0 && n <= most
}
