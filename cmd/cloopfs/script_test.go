package main

import (
	"bytes"
	"compress/gzip"
	"compress/zlib"
	"context"
	"encoding/binary"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"

	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/internal/testserver"
	"github.com/cloopfs/cloopfs/profile"
)

// fixtures holds what tests of several packages read.
const fixtures = "../../testdata"

func TestMain(m *testing.M) {
	// Without a cache unless a test asks for one, and never in that of this machine.
	defaultCacheSize, rootCacheDir = "0", "/proc/no cache"
	if inBackground() || inForeground() || inCrashLog() {
		main() // whatever the process is called: it would run the tests
	}
	testscript.Main(m, map[string]func(){"cloopfs": main, mount8Name: main})
}

// TestScripts runs testdata/script. Besides testscript's own commands there are
//
//	exits N program args...   run it; its exit status must be N
//	mkdisk file               write a disk of 1,000,000 bytes, data and zeros
//	mkcloop [flags] disk file write the V2.0 image of a disk, see mkcloopCmd
//	mkparts disk parts.img    write a disk with an MBR and a copy of disk in both its partitions
//	mkprofile image file FIRST+COUNT...  write a profile of an image
//	rangeserver [knob...] file  serve file, see rangeserverCmd
//	requests N                the servers got N requests since the last time
//	allocated max file...     the files' data takes at most max bytes
//	files dir name...         the directory holds these files and no others
//	unpack fixture file       unpack testdata/fixture.gz of the module
//
// and the condition [root].
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		Setup: func(env *testscript.Env) error {
			env.Values[requestsKey{}] = new(atomic.Int64)
			env.Setenv("GORACE", "atexit_sleep_ms=0") // a program with the race detector sleeps for a second when it ends
			return nil
		},
		Condition: func(cond string) (bool, error) {
			if cond == "root" {
				return os.Geteuid() == 0, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"exits":       exitsCmd,
			"mkdisk":      mkdiskCmd,
			"mkcloop":     mkcloopCmd,
			"mkparts":     mkpartsCmd,
			"mkprofile":   mkprofileCmd,
			"rangeserver": rangeserverCmd,
			"requests":    requestsCmd,
			"allocated":   allocatedCmd,
			"files":       filesCmd,
			"unpack":      unpackCmd,
		},
	})
}

func exitsCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) < 2 {
		ts.Fatalf("usage: exits N program args...")
	}
	want, err := strconv.Atoi(args[0])
	ts.Check(err)
	got := 0
	if err := ts.Exec(args[1], args[2:]...); err != nil {
		var exit *exec.ExitError
		if !errors.As(err, &exit) {
			ts.Fatalf("%v", err)
		}
		got = exit.ExitCode()
	}
	if got != want {
		ts.Fatalf("got exit status %d, want %d", got, want)
	}
}

// testDisk is a disk of n bytes: stretches of random data, of text and of zeros.
func testDisk(n int) []byte {
	disk := make([]byte, n)
	chacha := rand.NewChaCha8([32]byte{2})
	rnd := rand.New(chacha)
	for off := 0; off < n; {
		part := disk[off:min(n, off+1000+rnd.IntN(60_000))]
		switch rnd.IntN(4) {
		case 0:
			chacha.Read(part)
		case 1:
			copy(part, bytes.Repeat([]byte("a line of text\n"), len(part)/15+1))
		}
		off += len(part)
	}
	copy(disk, "the first bytes")
	clear(disk[n/2 : n*3/4]) // what every disk has: a large hole
	return disk
}

func mkdiskCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 1 {
		ts.Fatalf("usage: mkdisk file")
	}
	ts.Check(os.WriteFile(ts.MkAbs(args[0]), testDisk(1_000_000), 0o666))
}

// cloopImage describes an image to be made.
type cloopImage struct {
	blockSize int
	version   string
	holes     bool // zero blocks are stored as nothing, as mkuzip does it
	corrupt   int  // the block whose stored bytes are damaged; -1: none
}

// make returns the image of a disk.
func (c cloopImage) make(disk []byte) []byte {
	var stored [][]byte
	for off := 0; off < len(disk); off += c.blockSize {
		block := disk[off:min(off+c.blockSize, len(disk))]
		if c.holes && len(bytes.Trim(block, "\x00")) == 0 {
			stored = append(stored, nil)
			continue
		}
		stored = append(stored, clooptest.Deflate(block, zlib.BestSpeed))
	}
	if c.corrupt >= 0 {
		p := stored[c.corrupt]
		p[len(p)/2] ^= 0xff
	}
	image := clooptest.Assemble(c.blockSize, stored)
	copy(image[11:], c.version) // behind "#!/bin/sh", a newline and "#"
	return image
}

// mkcloopCmd has flags for each field of cloopImage.
func mkcloopCmd(ts *testscript.TestScript, _ bool, args []string) {
	var c cloopImage
	f := flag.NewFlagSet("mkcloop", flag.ContinueOnError)
	f.IntVar(&c.blockSize, "block", 65536, "block size")
	f.StringVar(&c.version, "version", "V2.0", "version in the preamble")
	f.BoolVar(&c.holes, "holes", false, "store zero blocks as nothing")
	f.IntVar(&c.corrupt, "corrupt", -1, "block to damage")
	ts.Check(f.Parse(args))
	if f.NArg() != 2 {
		ts.Fatalf("usage: mkcloop [flags] disk file")
	}
	disk, err := os.ReadFile(ts.MkAbs(f.Arg(0)))
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(f.Arg(1)), c.make(disk), 0o666))
}

// rangeserverCmd serves a file until the script ends, and sets URL to its URL
// and HOST to the server's host and port. The flags are faults of the server;
// with -after they begin after so many requests.
func rangeserverCmd(ts *testscript.TestScript, _ bool, args []string) {
	var c testserver.Config
	f := flag.NewFlagSet("rangeserver", flag.ContinueOnError)
	f.BoolVar(&c.IgnoreRange, "norange", false, "ignore Range requests")
	f.IntVar(&c.Status, "status", 0, "answer with this status, for ever unless -times is given")
	f.IntVar(&c.StatusTimes, "times", -1, "how often -status happens")
	f.StringVar(&c.RetryAfter, "retry-after", "", "Retry-After, with -status")
	f.IntVar(&c.Truncate, "truncate", 0, "bodies to cut off")
	f.IntVar(&c.Reset, "reset", 0, "requests to reset")
	f.IntVar(&c.FlipTimes, "flip", 0, "how often a bit is flipped")
	f.Int64Var(&c.FlipOffset, "at", 0, "where the bit is flipped")
	f.StringVar(&c.ETag, "etag", "", "ETag")
	hang := f.Bool("hang", false, "never answer")
	after := f.Int64("after", 0, "requests before all that begins")
	ts.Check(f.Parse(args))
	if f.NArg() != 1 {
		ts.Fatalf("usage: rangeserver [flags] file")
	}
	if c.Status == 0 {
		c.StatusTimes = 0
	}
	if *hang {
		c.Hang = testserver.HangBeforeHeaders
	}
	name := f.Arg(0)
	srv, err := testserver.New()
	ts.Check(err)
	ts.Check(srv.AddFile(name, ts.MkAbs(name)))
	var requests atomic.Int64
	counted := ts.Value(requestsKey{}).(*atomic.Int64)
	front := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		counted.Add(1)
		if requests.Add(1) == *after+1 {
			srv.Set(func(now *testserver.Config) { *now = c })
		}
		srv.ServeHTTP(w, r)
	}))
	ts.Defer(func() {
		srv.Close()
		front.Close()
	})
	ts.Setenv("HOST", strings.TrimPrefix(front.URL, "http://"))
	ts.Setenv("URL", front.URL+"/"+name)
}

// requestsKey is for the number of requests that a script's servers have got
// since the last look at it.
type requestsKey struct{}

func requestsCmd(ts *testscript.TestScript, neg bool, args []string) {
	if neg || len(args) != 1 {
		ts.Fatalf("usage: requests N")
	}
	want, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	if got := ts.Value(requestsKey{}).(*atomic.Int64).Swap(0); got != want {
		ts.Fatalf("got %d requests, want %d", got, want)
	}
}

// mkpartsCmd writes a disk with two partitions and some space behind them.
func mkpartsCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: mkparts disk parts.img")
	}
	content, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	const first, sector, linux = 128, 512, 0x83
	sectors := (len(content) + sector - 1) / sector
	disk := make([]byte, (first+2*sectors+1000)*sector)
	for i := range 2 {
		at := first + i*sectors
		copy(disk[at*sector:], content)
		entry := disk[446+16*i:]
		entry[4] = linux
		binary.LittleEndian.PutUint32(entry[8:], uint32(at))
		binary.LittleEndian.PutUint32(entry[12:], uint32(sectors))
	}
	disk[510], disk[511] = 0x55, 0xaa
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), disk, 0o666))
}

// mkprofileCmd writes a profile whose runs were asked for a second apart.
func mkprofileCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: mkprofile image file FIRST+COUNT...")
	}
	l, err := openLine(context.Background(), location{Path: ts.MkAbs(args[0])}, sourceOptions{Format: formatAuto}, 0, slog.New(slog.DiscardHandler))
	ts.Check(err)
	defer l.Close()
	var p profile.Profile
	p.Image, err = l.profiled(context.Background())
	ts.Check(err)
	for _, arg := range args[2:] {
		r := profile.Run{Gap: time.Second}
		_, err := fmt.Sscanf(arg, "%d+%d", &r.First, &r.Count)
		ts.Check(err)
		p.Runs = append(p.Runs, r)
	}
	f, err := os.Create(ts.MkAbs(args[1]))
	ts.Check(err)
	ts.Check(p.Write(f))
	ts.Check(f.Close())
}

func allocatedCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) < 2 {
		ts.Fatalf("usage: allocated max file...")
	}
	most, err := strconv.ParseInt(args[0], 10, 64)
	ts.Check(err)
	for _, name := range args[1:] {
		var stat syscall.Stat_t
		ts.Check(syscall.Stat(ts.MkAbs(name), &stat))
		if got := stat.Blocks * 512; got > most {
			ts.Fatalf("%s: got %d bytes allocated of %d, want at most %d", name, got, stat.Size, most)
		}
	}
}

func filesCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) == 0 {
		ts.Fatalf("usage: files dir name...")
	}
	entries, err := os.ReadDir(ts.MkAbs(args[0]))
	ts.Check(err)
	var got []string
	for _, e := range entries {
		got = append(got, e.Name())
	}
	if want := args[1:]; strings.Join(got, " ") != strings.Join(want, " ") {
		ts.Fatalf("got the files %q, want %q", got, want)
	}
}

func unpackCmd(ts *testscript.TestScript, _ bool, args []string) {
	if len(args) != 2 {
		ts.Fatalf("usage: unpack fixture file")
	}
	packed, err := os.Open(filepath.Join(fixtures, args[0]+".gz"))
	ts.Check(err)
	defer packed.Close()
	r, err := gzip.NewReader(packed)
	ts.Check(err)
	data, err := io.ReadAll(r)
	ts.Check(err)
	ts.Check(os.WriteFile(ts.MkAbs(args[1]), data, 0o666))
}

// TestTestDisk checks that what the scripts read is worth reading.
func TestTestDisk(t *testing.T) {
	disk := testDisk(1_000_000)
	zero := 0
	for p := disk; len(p) > 0; p = p[min(len(p), holeSize):] {
		if isHole(p) {
			zero++
		}
	}
	image := cloopImage{blockSize: 65536, version: "V2.0", corrupt: -1}.make(disk)
	if zero < 80 || len(image) < 150_000 {
		t.Errorf("got %d pages of zeros and an image of %d bytes, want more", zero, len(image))
	}
}
