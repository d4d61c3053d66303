package line

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/cloopfs/cloopfs/internal/cli"
)

// What a SOURCE means, and what is shown of it: in messages and in the arguments
// of the background process, and in /proc/mounts.
func TestParse(t *testing.T) {
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
		l, err := Parse(c.arg)
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
		if l.String() != c.shown || l.Mounted() != c.mounted {
			t.Errorf("%s: shown as %q and %q, want %q and %q", c.arg, l.String(), l.Mounted(), c.shown, c.mounted)
		}
		if strings.Contains(l.String()+l.Mounted(), "geheim") {
			t.Errorf("%s: a secret is shown: %q, %q", c.arg, l.String(), l.Mounted())
		}
	}
	for _, arg := range []string{"", "k.iso#%", "k.iso#%zz", "http://h/k.iso#%zz", "ftp://h/k.iso#A", "file://h/k.iso#A", "http:///k.iso#A"} {
		if l, err := Parse(arg); cli.ExitCode(err) != cli.ExitUsage {
			t.Errorf("%q: %+v, %v; want a usage error", arg, l, err)
		}
	}
}

// A SOURCE for another file in the same image can be typed as it is shown.
func TestForInside(t *testing.T) {
	t.Chdir(t.TempDir())
	if err := os.WriteFile("k.iso", nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, inside := range []string{"KNOPPIX/KNOPPIX", "a b", "a#b", "50%25", "ü", "a?b"} {
		for _, outer := range []Location{{Path: "k.iso"}, {URL: "http://h/k.iso"}} {
			typed := outer.ForInside(inside)
			if l, err := Parse(typed); err != nil || l.Inside != inside || l.URL != outer.URL || l.Path != outer.Path {
				t.Errorf("%q in %v: %q means %+v, %v", inside, outer, typed, l, err)
			}
		}
	}
}

func TestShown(t *testing.T) {
	tests := []struct{ in, want string }{
		{"http://h/f", "http://h/f"},
		{"https://user:SECRET@h:1/f?a=SECRET&b=SECRET#SECRET", "https://h:1/f?a&b"},
		{"image.cloop", "image.cloop"},
		{"/a/b", "/a/b"},
		{"http://user:SECRET/x@h/f", "SOURCE"},
		{"http://user:%SECRET@h/f", "SOURCE"},
		{"", ""},
	}
	for _, tt := range tests {
		if got := Shown(tt.in); got != tt.want {
			t.Errorf("Shown(%q): got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestBesideURL(t *testing.T) {
	tests := []struct{ url, inside, want string }{
		{"http://h/KNOPPIX", "", "http://h/KNOPPIX.profile"},
		{"http://h/a%20b%2Fc", "", "http://h/a%20b%2Fc.profile"},
		{"http://h/k.iso", "KNOPPIX/KNOPPIX", "http://h/k.iso.KNOPPIX.KNOPPIX.profile"},
		{"http://h/k.iso", "a b/50%", "http://h/k.iso.a%20b.50%25.profile"},
		{"https://u:p@h:8443/x/y", "", "https://u:p@h:8443/x/y.profile"},
		{"http://h/", "", "http://h/.profile"},
		{"http://h/x?sig=1", "", ""},
		{"http://h/x?", "", ""},
		{"", "", ""},
	}
	for _, test := range tests {
		if got := besideURL(Location{URL: test.url, Inside: test.inside}, ".profile"); got != test.want {
			t.Errorf("%s#%s: got %q, want %q", test.url, test.inside, got, test.want)
		}
	}
}
