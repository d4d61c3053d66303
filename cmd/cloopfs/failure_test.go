package main

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

func TestReport(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"plain", errors.New("no luck"), "cloopfs: no luck\n"},
		{"two lines", errors.New("no\nluck"), "cloopfs: no luck\n"},
		{"joined", errors.Join(errors.New("no"), errors.New("luck")), "cloopfs: no luck\n"},
		{"failure", &failure{code: 4, err: errors.New("no luck")}, "cloopfs: no luck\n"},
		{"hint", &failure{code: 4, err: errors.New("no luck"), hint: "try again"}, "cloopfs: no luck\ncloopfs: hint: try again\n"},
		{"wrapped hint", fmt.Errorf("now: %w", &failure{err: errors.New("no luck"), hint: "try again"}), "cloopfs: now: no luck\ncloopfs: hint: try again\n"},
	}
	for _, tt := range tests {
		var got strings.Builder
		report(&got, tt.err)
		if got.String() != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got.String(), tt.want)
		}
	}
}

func TestExitCode(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want int
	}{
		{"anything else", errors.New("getwd: no such file"), 1},
		{"usage", usage(errors.New("x")), 2},
		{"wrapped", fmt.Errorf("x: %w", &failure{code: 5, err: errors.New("y")}), 5},
	}
	for _, tt := range tests {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%s: got exit status %d, want %d", tt.name, got, tt.want)
		}
	}
}
