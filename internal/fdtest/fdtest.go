// Package fdtest is for tests of what becomes of a process's open files: whether all
// are closed, and what happens when there are no more.
package fdtest

import (
	"errors"
	"os"
	"runtime/debug"
	"slices"
	"strconv"
	"syscall"
	"testing"
)

// NoLeak calls f, and fails the test if more files are open afterwards. Nothing else
// may open files meanwhile.
func NoLeak(t testing.TB, f func()) {
	t.Helper()
	defer debug.SetGCPercent(debug.SetGCPercent(-1)) // it closes what was forgotten
	before := len(open(t))
	f()
	if after := len(open(t)); after > before {
		t.Errorf("%d files are open, there were %d", after, before)
	}
}

// Scarce calls f with no file that may be opened, then with one, and so on, until f
// returns nil. Until then its error must wrap EMFILE, and no file of its may be left
// open. It returns how often f has failed.
func Scarce(t testing.TB, f func() error) (failed int) {
	t.Helper()
	for ; failed < 100; failed++ {
		var err error
		NoLeak(t, func() { err = few(t, failed, f) })
		if err == nil {
			return failed
		}
		if !errors.Is(err, syscall.EMFILE) {
			t.Errorf("with %d files that may be opened: %v, want %v", failed, err, syscall.EMFILE)
		}
	}
	t.Fatal("it fails with a hundred files, too")
	return 0
}

// few calls f with so many files that may be opened.
func few(t testing.TB, free int, f func() error) error {
	t.Helper()
	var was syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
		t.Fatal(err)
	}
	now, fds := was, open(t)
	for now.Cur = 0; free > 0 || slices.Contains(fds, int(now.Cur)); now.Cur++ {
		if !slices.Contains(fds, int(now.Cur)) {
			free--
		}
	}
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &now); err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &was); err != nil {
			t.Fatal(err)
		}
	}()
	return f()
}

// open lists the files that are open.
func open(t testing.TB) (fds []int) {
	t.Helper()
	const dir = "/proc/self/fd"
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range list {
		// Not the one of this list.
		if _, err := os.Readlink(dir + "/" + f.Name()); err != nil {
			continue
		}
		n, err := strconv.Atoi(f.Name())
		if err != nil {
			t.Fatal(err)
		}
		fds = append(fds, n)
	}
	return fds
}
