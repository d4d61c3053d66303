//go:build race

package inflate_test

// raceEnabled: sync.Pool then throws things away on purpose.
const raceEnabled = true
