package units

import (
	"testing"
	"time"
)

func TestSize(t *testing.T) {
	const none = -1 // an error
	tests := []struct {
		in   string
		want Size
	}{
		{"0", 0},
		{"1", 1},
		{"4096", 4096},
		{"4096B", 4096},
		{"1k", 1 << 10},
		{"1K", 1 << 10},
		{"1KiB", 1 << 10},
		{"1kib", 1 << 10},
		{"1KB", 1000},
		{"64M", 64 << 20},
		{"64MiB", 64 << 20},
		{"64MB", 64e6},
		{"64 MiB", 64 << 20},
		{" 64MiB", 64 << 20},
		{"1.5G", 3 << 29},
		{"0.5kb", 500},
		{"10GiB", 10 << 30},
		{"10GB", 10e9},
		{"2T", 2 << 40},
		{"2TiB", 2 << 40},
		{"2TB", 2e12},
		{"8388607TiB", 8388607 << 40},
		{"", none},
		{" ", none},
		{"MiB", none},
		{"x", none},
		{"1X", none},
		{"1KX", none},
		{"1iB", none},
		{"1MiBB", none},
		{"1M2", none},
		{"1,5G", none},
		{"-1", none},
		{"-1M", none},
		{"NaN", none},
		{"Inf", none},
		{"+Inf", none},
		{"8388608TiB", none}, // 2^63
		{"9223372036854775808", none},
		{"1e400", none},
	}
	for _, tt := range tests {
		got := Size(42)
		err := got.Set(tt.in)
		switch {
		case tt.want == none:
			if err == nil || got != 42 {
				t.Errorf("Set(%q): got %d, error %v, want an error and no change", tt.in, got, err)
			}
		case err != nil || got != tt.want:
			t.Errorf("Set(%q): got %d, error %v, want %d", tt.in, got, err, tt.want)
		}
	}
}

// A flag's default, as the help shows it, can be typed.
func TestSizeString(t *testing.T) {
	tests := []struct {
		in   Size
		want string
	}{
		{0, "0B"},
		{1000, "1000B"},
		{1 << 10, "1KiB"},
		{64 << 20, "64MiB"},
		{3 << 29, "1.5GiB"},
		{10 << 30, "10GiB"},
	}
	for _, tt := range tests {
		if got := tt.in.String(); got != tt.want {
			t.Errorf("String of %d: got %q, want %q", tt.in, got, tt.want)
		}
		var again Size
		if err := again.Set(tt.in.String()); err != nil || again != tt.in {
			t.Errorf("Set(%q): got %d, error %v, want %d", tt.in.String(), again, err, tt.in)
		}
	}
}

func TestFormatSize(t *testing.T) {
	tests := []struct {
		in   int64
		want string
	}{
		{0, "0 B"},
		{1, "1 B"},
		{1023, "1023 B"},
		{1024, "1 KiB"},
		{1025, "1 KiB"},
		{1536, "1.5 KiB"},
		{10 << 10, "10 KiB"},
		{1 << 20, "1 MiB"},
		{2 << 30, "2 GiB"},
		{700<<20 + 300<<10, "700.3 MiB"},
		{1 << 40, "1 TiB"},
		{1 << 50, "1 PiB"},
		{1 << 60, "1 EiB"},
		{1<<63 - 1, "8 EiB"},
	}
	for _, tt := range tests {
		if got := FormatSize(tt.in); got != tt.want {
			t.Errorf("FormatSize(%d): got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestDuration(t *testing.T) {
	const none = Duration(-1) // an error
	tests := []struct {
		in   string
		want time.Duration
	}{
		{"0", 0},
		{"30", 30 * time.Second},
		{"30s", 30 * time.Second},
		{"2m", 2 * time.Minute},
		{"1m30s", 90 * time.Second},
		{"1.5", 1500 * time.Millisecond},
		{"0.5s", 500 * time.Millisecond},
		{"200ms", 200 * time.Millisecond},
		{"1h", time.Hour},
		{"999999999", 999999999 * time.Second},
		{"", -1},
		{"x", -1},
		{"30 s", -1},
		{"30x", -1},
		{"1d", -1},
		{"-1", -1},
		{"-1s", -1},
		{"-0.001", -1},
		{"1e9", -1},
		{"1e400", -1},
		{"NaN", -1},
		{"Inf", -1},
		{"-Inf", -1},
		{"9999999h", -1},
	}
	for _, tt := range tests {
		got := Duration(42)
		err := got.Set(tt.in)
		switch {
		case Duration(tt.want) == none:
			if err == nil || got != 42 {
				t.Errorf("Set(%q): got %v, error %v, want an error and no change", tt.in, time.Duration(got), err)
			}
		case err != nil || got != Duration(tt.want):
			t.Errorf("Set(%q): got %v, error %v, want %v", tt.in, time.Duration(got), err, tt.want)
		}
	}
}
