package cache

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
)

// What is bad is counted, and gone the next time. What was thrown away, or never
// here, is not bad.
func TestCheckChunks(t *testing.T) {
	p := random(5*mib + chunkSize + 1000)
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
	all := 5*regionChunks + int64(2)
	check(all, 0)
	for _, off := range []int64{0, 3*mib - 1, e.Size() - 1} {
		e.writeAt([]byte{p[off] ^ 1}, off)
	}
	check(all-3, 3)
	check(all-3, 0)
	if err := e.data.Punch(mib, mib); err != nil { // and the entries stay
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
	p := random(chunkSize)
	e.writeChunks(p, size-chunkSize)
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
		at := blockio.Extent{Len: chunkSize}
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

// What is listed of each image in a file is counted, also where tables are full of
// holes.
func TestListedBlocks(t *testing.T) {
	const size = 10 * mib
	e := openEntry(t, newDir(t, roomy), image("a", size))
	for off, numbers := range map[int64][]int64{0: {0, 1, 700, 8191, 8192, 20_000, 1 << 20}, 4096: nil, 5 * mib: {3}} {
		b, err := e.Blocks([]blockio.Extent{{Off: off, Len: mib}}, false)
		if err != nil {
			t.Fatal(err)
		}
		for _, n := range append(numbers, 5) {
			b.Put(n, blockio.Extent{Off: 10, Len: 100}, random(100))
		}
		b.Forget(5, blockio.Extent{Off: 10, Len: 100})
	}
	// Not a table of ours.
	if err := os.WriteFile(filepath.Join(filepath.Dir(e.Path()), blocksName+"x"), random(100), 0o600); err != nil {
		t.Fatal(err)
	}
	got, err := e.ListedBlocks()
	if diff := cmp.Diff(map[int64]int64{0: 7, 4096: 0, 5 * mib: 1}, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	if err := os.Symlink("0", filepath.Join(filepath.Dir(e.Path()), blocksName+"18")); err != nil {
		t.Fatal(err)
	}
	if got, err := e.ListedBlocks(); err == nil {
		t.Errorf("%v, want an error for what can't be opened", got)
	}
}

// Bytes of an image inside the file are here if all of their chunks are, in all of its
// parts, and were not thrown away.
func TestHaveBytes(t *testing.T) {
	const size = 5*mib + 100
	p := random(size)
	d := newDir(t, roomy)
	e := openEntry(t, d, image("a", size))
	parts := []blockio.Extent{{Off: 3 * mib, Len: 2*mib + 100}, {Off: 10, Len: mib}}
	whole := blockio.Extent{Len: 3*mib + 100}
	fill(e, p)
	if !e.HaveBytes(parts, whole) {
		t.Error("what was stored is not there")
	}
	for _, lost := range []int64{0, mib, 3 * mib, 4*mib + 5000, size - 1} {
		inside := lost < mib+10 || lost >= 3*mib
		chunk := e.cover(blockio.Extent{Off: lost, Len: 1})
		e.forgetChunks(chunk)
		if e.HaveBytes(parts, whole) == inside {
			t.Errorf("without the entry at %d: all there is %v", lost, inside)
		}
		e.writeChunks(p[chunk.Off:chunk.End()], chunk.Off)
	}
	for _, e := range []blockio.Extent{{Len: 1}, {Off: 2 * mib, Len: 101}, whole} {
		if !openEntry(t, d, image("a", size)).HaveBytes(parts, e) {
			t.Errorf("%v is not there", e)
		}
	}
	e.forgetChunks(e.cover(blockio.Extent{Off: 4 * mib, Len: 1}))
	for _, here := range []blockio.Extent{{Len: mib}, {Len: mib - 1}, {Off: mib - 1, Len: 1}} {
		if !e.HaveBytes(parts, here) {
			t.Errorf("%v, which is there, is not, for what lies behind it", here)
		}
	}
	e.writeChunks(p[4*mib:4*mib+chunkSize], 4*mib)
	// Thrown away, and the entries stay.
	if err := e.data.Punch(4*mib, chunkSize); err != nil {
		t.Fatal(err)
	}
	if e.HaveBytes(parts, whole) || !e.HaveBytes(parts, blockio.Extent{Len: mib}) {
		t.Error("want what was not thrown away")
	}
	// Zeros are here as a hole.
	chunk := make([]byte, chunkSize)
	e.writeChunks(chunk, 4*mib)
	if err := e.data.Punch(4*mib, chunkSize); err != nil {
		t.Fatal(err)
	}
	if !e.HaveBytes(parts, whole) {
		t.Error("zeros are not there")
	}
}
