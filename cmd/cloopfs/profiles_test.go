package main

import (
	"log/slog"
	"testing"

	"github.com/cloopfs/cloopfs/internal/line"
)

// What ps(1) shows of --profile has no secrets.
func TestProfileValue(t *testing.T) {
	var v profileValue
	for given, want := range map[string]string{
		"auto": "auto", "./x?y": "./x?y", "https://user:geheim1@h/x.profile?token=geheim2": "https://h/x.profile?token",
	} {
		if err := v.Set(given); err != nil || v.String() != want {
			t.Errorf("%s is shown as %q, %v; want %q", given, v.String(), err, want)
		}
	}
}

// Without a profile nothing is asked for one, nor where it is a file.
func TestNoRemoteProfile(t *testing.T) {
	for _, given := range []profileValue{profileNone, "", "./x.profile"} {
		o := profileOptions{Profile: given}
		o.replayRemote(t.Context(), nil, line.Options{}, slog.New(slog.DiscardHandler)) // of no line
	}
}
