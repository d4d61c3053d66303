//go:build integration

package test

import (
	"bufio"
	"bytes"
	stdzlib "compress/zlib"
	"context"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/klauspost/compress/zlib"
	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/internal/inflate"
	"github.com/cloopfs/cloopfs/localfile"
)

// BenchmarkInflate compares decoders of zlib streams, on the blocks of an image that are
// neither zeros nor incompressible, and on all of them: in each round all decoders, taking
// turns with each megabyte, in an order that changes. What counts is the CPU time of one
// thread; a ratio is that of speeds, the median of the rounds' ratios.
func BenchmarkInflate(b *testing.B) {
	for name, image := range map[string]func() (fixture, error){"64K": debian64K, "1M": debian1M} {
		f := need(b, image)
		set := blocksOf(b, f.image)
		b.Run(name+"/compressible", func(b *testing.B) {
			benchDecoders(b, set.compressible(), func(set blockSet) decodeFunc {
				dst := make([]byte, set.size)
				return func(_ int, stored []byte) error {
					n, err := inflate.Zlib(dst, stored)
					return whole(n, set.size, err)
				}
			})
		})
		b.Run(name+"/all", func(b *testing.B) {
			benchDecoders(b, set, func(set blockSet) decodeFunc {
				return func(i int, stored []byte) error { return set.check(int64(i), stored) }
			})
		})
	}
}

// decodeFunc decodes block i of a set.
type decodeFunc func(i int, stored []byte) error

// blockSet is stored blocks, each of which decodes to size bytes.
type blockSet struct {
	size   int
	stored [][]byte
	// check decodes block i as cloopfs does.
	check func(i int64, stored []byte) error
}

// blocksOf reads an image, without its last block.
func blocksOf(b testing.TB, image string) blockSet {
	b.Helper()
	ctx := context.Background()
	f, err := localfile.Open(image)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = f.Close() }) // it was read only
	ix, err := cloop.Open(ctx, f)
	if err != nil {
		b.Fatal(err)
	}
	set := blockSet{size: ix.BlockSize()}
	for n := range ix.Blocks() - 1 {
		e, err := ix.Extent(ctx, n)
		if err != nil {
			b.Fatal(err)
		}
		stored := make([]byte, e.Len)
		if _, err := f.ReadAtContext(ctx, stored, e.Off); err != nil {
			b.Fatal(err)
		}
		set.stored = append(set.stored, stored)
	}
	if set.check, err = ix.Checker(ctx, 0, ix.Blocks()); err != nil {
		b.Fatal(err)
	}
	return set
}

// compressible are those that are neither zeros nor incompressible.
func (s blockSet) compressible() blockSet {
	some := blockSet{size: s.size}
	for _, stored := range s.stored {
		if len(stored) > s.size/64 && len(stored) < s.size*97/100 {
			some.stored = append(some.stored, stored)
		}
	}
	return some
}

func whole(n, size int, err error) error {
	if err == nil && n != size {
		err = fmt.Errorf("%d bytes instead of %d", n, size)
	}
	return err
}

// contestant decodes the blocks from first on, and says in what CPU time.
type contestant struct {
	name   string
	decode func(first, n int) (time.Duration, error)
}

// benchDecoders lets ours and others take turns.
func benchDecoders(b *testing.B, set blockSet, ours func(set blockSet) decodeFunc) {
	list := []contestant{
		inGo("cloopfs", set, ours(set)),
		inGo("klauspost", set, withReader(set, zlib.NewReader)),
		inGo("go", set, withReader(set, stdzlib.NewReader)),
	}
	file := filepath.Join(b.TempDir(), "blocks")
	if err := os.WriteFile(file, set.file(), 0o600); err != nil {
		b.Fatal(err)
	}
	for _, c := range []struct{ name, define, library string }{
		{"libdeflate", "LIBDEFLATE", "deflate"}, {"zlib-ng", "ZLIBNG", "z-ng"}, {"zlib", "ZLIB", "z"},
	} {
		program := filepath.Join(b.TempDir(), c.name)
		build := exec.Command("gcc", "-O2", "-D"+c.define, "-o", program, "testdata/zlib-bench.c", "-l"+c.library)
		if out, err := build.CombinedOutput(); err != nil {
			b.Logf("%s does not take part: %s", c.name, firstLine(string(out)))
			continue
		}
		list = append(list, inC(b, c.name, exec.Command(program, file, fmt.Sprint(set.size))))
	}

	takeTurns(b, set, list)
}

// takeTurns measures all of them, and reports how fast the first is.
func takeTurns(b *testing.B, set blockSet, list []contestant) {
	runtime.LockOSThread() // whose time is taken
	defer runtime.UnlockOSThread()
	spent := make([][]float64, len(list)) // seconds, of each round
	perTurn := max(1, mib/set.size)
	for b.Loop() {
		round := make([]time.Duration, len(list))
		for first := 0; first < len(set.stored); first += perTurn {
			n := min(perTurn, len(set.stored)-first)
			for _, k := range rand.Perm(len(list)) {
				took, err := list[k].decode(first, n)
				if err != nil {
					b.Fatalf("%s: %v", list[k].name, err)
				}
				round[k] += took
			}
		}
		for k, took := range round {
			spent[k] = append(spent[k], took.Seconds())
		}
	}

	report := new(strings.Builder)
	fmt.Fprintf(report, "%d blocks of %d bytes, %d rounds\n| decoder | MB/s |", len(set.stored), set.size, len(spent[0]))
	bytes := float64(len(set.stored)) * float64(set.size)
	for _, base := range list[1:] {
		fmt.Fprintf(report, " of %s |", base.name)
	}
	report.WriteString("\n|---|" + strings.Repeat("--:|", len(list)))
	for k, c := range list {
		fmt.Fprintf(report, "\n| %s | %.0f |", c.name, bytes/median(spent[k])/1e6)
		for base := 1; base < len(list); base++ {
			var ratios []float64
			for r := range spent[k] {
				ratios = append(ratios, spent[base][r]/spent[k][r])
			}
			fmt.Fprintf(report, " %.2f |", median(ratios))
			if k == 0 {
				b.ReportMetric(median(ratios), "of-"+list[base].name)
			}
		}
	}
	b.ReportMetric(0, "ns/op")
	b.Log(report)
}

// inGo takes the time of this thread.
func inGo(name string, set blockSet, decode decodeFunc) contestant {
	return contestant{name, func(first, n int) (time.Duration, error) {
		begin, err := threadTime()
		for i := first; i < first+n && err == nil; i++ {
			err = decode(i, set.stored[i])
		}
		if err != nil {
			return 0, err
		}
		end, err := threadTime()
		return end - begin, err
	}}
}

func threadTime() (time.Duration, error) {
	var t unix.Timespec
	err := unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t)
	return time.Duration(t.Nano()), err
}

// withReader decodes with a reader of streams, which is used again and again.
func withReader(set blockSet, open func(io.Reader) (io.ReadCloser, error)) decodeFunc {
	var src bytes.Reader
	var r io.ReadCloser
	dst := make([]byte, set.size+1)
	return func(_ int, stored []byte) (err error) {
		src.Reset(stored)
		if r == nil {
			r, err = open(&src)
		} else {
			err = r.(stdzlib.Resetter).Reset(&src, nil)
		}
		if err != nil {
			return err
		}
		n, err := io.ReadFull(r, dst)
		if err == io.ErrUnexpectedEOF { // it has ended where it should
			err = nil
		}
		return whole(n, set.size, err)
	}
}

// inC asks a program of testdata/zlib-bench.c.
func inC(b *testing.B, name string, cmd *exec.Cmd) contestant {
	b.Helper()
	in, err := cmd.StdinPipe()
	if err != nil {
		b.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		b.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() {
		_ = in.Close() // which ends it
		_ = cmd.Wait()
	})
	answers := bufio.NewReader(out)
	return contestant{name, func(first, n int) (time.Duration, error) {
		if _, err := fmt.Fprintln(in, first, n); err != nil {
			return 0, err
		}
		var took time.Duration
		_, err := fmt.Fscanln(answers, &took)
		return took, err
	}}
}

// file is the set as testdata/zlib-bench.c reads it.
func (s blockSet) file() []byte {
	var out []byte
	for _, stored := range s.stored {
		out = binary.NativeEndian.AppendUint32(out, uint32(len(stored)))
		out = append(out, stored...)
	}
	return out
}
