package main

import (
	"encoding/binary"
	"io"
	"math"
	"net/http"
	"testing"

	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
)

// openLine opens an image with flags of the line, until the test ends.
func openLine(t *testing.T, flags []string, url string) *line.Line {
	t.Helper()
	var o line.Options
	set := pflag.NewFlagSet("", pflag.ContinueOnError)
	o.AddFlags(set, userAgent())
	if err := set.Parse(flags); err != nil {
		t.Fatal(err)
	}
	l, err := o.Open(t.Context(), io.Discard, url)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(l.Close)
	return l
}

// What a damaged index does not locate is missing for good: such an image is never all here.
func TestMissingOfDamagedIndex(t *testing.T) {
	const blockSize, blocks, bad = 64 << 10, 8, 4
	stored := make([][]byte, blocks)
	for n := range stored {
		stored[n] = clooptest.Deflate(testDisk((n + 1) * blockSize)[n*blockSize:], 1)
	}
	image := clooptest.Assemble(blockSize, stored)
	binary.BigEndian.PutUint64(image[136+8*bad:], math.MaxInt64) // where a block begins, and the one before ends
	url := serve(t, func(w http.ResponseWriter, r *http.Request) { content(w, r, image) })
	flags := []string{"--cache-size=1GiB", "--min-free=0", "--cache-dir", t.TempDir()}
	if got := program(t, nil, append([]string{"prefetch", url}, flags...)...); got.code != cli.ExitImage {
		t.Fatalf("prefetch: %+v, want status %d", got, cli.ExitImage)
	}
	l := openLine(t, flags, url)
	want := int64(len(stored[bad-1]) + len(stored[bad]))
	if got, err := bytesMissing(t.Context(), l); got != want || err != nil {
		t.Errorf("%d bytes are missing, %v; want %d, those of two blocks", got, err, want)
	}
}
