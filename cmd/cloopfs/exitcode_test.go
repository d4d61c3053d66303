package main

import (
	"errors"
	"os"
	"testing"

	"github.com/cloopfs/cloopfs/internal/cli"
)

func TestExitCodes(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want int
	}{
		{"output", outputFailure(os.ErrPermission), 1},
		{"mount", mountFailure(errors.New("x")), 5},
	}
	for _, tt := range tests {
		if got := cli.ExitCode(tt.err); got != tt.want {
			t.Errorf("%s: got exit status %d, want %d", tt.name, got, tt.want)
		}
	}
	if err := outputFailure(nil); err != nil {
		t.Errorf("outputFailure(nil): got %v, want nil", err)
	}
}
