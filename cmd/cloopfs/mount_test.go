package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/cloopfs/cloopfs/internal/cli"
)

func TestUserAllowOther(t *testing.T) {
	tests := []struct {
		name, conf string
		want       bool
	}{
		{"empty", "", false},
		{"alone", "user_allow_other\n", true},
		{"no newline", "user_allow_other", true},
		{"spaces", "  user_allow_other \t\n", true},
		{"among others", "# comment\nmount_max = 1000\nuser_allow_other\n", true},
		{"Debian's default", "# Allow non-root users to specify the allow_other option\n#user_allow_other\n", false},
		{"another word", "user_allow_others\n", false},
	}
	for _, tt := range tests {
		file := filepath.Join(t.TempDir(), "fuse.conf")
		if err := os.WriteFile(file, []byte(tt.conf), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := userAllowOther(file); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
	if userAllowOther(filepath.Join(t.TempDir(), "missing")) {
		t.Error("no file: got true, want false")
	}
}

func TestModes(t *testing.T) {
	tests := []struct {
		name       string
		allowOther bool
		mode       string
		want       uint32 // 0: an error
	}{
		{"default", false, "", 0o400},
		{"with others", true, "", 0o444},
		{"given", false, "0444", 0o444},
		{"given with others", true, "440", 0o440},
		{"without zero", false, "644", 0o644},
		{"all", false, "777", 0o777},
		{"set-uid", false, "4755", 0},
		{"none", false, "0", 0},
		{"not octal", false, "888", 0},
		{"symbolic", false, "u=r", 0},
		{"negative", false, "-1", 0},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := mountOptions{AllowOther: tt.allowOther, Mountpoint: "mnt"}
			o.Line.Connections, o.Line.Format, o.Log.Level = 1, "auto", "info"
			err := o.complete(t.Context(), "http://h/f", tt.mode)
			switch {
			case tt.allowOther && os.Geteuid() != 0 && !userAllowOther("/etc/fuse.conf"):
				if cli.ExitCode(err) != cli.ExitMount {
					t.Errorf("got error %v, want that this machine does not allow it", err)
				}
			case tt.want == 0:
				if cli.ExitCode(err) != cli.ExitUsage {
					t.Errorf("got mode %#o, error %v, want a usage error", o.Mode, err)
				}
			case err != nil || o.Mode != tt.want:
				t.Errorf("got mode %#o, error %v, want %#o", o.Mode, err, tt.want)
			case !filepath.IsAbs(o.Mountpoint):
				t.Errorf("got mountpoint %q, want it absolute", o.Mountpoint)
			}
		})
	}
}
