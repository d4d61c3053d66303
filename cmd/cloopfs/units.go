package main

import (
	"fmt"
	"math"
	"strconv"
	"strings"
	"time"
)

// sizeValue is a flag's value in bytes: "64MiB", "1.5G", "300KB", "4096".
type sizeValue int64

// units in which sizes are typed: powers of 1024, those with a B alone of 1000.
var units = map[string]float64{
	"": 1, "b": 1,
	"k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40,
	"kib": 1 << 10, "mib": 1 << 20, "gib": 1 << 30, "tib": 1 << 40,
	"kb": 1e3, "mb": 1e6, "gb": 1e9, "tb": 1e12,
}

func (v *sizeValue) Set(s string) error {
	digits := strings.TrimRight(s, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ")
	unit, ok := units[strings.ToLower(s[len(digits):])]
	n, err := strconv.ParseFloat(strings.TrimSpace(digits), 64)
	if !ok || err != nil || !(n >= 0) || n*unit >= math.MaxInt64 {
		return fmt.Errorf("not a size such as 64MiB")
	}
	*v = sizeValue(n * unit)
	return nil
}

func (v *sizeValue) String() string { return strings.ReplaceAll(formatSize(int64(*v)), " ", "") }
func (v *sizeValue) Type() string   { return "SIZE" }

// rateValue is a flag's value in bytes a second; 0 means none.
type rateValue int64

func (v *rateValue) Set(s string) error {
	s = strings.TrimSuffix(s, "/s")
	var size sizeValue
	if err := size.Set(s); err != nil || size == 0 {
		return fmt.Errorf("not a rate such as 2MiB")
	}
	*v = rateValue(size)
	return nil
}

func (v *rateValue) String() string {
	if *v == 0 {
		return ""
	}
	return (*sizeValue)(v).String()
}

func (v *rateValue) Type() string { return "RATE" }

// formatSize writes n bytes in the largest IEC unit that fits.
func formatSize(n int64) string {
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

// durationValue is a flag's value in time: "30s", "2m", or bare seconds.
type durationValue time.Duration

func (v *durationValue) Set(s string) error {
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
	*v = durationValue(d)
	return nil
}

func (v *durationValue) String() string { return time.Duration(*v).String() }
func (v *durationValue) Type() string   { return "DURATION" }

// exactSize writes n bytes for people and for arithmetic.
func exactSize(n int64) string {
	if n < 1<<10 {
		return formatSize(n)
	}
	return fmt.Sprintf("%s (%d bytes)", formatSize(n), n)
}
