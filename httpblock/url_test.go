package httpblock_test

import (
	"net/url"
	"strings"
	"testing"

	"github.com/cloopfs/cloopfs/httpblock"
)

func TestRedact(t *testing.T) {
	tests := []struct{ in, want string }{
		{"http://h/f", "http://h/f"},
		{"https://h:8443/a/b.cloop", "https://h:8443/a/b.cloop"},
		{"http://[::1]:80/f", "http://[::1]:80/f"},
		{"http://h", "http://h"},
		{"http://h/a%2Fb%20c", "http://h/a%2Fb%20c"},
		{"http://SECRET@h/f", "http://h/f"},
		{"http://SECRET:SECRET@h/f", "http://h/f"},
		{"http://SECRET:SEC%2FRET@h:1/f", "http://h:1/f"},
		{"http://:SECRET@h/f", "http://h/f"},
		{"http://h/f#SECRET", "http://h/f"},
		{"http://h/f?", "http://h/f"},
		{"http://h/f?a=SECRET", "http://h/f?a"},
		{"http://h/f?a=SECRET&b=SECRET", "http://h/f?a&b"},
		{"http://h/f?b=SECRET&a=SECRET&b=SECRET", "http://h/f?b&a"},
		{"http://h/f?a=SECRET=SECRET", "http://h/f?a"},
		{"http://h/f?a=SECRET;b=SECRET", "http://h/f?a"},
		{"http://h/f?a=SECRET?b=SECRET", "http://h/f?a"},
		{"http://h/f?=SECRET&a=SECRET&&", "http://h/f?a"},
		{"http://h/f?a=&flag&b=SECRET", "http://h/f?a&b"},
		{"http://h/f?X-Amz-Signature=SECRET#SECRET?x=SECRET", "http://h/f?X-Amz-Signature"},
		{"http:SECRET", "http:"},
	}
	for _, tt := range tests {
		u, err := url.Parse(tt.in)
		if err != nil {
			t.Fatal(err)
		}
		if got := httpblock.Redact(u); got != tt.want {
			t.Errorf("Redact(%q): got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestOpenRefusesOtherURLs(t *testing.T) {
	for _, in := range []string{
		"", "/a/b", "h/f", "ftp://SECRET:SECRET@h/f?a=SECRET", "file:///etc/passwd", "http:///f", "http://:80/f", "https:f", "//h/f",
		"http://h/%zz", "http://[::1/f", "http://h:port/f", "\x00",
	} {
		s, err := httpblock.Open(t.Context(), in, httpblock.Options{})
		if err == nil {
			s.Close()
			t.Errorf("Open(%q): got no error", in)
		} else if strings.Contains(err.Error(), "SECRET") {
			t.Errorf("Open(%q): got error %q, which shows a secret", in, err)
		}
	}
}
