package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// What a SOURCE means, and what is shown of it: in messages and in the arguments
// of the background process, and in /proc/mounts.
func TestParseSource(t *testing.T) {
	t.Chdir(t.TempDir())
	for _, name := range []string{"k.iso", "odd#name", "dir#x/k.iso", "a%20b.iso"} {
		if err := os.MkdirAll(filepath.Dir(name), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(name, nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		arg               string
		url, path, inside string
		shown, mounted    string // mounted: as shown if it is empty
	}{
		{arg: "http://h/f", url: "http://h/f", shown: "http://h/f"},
		{arg: "http://h/k.iso#A/B", url: "http://h/k.iso", inside: "A/B", shown: "http://h/k.iso#A/B"},
		{arg: "http://h/k.iso#/A/B/", url: "http://h/k.iso", inside: "A/B", shown: "http://h/k.iso#/A/B/"},
		{arg: "http://h/k.iso#a%20b%23c%25", url: "http://h/k.iso", inside: "a b#c%", shown: "http://h/k.iso#a%20b%23c%25"},
		{arg: "http://h/k.iso#", url: "http://h/k.iso", shown: "http://h/k.iso"},
		{
			arg: "http://user:geheim@h/k.iso?token=geheim&x#A", url: "http://user:geheim@h/k.iso?token=geheim&x", inside: "A",
			shown: "http://h/k.iso?token#A", mounted: "http://h/k.iso#A",
		},
		{arg: "https://h/k.iso?geheim#a@b", url: "https://h/k.iso?geheim", inside: "a@b", shown: "https://h/k.iso#..."},
		{arg: "file:///d/k.iso#A", path: "/d/k.iso", inside: "A", shown: "/d/k.iso#A", mounted: "file:///d/k.iso#A"},
		{
			arg: "file://localhost/d/a%20b.iso#a%20b", path: "/d/a b.iso", inside: "a b",
			shown: "/d/a b.iso#a%20b", mounted: "file://localhost/d/a%20b.iso#a%20b",
		},
		{arg: "k.iso", path: "k.iso", shown: "k.iso"},
		{arg: "k.iso#A/B", path: "k.iso", inside: "A/B", shown: "k.iso#A/B"},
		{arg: "k.iso#a%20b", path: "k.iso", inside: "a b", shown: "k.iso#a%20b"},
		{arg: "k.iso#a#b", path: "k.iso", inside: "a#b", shown: "k.iso#a#b"},
		{arg: "odd#name", path: "odd#name", shown: "odd#name"},
		{arg: "odd#name#A", path: "odd#name", inside: "A", shown: "odd#name#A"},
		{arg: "dir#x/k.iso#A", path: "dir#x/k.iso", inside: "A", shown: "dir#x/k.iso#A"},
		{arg: "a%20b.iso#A", path: "a%20b.iso", inside: "A", shown: "a%20b.iso#A"},
		{arg: "none#A", path: "none#A", shown: "none#A"}, // nothing is there: it is said of the whole
		{arg: "dir#x#A", path: "dir#x#A", shown: "dir#x#A"},
	} {
		l, err := parseSource(c.arg)
		if err != nil {
			t.Errorf("%s: %v", c.arg, err)
			continue
		}
		if l.URL != c.url || l.Path != c.path || l.Inside != c.inside {
			t.Errorf("%s: URL %q, path %q, inside %q; want %q, %q, %q", c.arg, l.URL, l.Path, l.Inside, c.url, c.path, c.inside)
		}
		if c.mounted == "" {
			c.mounted = c.shown
		}
		if l.String() != c.shown || l.mounted() != c.mounted {
			t.Errorf("%s: shown as %q and %q, want %q and %q", c.arg, l.String(), l.mounted(), c.shown, c.mounted)
		}
		if strings.Contains(l.String()+l.mounted(), "geheim") {
			t.Errorf("%s: a secret is shown: %q, %q", c.arg, l.String(), l.mounted())
		}
	}
	for _, arg := range []string{"", "k.iso#%", "k.iso#%zz", "http://h/k.iso#%zz", "ftp://h/k.iso#A", "file://h/k.iso#A", "http:///k.iso#A"} {
		if l, err := parseSource(arg); exitCode(err) != exitUsage {
			t.Errorf("%q: %+v, %v; want a usage error", arg, l, err)
		}
	}
}

// The arguments of the background process name the file inside, and no secret.
func TestBackgroundArgsOfFileInside(t *testing.T) {
	l, err := parseSource("http://user:geheim@h/k.iso?geheim2=geheim#KNOPPIX/a%20b")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.Join(backgroundArgs(newMountCmd().Flags(), mountOptions{Source: l, Mountpoint: "/mnt"}), " ")
	if want := "cloopfs mount http://h/k.iso?geheim2#KNOPPIX/a%20b /mnt"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
}

// A SOURCE for another file in the same image can be typed as it is shown.
func TestSourceOfFileInside(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("k.iso", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, inside := range []string{"KNOPPIX/KNOPPIX", "a b", "a#b", "50%25", "ü", "a?b"} {
		for _, outer := range []location{{Path: "k.iso"}, {URL: "http://h/k.iso"}} {
			typed := outer.of(inside)
			if l, err := parseSource(typed); err != nil || l.Inside != inside || l.URL != outer.URL || l.Path != outer.Path {
				t.Errorf("%q in %v: %q means %+v, %v", inside, outer, typed, l, err)
			}
		}
	}
}
