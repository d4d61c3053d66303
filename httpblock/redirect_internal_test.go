package httpblock

import (
	"errors"
	"net/url"
	"testing"
)

func TestRedirectTarget(t *testing.T) {
	tests := []struct {
		at, location string
		want         string // empty: refused
	}{
		{"http://h/a/f", "http://g/b", "http://g/b"},
		{"http://h/a/f", "https://g/b", "https://g/b"},
		{"https://h/a/f", "https://g:8443/b", "https://g:8443/b"},
		{"http://h/a/f", "g", "http://h/a/g"},
		{"http://h/a/f", "../g", "http://h/g"},
		{"http://h/a/f?x=y", "/g?sig=1", "http://h/g?sig=1"},
		{"http://h/a/f?x=y", "?sig=1", "http://h/a/f?sig=1"},
		{"http://h/a/f", "//g/b", "http://g/b"},
		{"https://h/a/f", "//g/b", "https://g/b"},
		{"http://h/f", "HTTPS://g/b", "https://g/b"},
		{"https://h/f", "http://h/f", ""},
		{"https://h/f", "HTTP://h/f", ""},
		{"http://h/f", "ftp://h/f", ""},
		{"http://h/f", "file:///etc/passwd", ""},
		{"http://h/f", "data:,x", ""},
		{"http://h/f", "", ""},
		{"http://h/f", "http://h/%zz", ""},
		// Who we are is not a matter of where we are sent.
		{"http://u:p@h/f", "/g", "http://h/g"},
		{"http://u:p@h/f", "http://h/g", "http://h/g"},
		{"http://u:p@h/f", "http://g/f", "http://g/f"},
		{"http://u:p@h/f", "//g/f", "http://g/f"},
		{"http://h/f", "http://u:p@g/f#x", "http://g/f"},
		{"http://u:p@h/f", "http://h:81/f", "http://h:81/f"},
		{"http://u:p@h/f", "https://h/f", "https://h/f"},
	}
	for _, tt := range tests {
		at, err := url.Parse(tt.at)
		if err != nil {
			t.Fatal(err)
		}
		got, err := redirectTarget(at, tt.location)
		switch {
		case tt.want == "":
			if !errors.Is(err, ErrRedirect) {
				t.Errorf("from %s to %q: got %v, error %v, want %v", tt.at, tt.location, got, err, ErrRedirect)
			}
		case err != nil:
			t.Errorf("from %s to %q: got error %v", tt.at, tt.location, err)
		case got.String() != tt.want:
			t.Errorf("from %s to %q: got %s, want %s", tt.at, tt.location, got, tt.want)
		}
	}
}
