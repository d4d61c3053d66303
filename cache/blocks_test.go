package cache

import (
	"bytes"
	"path/filepath"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
)

// A block that is lost takes with it no chunk that it has a part in: its other part
// may be the end of the index. And it is made of chunks if they are all here.
func TestLostBlockLeavesChunks(t *testing.T) {
	file := crashDisk(4 * chunkSize)
	d, err := openFiles(memDir{memFiles: newMemFiles(int64(len(file)))}, int64(len(file)), true)
	if err != nil {
		t.Fatal(err)
	}
	b, err := d.Blocks([]blockio.Extent{{Len: d.Size()}}, false)
	if err != nil {
		t.Fatal(err)
	}
	e := blockio.Extent{Off: 1000, Len: 2 * chunkSize}
	want, p := file[e.Off:e.End()], make([]byte, e.Len)
	d.writeChunks(file[:chunkSize], 0)
	b.Put(0, e, want)
	if err := d.data.Punch(chunkSize, chunkSize); err != nil {
		t.Fatal(err)
	}
	if b.Get(0, e, p) {
		t.Error("a block is here without its second page")
	}
	if !d.readCovered(make([]byte, 1000), 0) {
		t.Error("what lies before the block is gone with it")
	}

	b.Put(0, e, want)
	d.writeChunks(file, 0)
	if err := b.sums.store(0, 1); err != nil {
		t.Fatal(err)
	}
	if !b.Get(0, e, p) || !bytes.Equal(p, want) {
		t.Error("a block with a wrong entry is not read from its chunks")
	}
}

// What is bad takes no more room, but for the pages that it shares with others.
func TestDroppedBlockTakesNoRoom(t *testing.T) {
	p := random(64 * chunkSize)
	e := openEntry(t, newDir(t, roomy), image("a", int64(len(p))))
	b, err := e.Blocks([]blockio.Extent{{Len: e.Size()}}, false)
	if err != nil {
		t.Fatal(err)
	}
	var blocks []blockio.Extent
	for n := range int64(4) {
		at := blockio.Extent{Off: 1000 + n*10*chunkSize, Len: 10 * chunkSize}
		b.Put(n, at, p[at.Off:at.End()])
		blocks = append(blocks, at)
	}
	if got := e.Allocated(); got != 41*chunkSize {
		t.Fatalf("%d bytes take room", got)
	}
	b.Drop(1, blocks[1])
	if got := e.Allocated(); got != 32*chunkSize || b.Listed(1) {
		t.Errorf("%d bytes take room without the block, listed %v; want %d", got, b.Listed(1), 32*chunkSize)
	}
	last := blockio.Extent{Off: 60*chunkSize - 5, Len: 4*chunkSize + 5 - 100}
	e2 := openEntry(t, newDir(t, roomy), image("a", last.End()))
	b2 := wholeBlocks(t, e2, false)
	b2.Put(0, last, p[last.Off:last.End()])
	if b2.Drop(0, last); e2.Allocated() != chunkSize {
		t.Errorf("without the last block %d bytes take room, want those of a page that is not its own", e2.Allocated())
	}
	for n, at := range blocks {
		got := make([]byte, at.Len)
		if here := b.Get(int64(n), at, got); here != (n != 1) || here && !bytes.Equal(got, p[at.Off:at.End()]) {
			t.Errorf("block %d: here %v", n, here)
		}
	}
}

// A block that is forgotten takes no other with it that is here as chunks.
func TestForgottenBlockLeavesNeighbours(t *testing.T) {
	p := random(64 * chunkSize)
	e := openEntry(t, newDir(t, roomy), image("a", int64(len(p))))
	b, err := e.Blocks([]blockio.Extent{{Len: e.Size()}}, false)
	if err != nil {
		t.Fatal(err)
	}
	small := blockio.Extent{Off: 500, Len: 500}
	large := blockio.Extent{Off: 1000, Len: 10 * chunkSize}
	last := blockio.Extent{Off: large.End(), Len: 64*chunkSize - large.End()}
	fill(e, p)
	has := func(n int64, at blockio.Extent) bool { return b.Get(n, at, make([]byte, at.Len)) }
	if !has(0, small) || !has(1, large) || !has(2, last) {
		t.Fatal("what is here as chunks is not here as blocks")
	}
	b.Forget(1, large)
	if !has(0, small) || has(1, large) || !has(2, last) {
		t.Errorf("without block 1: %v %v %v", has(0, small), has(1, large), has(2, last))
	}
	b.Forget(2, last)
	b.Forget(0, small)
	if has(0, small) || has(2, last) {
		t.Error("what was forgotten is there")
	}
}

// A reader waits for another process's reader, and for nobody's prefetch; a
// prefetch waits for both.
func TestClaimsByClass(t *testing.T) {
	for _, c := range []struct {
		holds, wants blockio.Class
		ok           bool
	}{
		{blockio.Demand, blockio.Demand, false},
		{blockio.Demand, blockio.Fill, false},
		{blockio.Fill, blockio.Demand, true},
		{blockio.Fill, blockio.ReadAhead, false},
	} {
		path := filepath.Join(t.TempDir(), "cache")
		blocks := func() *Blocks {
			b, err := openEntry(t, openDir(t, path, roomy), image("a", 10_000)).Blocks([]blockio.Extent{{Len: 10_000}}, false)
			if err != nil {
				t.Fatal(err)
			}
			return b
		}
		one, two := blocks(), blocks()
		release, ok := one.Claim(blockio.Extent{Off: 1000, Len: 1000}, c.holds)
		if !ok {
			t.Fatal("no claim where there is no other")
		}
		again, ok := two.Claim(blockio.Extent{Off: 1500, Len: 1000}, c.wants)
		if ok != c.ok {
			t.Errorf("while one claims for class %d another may for class %d: %v, want %v", c.holds, c.wants, ok, c.ok)
		}
		if ok {
			again()
		}
		release()
		if again, ok = two.Claim(blockio.Extent{Off: 1500, Len: 1000}, c.wants); !ok {
			t.Errorf("class %d: no claim when the other has let go", c.wants)
		} else {
			again()
		}
	}
}

// What was thrown away is not here, although its sum stays and neighbours that share
// its first and last page have come back.
func TestHereBesideRefilledNeighbours(t *testing.T) {
	p := random(2*mib + 3000)
	size := int64(len(p))
	for name, at := range map[string]blockio.Extent{
		"in one page":           {Off: 5000, Len: 1000},
		"in two pages":          {Off: 5000, Len: 5000},
		"in three pages":        {Off: 5000, Len: 8000},
		"in many pages":         {Off: 5000, Len: 100_000},
		"at the start":          {Off: 0, Len: 100},
		"at the end":            {Off: size - 100, Len: 100},
		"the end's last pages":  {Off: size - 9000, Len: 9000},
		"a little of a region":  {Off: mib - 20_000, Len: 20_100},
		"a little of the other": {Off: mib - 100, Len: 20_000},
	} {
		t.Run(name, func(t *testing.T) {
			d := newDir(t, roomy) // another's entry might go first, in another minute
			e := openEntry(t, d, image(name, size))
			b := wholeBlocks(t, e, false)
			blocks := []blockio.Extent{{Len: at.Off}, at, {Off: at.End(), Len: size - at.End()}}
			put := func(n int) { b.Put(int64(n), blocks[n], p[blocks[n].Off:blocks[n].End()]) }
			for n := range blocks {
				put(n)
			}
			if !b.Here(1, at) {
				t.Error("not here after it was stored")
			}
			evict(t, d, 4*mib, false)
			put(0)
			put(2)
			if b.Here(1, at) {
				t.Error("here after it was thrown away")
			}
			put(1)
			if !b.Here(1, at) {
				t.Error("not here after it was stored again")
			}
		})
	}
}
