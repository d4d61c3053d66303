//go:build integration

package test

import (
	"os"
	"strconv"
	"testing"
	"time"
)

// envNumber is the number in an environment variable, or other if there is none.
func envNumber(t *testing.T, name string, other int) int {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return other
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("%s is %q, want a number", name, text)
	}
	return n
}

// envTime is the duration in an environment variable, or other if there is none.
func envTime(t *testing.T, name string, other time.Duration) time.Duration {
	t.Helper()
	text := os.Getenv(name)
	if text == "" {
		return other
	}
	d, err := time.ParseDuration(text)
	if err != nil || d <= 0 {
		t.Fatalf("%s is %q, want a duration", name, text)
	}
	return d
}
