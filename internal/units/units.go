// Package units reads and writes sizes, rates and times as people do: they are values of
// flags.
package units

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// Size is a flag's value in bytes: "64MiB", "1.5G", "300KB", "4096".
type Size int64

// units in which sizes are typed: powers of 1024, those with a B alone of 1000.
var units = map[string]float64{
	"": 1, "b": 1,
	"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
	"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
}

// Set takes the value as it was typed.
func (v *Size) Set(s string) error {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit, ok := units[strings.ToLower(s[len(digits):])]
	n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if !ok || err != nil || !(n >= 0) || n*unit >= math.MaxInt64 {
		return fmt.Errorf("not a size such as 64MiB")
	}
	*v = Size(n * unit)
	return nil
}

// String is the value as it can be typed.
func (v *Size) String() string { return strings.ReplaceAll(FormatSize(int64(*v)), " ", "") }

// Type is what help calls the value.
func (v *Size) Type() string { return "SIZE" }

// Rate is a flag's value in bytes a second; 0 means none.
type Rate int64

// Set takes the value as it was typed.
func (v *Rate) Set(s string) error {
	s = strings.TrimSuffix(s, "/s")
	var size Size
	if err := size.Set(s); err != nil || size == 0 {
		return fmt.Errorf("not a rate such as 2MiB")
	}
	*v = Rate(size)
	return nil
}

// String is the value as it can be typed.
func (v *Rate) String() string {
	if *v == 0 {
		return ""
	}
	return (*Size)(v).String()
}

// Type is what help calls the value.
func (v *Rate) Type() string { return "RATE" }

// FormatSize writes n bytes in the largest IEC unit that fits.
func FormatSize(n int64) string {
	const names = "KMGTPE"
	if n < 1<<10 {
		return fmt.Sprintf("%d B", n)
	}
	f, i := float64(n)/1024, 0
	for f >= 1023.95 && i < len(names)-1 { // 1023.95 would be written 1024
		f, i = f/1024, i+1
	}
	s := strconv.FormatFloat(f, 'f', 1, 64)
	return strings.TrimSuffix(s, ".0") + " " + names[i:i+1] + "iB"
}

// Duration is a flag's value in time: "30s", "2m", or bare seconds.
type Duration time.Duration

// Set takes the value as it was typed.
func (v *Duration) Set(s string) error {
	d, err := time.ParseDuration(s)
	if seconds, ferr := strconv.ParseFloat(s, 64); ferr == nil {
		d, err = time.Duration(seconds*float64(time.Second)), nil
		if !(seconds >= 0 && seconds < 1e9) {
			d = -1
		}
	}
	if err != nil || d < 0 {
		return fmt.Errorf("not a duration such as 30s")
	}
	*v = Duration(d)
	return nil
}

// String is the value as it can be typed.
func (v *Duration) String() string { return time.Duration(*v).String() }

// Type is what help calls the value.
func (v *Duration) Type() string { return "DURATION" }

// ExactSize writes n bytes for people and for arithmetic.
func ExactSize(n int64) string {
	if n < 1<<10 {
		return FormatSize(n)
	}
	return fmt.Sprintf("%s (%d bytes)", FormatSize(n), n)
}
