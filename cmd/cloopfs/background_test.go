package main

import (
	"testing"

	"github.com/google/go-cmp/cmp"
)

// What ps(1) shows: the flags that were given, no secrets, and the mountpoint as
// it is known to the system.
func TestBackgroundArgs(t *testing.T) {
	const source = "http://user:SECRET@h/f?token=SECRET"
	for _, c := range []struct {
		source string
		typed  []string
		want   []string
	}{
		{source, nil, []string{"cloopfs", "mount", "http://h/f?token", "/w/mnt"}},
		{"http://h/f", nil, []string{"cloopfs", "mount", "http://h/f", "/w/mnt"}},
		{"http://user:SECRET/x@h/f", nil, []string{"cloopfs", "mount", "SOURCE", "/w/mnt"}},
		{
			source,
			[]string{source, "mnt", "--memory", "1G", "-v", "--timeout=5"},
			[]string{"cloopfs", "mount", "--memory=1GiB", "--timeout=5s", "--verbose=true", "http://h/f?token", "/w/mnt"},
		},
	} {
		cmd := newMountCmd()
		if err := cmd.ParseFlags(c.typed); err != nil {
			t.Fatal(err)
		}
		got := backgroundArgs(cmd.Flags(), mountOptions{Source: location{URL: c.source}, Mountpoint: "/w/mnt"})
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("arguments of %q (-want +got):\n%s", c.typed, diff)
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
		if got := shown(tt.in); got != tt.want {
			t.Errorf("shown(%q): got %q, want %q", tt.in, got, tt.want)
		}
	}
}
