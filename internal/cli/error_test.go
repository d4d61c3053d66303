package cli

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
		{"failure", &Error{Code: 4, Err: errors.New("no luck")}, "cloopfs: no luck\n"},
		{"hint", &Error{Code: 4, Err: errors.New("no luck"), Hint: "try again"}, "cloopfs: no luck\ncloopfs: hint: try again\n"},
		{"wrapped hint", fmt.Errorf("now: %w", &Error{Err: errors.New("no luck"), Hint: "try again"}), "cloopfs: now: no luck\ncloopfs: hint: try again\n"},
	}
	for _, tt := range tests {
		var got strings.Builder
		Report(&got, tt.err)
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
		{"usage", Usage(errors.New("x")), 2},
		{"wrapped", fmt.Errorf("x: %w", &Error{Code: 5, Err: errors.New("y")}), 5},
	}
	for _, tt := range tests {
		if got := ExitCode(tt.err); got != tt.want {
			t.Errorf("%s: got exit status %d, want %d", tt.name, got, tt.want)
		}
	}
}
