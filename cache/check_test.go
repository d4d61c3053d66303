package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// What is bad is counted, and gone the next time. What was thrown away, or never
// here, is not bad.
func TestCheckChunks(t *testing.T) {
	p := random(5*mib + 1000)
	e := openEntry(t, newDir(t, roomy), image("a", int64(len(p))))
	check := func(wantRight, wantBad int64) {
		t.Helper()
		right, bad, err := e.CheckChunks(t.Context())
		if right != wantRight || bad != wantBad || err != nil {
			t.Errorf("%d right, %d bad, %v; want %d and %d", right, bad, err, wantRight, wantBad)
		}
	}
	check(0, 0)
	last := e.cover(blockio.Extent{Off: e.Size() - 1, Len: 1})
	e.writeChunks(p[last.Off:], last.Off)
	check(1, 0)
	fill(e, p)
	all := 5*regionChunks + int64(1)
	check(all, 0)
	for _, off := range []int64{0, 3*mib - 1, e.Size() - 1} {
		e.writeAt([]byte{p[off] ^ 1}, off)
	}
	check(all-3, 3)
	check(all-3, 0)
	if err := e.data.punch(mib, mib); err != nil { // and the entries stay
		t.Fatal(err)
	}
	check(all-3-regionChunks, 0)
	if n := e.chunks.loadOne(regionChunks); n != 0 {
		t.Error("the entry of what was thrown away is there")
	}
	if err := os.Truncate(e.Path(), 4*mib); err != nil {
		t.Fatal(err)
	}
	check(3*regionChunks-2, 0)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, _, err := e.CheckChunks(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("%v, want that it was cancelled", err)
	}
}

// A huge image of which little is here is checked at once.
func TestCheckChunksOfHole(t *testing.T) {
	const size = 1 << 42
	e := openEntry(t, newDir(t, roomy), image("a", size))
	p := random(ChunkSize)
	e.writeChunks(p, size-ChunkSize)
	e.writeChunks(p, size/2)
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if right, bad, err := e.CheckChunks(ctx); right != 2 || bad != 0 || err != nil {
		t.Errorf("%d right, %d bad, %v; want 2 and 0", right, bad, err)
	}
}

// Who only looks makes nothing younger.
func TestQuiet(t *testing.T) {
	d := newDir(t, roomy)
	p := random(100_000)
	id := image("a", int64(len(p)))
	fill(openEntry(t, d, id), p)
	e, err := d.OpenNamed(id.name())
	if err != nil {
		t.Fatal(err)
	}
	defer e.Close()
	e.now = func() time.Time { return someTime }
	used := filepath.Join(filepath.Dir(e.Path()), usedName)
	before, err := os.ReadFile(used)
	if err != nil {
		t.Fatal(err)
	}
	read := func() bool {
		t.Helper()
		at := blockio.Extent{Len: ChunkSize}
		if !wholeBlocks(t, e, true).Get(0, at, make([]byte, at.Len)) {
			t.Fatal("not there")
		}
		after, err := os.ReadFile(used)
		if err != nil {
			t.Fatal(err)
		}
		return string(after) != string(before)
	}
	e.Quiet()
	if read() {
		t.Error("a look counts as use")
	}
	e.quiet.Store(false)
	if !read() {
		t.Error("a read does not count as use")
	}
}
