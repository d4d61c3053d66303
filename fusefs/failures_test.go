package fusefs

import (
	"bytes"
	"errors"
	"fmt"
	"log/slog"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// loggedFailures are failures of blocks of 64 KiB, and what they have logged, without
// its time.
func loggedFailures() (*failures, *bytes.Buffer) {
	text := new(bytes.Buffer)
	log := slog.New(slog.NewTextHandler(text, &slog.HandlerOptions{ReplaceAttr: func(_ []string, a slog.Attr) slog.Attr {
		if a.Key == slog.TimeKey {
			return slog.Attr{}
		}
		return a
	}}))
	return newFailures(log, nil), text
}

var errGone = errors.New("the server is gone")

// lines takes what was logged.
func lines(text *bytes.Buffer) []string {
	defer text.Reset()
	return strings.Split(strings.TrimSuffix(text.String(), "\n"), "\n")
}

func checkLines(t *testing.T, what string, text *bytes.Buffer, want ...string) {
	t.Helper()
	if got := lines(text); strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("%s: logged %q, want %q", what, got, want)
	}
}

// A block is logged once, with the cause, until it has been read.
func TestFailuresOncePerBlock(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, text := loggedFailures()
		// A read-ahead, and the kernel's second question.
		f.add(0, 128<<10, &blockio.BlockError{Block: 1, Err: errGone})
		f.add(65536, 4096, &blockio.BlockError{Block: 1, Err: errGone})
		f.add(70000, 4096, errGone) // an error that does not say where
		checkLines(t, "one block", text, `level=ERROR msg="read failed" offset=0 length=131072 error="read block 1: the server is gone" more=0`)
		f.add(1<<20, 4096, errGone)
		checkLines(t, "another", text, `level=ERROR msg="read failed" offset=1048576 length=4096 error="the server is gone" more=2`)

		f.clear(0, 4096) // another block
		checkLines(t, "a block that never failed", text, "")
		time.Sleep(3 * time.Second)
		f.clear(0, 128<<10)
		checkLines(t, "read again", text, `level=INFO msg="read what had failed" offset=0 length=131072 after=3s failed=4`)
		f.clear(1<<20, 1)
		checkLines(t, "the other, which is no news", text, "")
		if f.any.Load() {
			t.Error("blocks are taken for failing that have all been read")
		}
		f.add(65536, 1, errGone)
		checkLines(t, "the next outage", text, `level=ERROR msg="read failed" offset=65536 length=1 error="the server is gone" more=0`)
	})
}

// However many blocks fail, the log does not grow faster than ten lines a minute, and
// nothing is forgotten in it.
func TestFailuresAreLimited(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		f, text := loggedFailures()
		fail := func(n int) (logged, more int) {
			for b := range n {
				f.add(int64(b)<<16, 1, errGone)
			}
			for _, line := range lines(text) {
				var m int
				if _, err := fmt.Sscanf(line[max(0, strings.LastIndex(line, " more=")):], " more=%d", &m); err == nil {
					logged, more = logged+1, more+m
				}
			}
			return logged, more
		}
		if logged, more := fail(1000); logged != logBurst || more != 0 {
			t.Errorf("%d lines, %d more failures; want %d and none", logged, more, logBurst)
		}
		time.Sleep(time.Minute)
		// The first ten are not said again; what was not said is.
		if logged, more := fail(1000); logged != 10 || more != 1000-logBurst+logBurst {
			t.Errorf("a minute later: %d lines, %d more failures; want 10 and %d", logged, more, 1000)
		}
		for range 1000 {
			time.Sleep(time.Minute)
			fail(2 * maxFailing)
		}
		if len(f.failing) > maxFailing {
			t.Errorf("%d blocks are remembered, want at most %d", len(f.failing), maxFailing)
		}
	})
}
