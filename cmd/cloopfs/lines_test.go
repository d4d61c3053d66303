package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
)

// Names come from images, and mounts are of any user: no part of them may look
// like a line of ours, or steer the terminal.
func TestReportsAreLines(t *testing.T) {
	const evil = "a\nsource  faked\x1b[31m\r"
	now := time.Now()
	var out strings.Builder
	in := &imageInfo{Source: evil, Images: []insideInfo{{Path: evil, Source: evil, Content: evil}}}
	if err := in.print(&out); err != nil {
		t.Fatal(err)
	}
	r := mountReport{
		Mountpoint: evil, Source: evil, Reads: readReport{LastError: evil, LastErrorAt: &now},
		Servers: []serverReport{{URL: evil, LastError: evil, LastErrorAt: &now}},
		Causes:  []causeReport{{Cause: evil}},
	}
	if err := printReports(&out, []mountReport{r}, true); err != nil {
		t.Fatal(err)
	}
	cli.Report(&out, &cli.Error{Err: errors.New(evil), Hint: evil})
	announce(&out, mountOptions{Mountpoint: evil, Describe: true}, readiness{Disk: line.Contents{Size: 1}, Inside: evil})
	for line := range strings.Lines(out.String()) {
		if strings.HasPrefix(line, "source  faked") || strings.ContainsAny(strings.TrimSuffix(line, "\n"), "\x1b\r") {
			t.Errorf("printed the line %q", line)
		}
	}
}
