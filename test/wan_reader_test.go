//go:build integration

package test

import (
	"encoding/gob"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// The bulk reader is this test program, run again with this variable set. It gets
// one errand on stdin, and prints a reading.
const bulkEnv = "CLOOPFS_TEST_BULK"

// errand is what a bulk reader is to read, by so many Readers at a time.
type errand struct {
	Path    string   // of a directory, or else of a file
	Names   []string // of files in the directory, each to be read to its end; or
	Offsets []int64  // of pages of the file, without read-ahead; or all of the file
	Readers int
	Direct  bool // O_DIRECT, for pages
}

// reading is what came of an errand.
type reading struct {
	Sum       uint32          // tells whether all bytes are the same
	Took      time.Duration   // in all
	Latencies []time.Duration // of each file or page, in ascending order
	Booted    time.Duration   // how long a guest has taken to boot
	Err       string          // of the first that failed
}

// do does an errand, whose path is not known yet.
func (e errand) do(b *testing.B, s *session, v view, progress func() int64) (got reading, err error) {
	e.Path = v.disk
	if len(e.Names) > 0 {
		if e.Path = v.tree; v.disk != "" {
			if e.Path, err = s.loop(v.disk); err != nil {
				return got, err
			}
		}
	}
	return bulkRead(b, e, progress, s.abort)
}

// bulkRead sends a reader. When progress returns the same for a minute, stuck is
// called, which has to free the reader.
func bulkRead(t testing.TB, what errand, progress func() int64, stuck func()) (reading, error) {
	t.Helper()
	exe, err := os.Executable()
	if err != nil {
		return reading{}, err
	}
	cmd := exec.Command(exe)
	cmd.Env = append(os.Environ(), bulkEnv+"=1")
	in, err := cmd.StdinPipe()
	if err != nil {
		return reading{}, err
	}
	p := startCmd(t, cmd)
	err = gob.NewEncoder(in).Encode(what)
	for last := int64(-1); !p.endsWithin(time.Minute); {
		now := progress()
		if now == last {
			p.kill()
			stuck()
			return reading{}, errors.New("no progress for a minute")
		}
		last = now
	}
	var got reading
	if err == nil {
		err = gob.NewDecoder(&p.stdout).Decode(&got)
	}
	if err != nil {
		return reading{}, fmt.Errorf("the reader: %w: %q", err, brief(p.stderr.String()))
	}
	if got.Err != "" {
		return reading{}, errors.New(firstLine(got.Err))
	}
	return got, nil
}

// bulkMain does an errand.
func bulkMain() int {
	var what errand
	if err := gob.NewDecoder(os.Stdin).Decode(&what); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	var got reading
	got.Took = elapsed(func() {
		if err := what.read(&got); err != nil {
			got.Err = err.Error()
		}
	})
	slices.Sort(got.Latencies)
	if err := gob.NewEncoder(os.Stdout).Encode(got); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func (e *errand) read(got *reading) error {
	if len(e.Names) > 0 {
		return e.each(got, len(e.Names), func(i int, buf []byte) (uint32, error) {
			return sumOf(filepath.Join(e.Path, e.Names[i]), buf)
		})
	}
	if len(e.Offsets) == 0 {
		var err error
		got.Sum, err = sumOf(e.Path, make([]byte, mib))
		return err
	}
	flags := os.O_RDONLY
	if e.Direct {
		flags |= unix.O_DIRECT
	}
	f, err := os.OpenFile(e.Path, flags, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := unix.Fadvise(int(f.Fd()), 0, 0, unix.FADV_RANDOM); err != nil {
		return err
	}
	return e.each(got, len(e.Offsets), func(i int, buf []byte) (uint32, error) {
		_, err := f.ReadAt(buf[:pageSize], e.Offsets[i])
		return crc32.ChecksumIEEE(buf[:pageSize]), err
	})
}

// each reads n things, e.Readers at a time.
func (e *errand) each(got *reading, n int, read func(i int, buf []byte) (sum uint32, err error)) error {
	sums, errs := make([]uint32, n), make([]error, n)
	got.Latencies = make([]time.Duration, n)
	var next atomic.Int64
	var wg sync.WaitGroup
	for range e.Readers {
		wg.Go(func() {
			buf := make([]byte, 128*kib) // so large that it begins with a page, as O_DIRECT wants it
			for i := int(next.Add(1)) - 1; i < n; i = int(next.Add(1)) - 1 {
				got.Latencies[i] = elapsed(func() { sums[i], errs[i] = read(i, buf) })
			}
		})
	}
	wg.Wait()
	got.Sum = crc32.ChecksumIEEE(fmt.Append(nil, sums))
	return errors.Join(errs...)
}

// sumOf reads a file to its end.
func sumOf(file string, buf []byte) (uint32, error) {
	f, err := os.Open(file)
	if err != nil {
		return 0, err
	}
	defer f.Close()
	sum := uint32(0)
	for {
		n, err := f.Read(buf)
		sum = crc32.Update(sum, crc32.IEEETable, buf[:n])
		if err == io.EOF {
			return sum, nil
		}
		if err != nil {
			return 0, err
		}
	}
}

// quantile is of a sorted list that is not empty.
func quantile(list []time.Duration, q float64) time.Duration {
	return list[min(len(list)-1, int(q*float64(len(list))))]
}

// firstLine keeps the errors of many reads short.
func firstLine(s string) string {
	line, _, _ := strings.Cut(s, "\n")
	return line
}
