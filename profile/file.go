package profile

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	// magic is the first line of a profile, without its version.
	magic   = "cloopfs profile"
	version = 1
	// maxRuns bounds the memory for a profile, to 6 MiB, and its file.
	maxRuns = 1 << 18
	// maxLine is longer than any line that makes sense.
	maxLine     = 256
	maxIdentity = 64
	// maxGap bounds a gap: an hour.
	maxGap = time.Hour
)

// MaxSize is more bytes than the file of any profile has.
const MaxSize = (maxRuns + 4) * 64

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
// it is no good. What is read lies within the image, and has no block twice.
func Read(r io.Reader) (*Profile, error) {
	in := &lines{in: bufio.NewReaderSize(io.LimitReader(r, MaxSize), maxLine)}
	p := new(Profile)
	if err := in.version(); err != nil {
		return nil, err
	}
	if err := in.image(&p.Image); err != nil {
		return nil, err
	}
	for {
		words, err := in.next()
		if err != nil {
			return nil, err
		}
		if words[0] == "end" {
			if err := in.end(words, p); err != nil {
				return nil, err
			}
			return p, nil
		}
		run, ok := parseRun(words, p.Image.Blocks)
		if !ok {
			return nil, in.damaged("no run of blocks of the image")
		}
		if len(p.Runs) == maxRuns {
			return nil, in.damaged("too many runs")
		}
		p.Runs = append(p.Runs, run)
	}
}

// lines reads the lines of a profile.
type lines struct {
	in     *bufio.Reader
	number int // of the last line
}

// damaged says what is wrong with the last line.
func (l *lines) damaged(what string) error {
	return fmt.Errorf("%w: line %d: %s", ErrDamaged, l.number, what)
}

// next is the words of the next line, at least one.
func (l *lines) next() ([]string, error) {
	l.number++
	line, err := l.in.ReadSlice('\n')
	switch {
	case err == nil:
		return strings.Split(string(line[:len(line)-1]), " "), nil
	case errors.Is(err, bufio.ErrBufferFull):
		return nil, l.damaged("too long")
	case errors.Is(err, io.EOF):
		return nil, l.damaged("cut off")
	}
	return nil, err
}

func (l *lines) version() error {
	words, err := l.next()
	n := len(words) - 1
	switch {
	case err != nil && !errors.Is(err, ErrDamaged):
		return err
	case err != nil, strings.Join(words[:n], " ") != magic:
		return ErrFormat
	case words[n] != strconv.Itoa(version):
		return fmt.Errorf("%w: %.20q, not %d", ErrVersion, words[n], version)
	}
	return nil
}

func (l *lines) image(im *Image) error {
	words, err := l.next()
	if err != nil {
		return err
	}
	if len(words) != 4 || words[0] != "image" {
		return l.damaged("no image")
	}
	size, okSize := number(words[1], 0, 1<<62)
	blocks, okBlocks := number(words[2], 1, 1<<62)
	id := words[3]
	if !okSize || !okBlocks || id == "" || len(id) > maxIdentity || strings.ContainsFunc(id, notPrintable) {
		return l.damaged("no image")
	}
	*im = Image{Size: size, Blocks: blocks, Identity: id}
	return nil
}

// end checks the last line, and what is read as a whole.
func (l *lines) end(words []string, p *Profile) error {
	if len(words) != 2 || words[1] != strconv.Itoa(len(p.Runs)) {
		return l.damaged(fmt.Sprintf("not the end of %d runs", len(p.Runs)))
	}
	switch _, err := l.in.ReadByte(); {
	case err == nil:
		return l.damaged("more behind it")
	case !errors.Is(err, io.EOF):
		return err
	}
	sorted := slices.SortedFunc(slices.Values(p.Runs), func(a, b Run) int { return cmp.Compare(a.First, b.First) })
	for i := 1; i < len(sorted); i++ {
		if sorted[i].First < sorted[i-1].end() {
			return fmt.Errorf("%w: block %d is in it twice", ErrDamaged, sorted[i].First)
		}
	}
	return nil
}

func notPrintable(r rune) bool { return r <= ' ' || r > '~' }

func parseRun(words []string, blocks int64) (r Run, ok bool) {
	if len(words) != 3 {
		return Run{}, false
	}
	first, okFirst := number(words[0], 0, blocks-1)
	count, okCount := number(words[1], 1, blocks-first)
	gap, okGap := number(words[2], 0, maxGap.Microseconds())
	return Run{first, count, time.Duration(gap) * time.Microsecond}, okFirst && okCount && okGap
}

// number reads a decimal from least to most, as Write writes it.
func number(s string, least, most int64) (n int64, ok bool) {
	n, err := strconv.ParseInt(s, 10, 64)
	return n, err == nil && n >= least && n <= most && s == strconv.FormatInt(n, 10)
}
