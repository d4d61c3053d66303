package main

import (
	"strings"
	"testing"

	"github.com/cloopfs/cloopfs/internal/cli"
)

func TestFromMount8(t *testing.T) {
	tests := []struct {
		argv string
		want bool
	}{
		{"", false},
		{"mount.cloopfs", true},
		{"/sbin/mount.cloopfs http://h/f /mnt", true},
		{"mount.cloopfs http://h/f /mnt -o rw", true},
		{"/usr/sbin/umount.cloopfs /mnt", false},
		{"mount.cloopfs2 http://h/f /mnt", false},
		{"cloopfs", false},
		// mount.fuse
		{"cloopfs http://h/f /mnt -o rw,dev,suid", true},
		{"/usr/local/bin/cloopfs /images/f /mnt -o rw", true},
		{"cloopfs http://h/f /mnt", false},
		{"cloopfs http://h/f /mnt -o", false},
		{"cloopfs http://h/f /mnt -o rw -v", false},
		{"cloopfs http://h/f /mnt -f rw", false},
		{"cloopfs http://h/f -o rw /mnt", false},
		{"cloopfs -f http://h/f -o rw", false},
		{"cloopfs --a/b /mnt -o rw", false},
		{"cloopfs http://h/f -f -o rw", false},
		// commands, right and wrong
		{"cloopfs mount http://h/f -o rw", false},
		{"cloopfs mount http://h/f /mnt -o rw", false},
		{"cloopfs mont http://h/f -o rw", false},
		{"cloopfs extract image -o rw", false},
		{"cloopfs verfy image -o json", false},
	}
	for _, tt := range tests {
		if got := fromMount8(strings.Fields(tt.argv)); got != tt.want {
			t.Errorf("%q: got %v, want %v", tt.argv, got, tt.want)
		}
	}
}

func TestMount8Status(t *testing.T) {
	tests := []struct{ code, want int }{
		{cli.ExitOK, 0},
		{cli.ExitUsage, 1},
		{cli.ExitFailure, 32},
		{cli.ExitImage, 32},
		{cli.ExitSource, 32},
		{cli.ExitMount, 32},
		{cli.ExitInterrupted, 32},
	}
	for _, tt := range tests {
		if got := mount8Status(tt.code); got != tt.want {
			t.Errorf("exit status %d: got %d, want %d", tt.code, got, tt.want)
		}
	}
}
