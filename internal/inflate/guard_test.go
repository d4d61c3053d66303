package inflate_test

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// source and destination are surrounded by pages that nobody may touch: who does dies.
var source, destination = guarded(4 << 20), guarded(4 << 20)

// guards are ways to have n bytes of such a piece of memory: the first ones, and the last.
var guards = []func(p []byte, n int) []byte{
	func(p []byte, n int) []byte { return p[:n:n] },
	func(p []byte, n int) []byte { return p[len(p)-n:] },
}

func guarded(size int) []byte {
	page := os.Getpagesize()
	p, err := unix.Mmap(-1, 0, size+2*page, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON)
	if err == nil {
		err = errors.Join(unix.Mprotect(p[:page], unix.PROT_NONE), unix.Mprotect(p[page+size:], unix.PROT_NONE))
	}
	if err != nil {
		panic(fmt.Sprintf("guard pages: %v", err))
	}
	return p[page : page+size : page+size]
}
