// Package proc reads files of /proc, which is held open from its first use on: a process that
// has begun in a machine's initial file system has it when the root has been swapped for
// another, and /proc has moved there. It can't be unmounted meanwhile, but lazily.
package proc

import (
	"os"
	"sync"
)

var root = sync.OnceValues(func() (*os.Root, error) { return os.OpenRoot("/proc") })

// Open opens a file of /proc, such as "self/mountinfo", for reading.
func Open(name string) (*os.File, error) {
	r, err := root()
	if err != nil {
		return nil, err
	}
	return r.Open(name)
}

// ReadFile returns what is in a file of /proc.
func ReadFile(name string) ([]byte, error) {
	r, err := root()
	if err != nil {
		return nil, err
	}
	return r.ReadFile(name)
}
