package manifest

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// MaxSize is the number of bytes that a manifest, and a signature, has at most.
const MaxSize = 4 << 10

var (
	// ErrFormat says that something is not a manifest.
	ErrFormat = errors.New("not a manifest")
	// ErrVersion says that a manifest is of a version that is not known here.
	ErrVersion = errors.New("a manifest of another version")
)

// Facts is what a manifest says of an image beside its blocks. They are part of the root.
type Facts struct {
	Size      int64  // of the image in bytes
	Container string // how the blocks lie in the image: small letters, digits and dashes
	BlockSize int64  // bytes of a decoded block
	Blocks    int64
	Start     int64 // offset of the first stored block in the image
}

// Manifest says what an image is, and proves it by the root of a tree of hashes.
type Manifest struct {
	Name    string // of the image: 1 to 128 printable letters of ASCII
	Version int64  // of the image: from 1 on
	Facts
	Root Hash
	Date time.Time // of the image: a day, UTC
}

// Hash is a SHA-256.
type Hash [sha256.Size]byte

// String is the hash in hexadecimal.
func (h Hash) String() string { return hex.EncodeToString(h[:]) }

// ParseHash reads what String has written.
func ParseHash(s string) (h Hash, err error) {
	if len(s) != 2*len(h) || strings.Trim(s, "0123456789abcdef") != "" {
		return h, fmt.Errorf("not the %d small hexadecimal digits of a SHA-256", 2*len(h))
	}
	_, err = hex.Decode(h[:], []byte(s))
	return h, err
}

const (
	magic        = "cloopfs-manifest"
	version      = 1
	hashName     = "sha256"
	maxName      = 128
	maxContainer = 32
	dateLayout   = time.DateOnly
	// maxBlocks bounds what is counted with: 2^47 blocks of 64 KiB have 2^63 bytes.
	maxBlocks = 1 << 47
	// maxBlockSize is far more than any container has.
	maxBlockSize = 1 << 30
)

// lines are the lines of a manifest behind its first, in their order. Those from size to
// hash are the part of the root.
func (m *Manifest) lines() [][2]string {
	return [][2]string{
		{"name", m.Name},
		{"version", number(m.Version)},
		{"size", number(m.Size)},
		{"container", m.Container},
		{"block-size", number(m.BlockSize)},
		{"blocks", number(m.Blocks)},
		{"start", number(m.Start)},
		{"hash", hashName},
		{"root", m.Root.String()},
		{"date", m.Date.Format(dateLayout)},
	}
}

func number(n int64) string { return strconv.FormatInt(n, 10) }

// Text is the manifest as text, in the only form that Parse reads.
func (m *Manifest) Text() []byte {
	text := fmt.Appendf(nil, "%s %d\n", magic, version)
	for _, line := range m.lines() {
		text = fmt.Appendf(text, "%s: %s\n", line[0], line[1])
	}
	return text
}

// text is the facts as they stand in a manifest: what of it is part of the root.
func (f Facts) text() []byte {
	m := Manifest{Facts: f}
	var text []byte
	for _, line := range m.lines() {
		switch line[0] {
		case "size", "container", "block-size", "blocks", "start", "hash":
			text = fmt.Appendf(text, "%s: %s\n", line[0], line[1])
		}
	}
	return text
}

// Parse reads a manifest. The error wraps ErrFormat or ErrVersion, and says which line is
// wrong. There is one text for each manifest: what Text writes.
func Parse(text []byte) (*Manifest, error) {
	if len(text) > MaxSize {
		return nil, fmt.Errorf("%w: more than %d bytes", ErrFormat, MaxSize)
	}
	first, rest, _ := bytes.Cut(text, []byte("\n"))
	word, v, _ := strings.Cut(string(first), " ")
	switch {
	case word != magic:
		return nil, fmt.Errorf("%w: line 1: not %q", ErrFormat, fmt.Sprint(magic, " ", version))
	case v != strconv.Itoa(version):
		return nil, fmt.Errorf("%w: %.20q, not %d", ErrVersion, v, version)
	}
	m := new(Manifest)
	for i, line := range m.lines() {
		key := line[0]
		at, ok := bytes.IndexByte(rest, '\n'), false
		if at >= 0 {
			var value string
			if value, ok = strings.CutPrefix(string(rest[:at]), key+": "); ok {
				if err := m.set(key, value); err != nil {
					return nil, fmt.Errorf("%w: line %d: %s: %w", ErrFormat, i+2, key, err)
				}
			}
		}
		if !ok {
			return nil, fmt.Errorf("%w: line %d: not %q, a value and a newline", ErrFormat, i+2, key+": ")
		}
		rest = rest[at+1:]
	}
	if len(rest) > 0 {
		return nil, fmt.Errorf("%w: line %d: more than a manifest has", ErrFormat, len(m.lines())+2)
	}
	if m.Start > m.Size {
		return nil, fmt.Errorf("%w: the first block starts behind the end of the image", ErrFormat)
	}
	return m, nil
}

// Check says what of a manifest made here is wrong.
func (m *Manifest) Check() error {
	_, err := Parse(m.Text())
	return err
}

// set sets what the line of a key has as its value.
func (m *Manifest) set(key, value string) (err error) {
	switch key {
	case "name":
		m.Name, err = value, checkName(value)
	case "version":
		m.Version, err = parseNumber(value, 1, 1<<62)
	case "size":
		m.Size, err = parseNumber(value, 0, 1<<62)
	case "container":
		m.Container, err = value, checkContainer(value)
	case "block-size":
		m.BlockSize, err = parseNumber(value, 1, maxBlockSize)
	case "blocks":
		m.Blocks, err = parseNumber(value, 0, maxBlocks)
	case "start":
		m.Start, err = parseNumber(value, 0, 1<<62)
	case "hash":
		if value != hashName {
			err = fmt.Errorf("%.20q is not %s", value, hashName)
		}
	case "root":
		m.Root, err = ParseHash(value)
	case "date":
		m.Date, err = parseDate(value)
	}
	return err
}

// checkName says what is wrong with an image's name.
func checkName(s string) error {
	switch {
	case s == "":
		return errors.New("is empty")
	case len(s) > maxName:
		return fmt.Errorf("more than %d letters", maxName)
	case strings.Trim(s, " ") != s:
		return errors.New("begins or ends with a space")
	case strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r > '~' }):
		return errors.New("has letters other than the printable ones of ASCII")
	}
	return nil
}

func checkContainer(s string) error {
	if s == "" || len(s) > maxContainer || strings.Trim(s, "abcdefghijklmnopqrstuvwxyz0123456789-") != "" {
		return fmt.Errorf("not 1 to %d small letters, digits and dashes", maxContainer)
	}
	return nil
}

// parseNumber reads a decimal from least to most, as it is written here.
func parseNumber(s string, least, most int64) (int64, error) {
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || s != number(n) {
		return 0, fmt.Errorf("%.30q is no number as it has to be written", s)
	}
	if n < least || n > most {
		return 0, fmt.Errorf("%d is not between %d and %d", n, least, most)
	}
	return n, nil
}

func parseDate(s string) (time.Time, error) {
	t, err := time.Parse(dateLayout, s)
	if err != nil || t.Format(dateLayout) != s {
		return t, fmt.Errorf("%.20q is no day such as 2006-01-02", s)
	}
	return t, nil
}
