package main

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
)

// Adjacent blocks that are bad for the same reason are one line, however many
// chunks they fill.
func TestVerifyMergesRuns(t *testing.T) {
	const blocks, from, to = 20_000, 2, 19_990
	image := clooptest.Assemble(512, make([][]byte, blocks))
	for n := from; n < to; n++ {
		binary.BigEndian.PutUint64(image[136+8*n:], 1)
	}
	got := program(t, nil, "verify", writeFile(t, "image", image))
	const starts, ends = "starts inside the header or index", "ends before its start"
	want := result{
		code: cli.ExitImage,
		stdout: fmt.Sprintf("block %d: corrupt cloop image: %s\nblocks %d-%d: corrupt cloop image: %s\n",
			from-1, ends, from, to-1, starts),
		stderr: fmt.Sprintf("cloopfs: %d of %d blocks are bad\n", to-from+1, blocks),
	}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

// firstWrite is a buffer that tells of the first line.
type firstWrite struct {
	bytes.Buffer
	once sync.Once
	done chan struct{}
}

func (w *firstWrite) Write(p []byte) (int, error) {
	w.once.Do(func() { close(w.done) })
	return w.Buffer.Write(p)
}

// A bad block is printed while the rest of the image is still on its way: nothing
// is kept until the end.
func TestVerifyPrintsAtOnce(t *testing.T) {
	const blockSize, blocks = 1 << 20, 64
	random := rand.NewChaCha8([32]byte{7})
	noise := func(n int) []byte {
		p := make([]byte, n)
		random.Read(p)
		return p
	}
	stored := make([][]byte, blocks) // nothing stands for zeros
	stored[0], stored[2] = noise(100), noise(64<<10)
	stored[blocks-1] = clooptest.Deflate(noise(blockSize), 1)
	image := clooptest.Assemble(blockSize, stored)
	last := len(image) - len(stored[blocks-1])

	out := &firstWrite{done: make(chan struct{})}
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var off int
		fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &off)
		if off >= last {
			select {
			case <-out.done:
			case <-time.After(10 * time.Second):
				t.Error("nothing was printed before the last block was there")
			}
		}
		content(w, r, image)
	})
	var o line.Options
	o.AddFlags(pflag.NewFlagSet("verify", pflag.ContinueOnError), userAgent())
	l, err := o.Open(t.Context(), io.Discard, url)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if err := verify(t.Context(), l, out); cli.ExitCode(err) != cli.ExitImage || err.Error() != "2 of 64 blocks are bad" {
		t.Errorf("verify: %v", err)
	}
	lines := strings.Split(out.String(), "\n")
	if len(lines) != 3 || !strings.HasPrefix(lines[0], "block 0: ") || !strings.HasPrefix(lines[1], "block 2: ") {
		t.Errorf("printed %q, want a line for each of blocks 0 and 2", lines)
	}
}

// What is bad is printed, too, where the source fails later.
func TestVerifyOfFailingSource(t *testing.T) {
	const blockSize, blocks = 64 << 10, 256
	random := make([]byte, blockSize)
	rand.NewChaCha8([32]byte{7}).Read(random)
	stored := slices.Repeat([][]byte{clooptest.Deflate(random, 1)}, blocks)
	stored[1] = []byte("no stream")
	image := clooptest.Assemble(blockSize, stored)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		var off int
		if fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-", &off); off > len(image)/2 {
			w.WriteHeader(http.StatusGone)
			return
		}
		content(w, r, image)
	})
	got := program(t, nil, "verify", url)
	if got.code != cli.ExitSource || !strings.HasPrefix(got.stdout, "block 1: ") || strings.Count(got.stdout, "\n") != 1 {
		t.Errorf("got %+v, want block 1 and status %d", got, cli.ExitSource)
	}
}
