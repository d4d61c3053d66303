package cli

import (
	"errors"
	"strings"
	"testing"
)

// A warning reads like other messages.
func TestWarnings(t *testing.T) {
	var out strings.Builder
	Warnings(&out).Warn("what is fetched is not kept", "directory", "/d", "error", errors.New("it was removed"))
	Warnings(&out).With("source", "x").Warn("the cache is full")
	want := "cloopfs: what is fetched is not kept: it was removed (directory /d)\ncloopfs: the cache is full (source x)\n"
	if out.String() != want {
		t.Errorf("%q, want %q", out.String(), want)
	}
}
