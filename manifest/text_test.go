package manifest_test

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/manifest"
)

const golden = `cloopfs-manifest 1
name: Debian Live
version: 12
size: 132774913
container: cloop-v2
block-size: 65536
blocks: 18750
start: 150144
hash: sha256
root: 000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f
date: 2026-11-23
`

func goldenManifest() *manifest.Manifest {
	m := &manifest.Manifest{
		Name: "Debian Live", Version: 12,
		Facts: manifest.Facts{Size: 132774913, Container: "cloop-v2", BlockSize: 65536, Blocks: 18750, Start: 150144},
		Date:  time.Date(2026, 11, 23, 0, 0, 0, 0, time.UTC),
	}
	for i := range m.Root {
		m.Root[i] = byte(i)
	}
	return m
}

func TestText(t *testing.T) {
	if diff := cmp.Diff(golden, string(goldenManifest().Text())); diff != "" {
		t.Errorf("Text (-want +got):\n%s", diff)
	}
	got, err := manifest.Parse([]byte(golden))
	if diff := cmp.Diff(goldenManifest(), got); diff != "" || err != nil {
		t.Errorf("Parse: %v (-want +got):\n%s", err, diff)
	}
}

// Each text but one is refused, and the error says where.
func TestParseRefuses(t *testing.T) {
	line := func(from, to string) string {
		if !strings.Contains(golden, from) {
			t.Fatalf("%q is not there", from)
		}
		return strings.Replace(golden, from, to, 1)
	}
	tests := []struct{ name, text, says string }{
		{"nothing", "", `line 1: not "cloopfs-manifest 1"`},
		{"something else", "hello\n", `line 1: not "cloopfs-manifest 1"`},
		{"another version", line("manifest 1", "manifest 2"), `a manifest of another version: "2", not 1`},
		{"too long", golden + strings.Repeat("x", manifest.MaxSize), "more than 4096 bytes"},
		{"no newline", strings.TrimSuffix(golden, "\n"), `line 11: not "date: "`},
		{"cut off", golden[:100], "line 6"},
		{"more", golden + "more: 1\n", "line 12: more than a manifest has"},
		{"an empty line", line("version", "\nversion"), "line 3: not"},
		{"a line twice", line("version: 12\n", "version: 12\nversion: 12\n"), "line 4: not"},
		{"another order", line("blocks: 18750\nstart: 150144\n", "start: 150144\nblocks: 18750\n"), "line 7: not"},
		{"an unknown line", line("size: ", "sise: "), "line 4: not"},
		{"CRLF", strings.ReplaceAll(golden, "\n", "\r\n"), "a manifest of another version"},
		{"no space", line("version: 12", "version:12"), "line 3: not"},
		{"two spaces", line("version: 12", "version:  12"), "line 3: version"},
		{"a plus", line("version: 12", "version: +12"), "line 3: version"},
		{"a zero in front", line("version: 12", "version: 012"), "line 3: version"},
		{"hexadecimal", line("version: 12", "version: 0x12"), "line 3: version"},
		{"version 0", line("version: 12", "version: 0"), "line 3: version: 0 is not between 1"},
		{"too large", line("version: 12", "version: 9223372036854775808"), "line 3: version"},
		{"a negative size", line("size: 1", "size: -1"), "line 4: size"},
		{"many blocks", line("blocks: 18750", "blocks: 140737488355329"), "line 7: blocks"},
		{"a start behind the end", line("start: 150144", "start: 132774914"), "starts behind the end"},
		{"no name", line("Debian Live", ""), "line 2: name: is empty"},
		{"a space at its end", line("Debian Live", "Debian Live "), "line 2: name: begins or ends"},
		{"a long name", line("Debian Live", strings.Repeat("x", 129)), "line 2: name: more than 128"},
		{"a control character", line("Debian Live", "Debian\x1bLive"), "line 2: name: has letters"},
		{"a letter of no language", line("Debian Live", "Debian\xffLive"), "line 2: name: has letters"},
		{"capitals", line("cloop-v2", "CLOOP"), "line 5: container"},
		{"another hash", line("sha256", "sha512"), `line 9: hash: "sha512" is not sha256`},
		{"a short root", line("1d1e1f", "1d1e"), "line 10: root"},
		{"a root in capitals", line("1d1e1f", "1D1e1f"), "line 10: root"},
		{"no such day", line("2026-11-23", "2026-02-30"), "line 11: date"},
		{"a time", line("2026-11-23", "2026-11-23T00:00:00Z"), "line 11: date"},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			_, err := manifest.Parse([]byte(test.text))
			if err == nil || !strings.Contains(err.Error(), test.says) {
				t.Errorf("error %v, want one that says %q", err, test.says)
			}
			if !errors.Is(err, manifest.ErrFormat) && !errors.Is(err, manifest.ErrVersion) {
				t.Errorf("error %v, want one that wraps ErrFormat or ErrVersion", err)
			}
		})
	}
}

// What is read is what is written, and nothing else.
func FuzzParse(f *testing.F) {
	f.Add([]byte(golden))
	f.Fuzz(func(t *testing.T, text []byte) {
		m, err := manifest.Parse(text)
		if err != nil {
			if !errors.Is(err, manifest.ErrFormat) && !errors.Is(err, manifest.ErrVersion) {
				t.Errorf("error %v, want one that wraps ErrFormat or ErrVersion", err)
			}
			return
		}
		if !bytes.Equal(m.Text(), text) {
			t.Errorf("read %q, writes %q", text, m.Text())
		}
		if manifest.HashesSize(m.Blocks) < 0 {
			t.Error("a negative size")
		}
	})
}
