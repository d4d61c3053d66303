package main

import (
	"errors"
	"strings"
	"testing"
	"time"
)

// Names come from images, and mounts are of any user: no part of them may look
// like a line of ours, or steer the terminal.
func TestReportsAreLines(t *testing.T) {
	const evil = "a\nsource  faked\x1b[31m\r"
	now := time.Now()
	var out strings.Builder
	in := &imageInfo{Source: evil, Images: []insideInfo{{Path: evil, Source: evil, Content: evil}}}
	if err := in.print(&out); err != nil {
		t.Fatal(err)
	}
	r := mountReport{
		Mountpoint: evil, Source: evil, Reads: readReport{LastError: evil, LastErrorAt: &now},
		Servers: []serverReport{{URL: evil, LastError: evil, LastErrorAt: &now}},
		Causes:  []causeReport{{Cause: evil}},
	}
	if err := printReports(&out, []mountReport{r}, true); err != nil {
		t.Fatal(err)
	}
	report(&out, &failure{err: errors.New(evil), hint: evil})
	announce(&out, mountOptions{Mountpoint: evil, Describe: true}, readiness{Disk: contents{Size: 1}, Inside: evil})
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "source  faked") || strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\x1b\r") {
			t.Errorf("printed the line %q", line)
		}
	}
}

func TestQuote(t *testing.T) {
	for word, want := range map[string]string{
		"":                  "''",
		"/media/image":      "/media/image",
		"k.iso#A":           "'k.iso#A'",
		"/media/my disk":    "'/media/my disk'",
		"it's":              `'it'\''s'`,
		"http://h/f?a&b":    "'http://h/f?a&b'",
		"$(rm)":             "'$(rm)'",
		"~/x":               "'~/x'",
		"http://[::1]:80/f": "'http://[::1]:80/f'",
	} {
		if got := quote(word); got != want {
			t.Errorf("quote(%q) = %s, want %s", word, got, want)
		}
	}
}

// A warning reads like other messages.
func TestWarnings(t *testing.T) {
	var out strings.Builder
	warnings(&out).Warn("what is fetched is not kept", "directory", "/d", "error", errors.New("it was removed"))
	warnings(&out).With("source", "x").Warn("the cache is full")
	want := "cloopfs: what is fetched is not kept: it was removed (directory /d)\ncloopfs: the cache is full (source x)\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
