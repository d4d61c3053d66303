package main

import (
	"context"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/line"
)

// What is found here is neither fast nor slow: the rate is that of what is fetched
// now, and the time that which the rest of it takes.
func TestMeter(t *testing.T) {
	const gib, mib = int64(1 << 30), int64(1 << 20)
	begin := time.Now()
	after := func(seconds float64) time.Time { return begin.Add(time.Duration(seconds * float64(time.Second))) }
	m := meter{size: 100 * gib, missing: 40 * gib, begin: begin}
	for _, c := range []struct {
		at            float64
		done, fetched int64
		want          string
	}{
		{0.25, 0, 0, "0 B of 100 GiB"},
		{10, 50 * gib, 0, "50 GiB of 100 GiB"}, // found
		{11, 50*gib + 10*mib, 10 * mib, "50 GiB of 100 GiB, 10 MiB/s, 1h8m15s left"},
		{20, 50*gib + 100*mib, 100 * mib, "50.1 GiB of 100 GiB, 10 MiB/s, 1h8m6s left"},
		// The rest that was found here is compared, and the fetched goes on.
		{522, 65 * gib, 5 * gib, "65 GiB of 100 GiB, 10 MiB/s, 59m44s left"},
		{1034, 100*gib - 10*mib, 10 * gib, "100 GiB of 100 GiB, 10 MiB/s, 1s left"},
		{1034, 100 * gib, 41 * gib, "100 GiB of 100 GiB, 41 MiB/s, 0s left"}, // more than was missing
	} {
		m.look(after(c.at), c.done, c.fetched)
		if got := m.String(); got != c.want {
			t.Errorf("after %v s: %q, want %q", c.at, got, c.want)
		}
	}
}

func TestShortSource(t *testing.T) {
	for source, want := range map[string]string{
		"http://example.org/KNOPPIX":                  "KNOPPIX",
		"http://example.org/k.iso#live/fs.squashfs":   "fs.squashfs",
		"http://example.org/knoppix_7.7.1-2016-10-22": "knoppix_7.7.1-201...",
		"http://example.org/":                         "example.org",
	} {
		at, err := line.Parse(source)
		if err != nil {
			t.Fatal(err)
		}
		if got := shortOf(at); got != want {
			t.Errorf("%s: %q, want %q", source, got, want)
		}
	}
}

// Programs are told that it was interrupted, and not in Go's words.
func TestInterruptedReport(t *testing.T) {
	var out strings.Builder
	err := fmt.Errorf("prefetch: %w", context.Canceled)
	newProgress(&wanted{at: line.Location{URL: "http://example.org/x"}, err: err}, &out, io.Discard, true).end(err)
	if want := `"complete":false,"ended":true,"error":"interrupted"`; !strings.Contains(out.String(), want) {
		t.Errorf("%s, want %s in it", out.String(), want)
	}
}
