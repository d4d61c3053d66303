package ownfile_test

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/internal/ownfile"
)

// What is punched is zeros, takes no room, and is told from data; the size stays.
func TestHoles(t *testing.T) {
	const unit = 64 << 10 // what every file system can make a hole of
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, bytes.Repeat([]byte{1}, 4*unit), 0o600); err != nil {
		t.Fatal(err)
	}
	opened, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer opened.Close()
	f := ownfile.File{File: opened}
	before, err := f.Allocated()
	if err != nil || before < 4*unit {
		t.Fatalf("it takes %d bytes, %v", before, err)
	}
	for _, off := range []int64{unit, 3 * unit, 5 * unit} { // inside, at the end, behind it
		if err := f.Punch(off, unit); err != nil {
			t.Fatal(err)
		}
	}
	if after, err := f.Allocated(); err != nil || after != before-2*unit {
		t.Errorf("it takes %d bytes, %v; it took %d", after, err, before)
	}
	one, zero := bytes.Repeat([]byte{1}, unit), make([]byte, unit)
	if is, err := os.ReadFile(path); err != nil || !bytes.Equal(is, bytes.Join([][]byte{one, zero, one, zero}, nil)) {
		t.Errorf("it has %d bytes, or others than expected: %v", len(is), err)
	}
	for _, c := range []struct {
		off, data, hole int64
		dataErr         error
		holeErr         error
	}{
		{0, 0, unit, nil, nil},
		{5, 5, unit, nil, nil},
		{unit + 5, 2 * unit, unit + 5, nil, nil},
		{3*unit - 1, 3*unit - 1, 3 * unit, nil, nil},
		{3 * unit, 0, 3 * unit, io.EOF, nil},
		{4 * unit, 0, 0, io.EOF, io.EOF},
	} {
		if at, err := f.NextData(c.off); at != c.data || err != c.dataErr {
			t.Errorf("NextData(%d) = %d, %v; want %d, %v", c.off, at, err, c.data, c.dataErr)
		}
		if at, err := f.NextHole(c.off); at != c.hole || err != c.holeErr {
			t.Errorf("NextHole(%d) = %d, %v; want %d, %v", c.off, at, err, c.hole, c.holeErr)
		}
	}
	if err := f.Truncate(3*unit - 5); err != nil {
		t.Fatal(err)
	}
	if at, err := f.NextHole(2 * unit); at != 3*unit-5 || err != nil {
		t.Errorf("NextHole = %d, %v, want the end of the file", at, err)
	}
}

// What can't be done is an error that says what it was.
func TestNoHoles(t *testing.T) {
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	f := ownfile.File{File: write}
	if err := f.Punch(0, 4096); !errors.Is(err, unix.ESPIPE) || !strings.Contains(err.Error(), "punch") {
		t.Errorf("Punch: %v", err)
	}
	if _, err := f.NextData(0); !errors.Is(err, unix.ESPIPE) {
		t.Errorf("NextData: %v", err)
	}
	if _, err := f.NextHole(0); !errors.Is(err, unix.ESPIPE) {
		t.Errorf("NextHole: %v", err)
	}
	write.Close()
	if _, err := f.Allocated(); !errors.Is(err, os.ErrClosed) {
		t.Errorf("Allocated: %v", err)
	}
}
