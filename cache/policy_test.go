package cache_test

import (
	"bufio"
	"compress/gzip"
	"fmt"
	"os"
	"testing"

	lru "github.com/hashicorp/golang-lru/v2"

	"github.com/cloopfs/cloopfs/cache"
)

// On the reads of a booting guest, Memory loads at most a twentieth more blocks
// than 2Q in the same memory. With -v the test prints the loads of both, and
// the fewest that any policy could do with; see
// docs/decisions/0004-which-blocks-stay-in-memory.md.
func TestMemoryLoadsHardlyMoreThan2Q(t *testing.T) {
	for _, log := range []string{"boot-direct", "boot-buffered"} {
		reads := loadReads(t, "testdata/"+log+".txt.gz")
		for _, blockSize := range []int64{64 << 10, 256 << 10, 1 << 20} {
			for _, mib := range []int64{4, 8, 16, 32, 64, 128} {
				blocks := int(mib << 20 / blockSize)
				memory := loads(reads, blockSize, memoryStore{cache.NewMemory(int64(blocks), 1)})
				other := loads(reads, blockSize, newTwoQueueStore(t, blocks))
				t.Logf("%-13s %4d KiB blocks, %3d MiB: Memory %3d, 2Q %3d, no fewer than %3d",
					log, blockSize>>10, mib, memory, other, fewest(reads, blockSize, blocks))
				if memory*20 > other*21 {
					t.Errorf("%s, %d KiB blocks, %d MiB: %d loads, 2Q has %d", log, blockSize>>10, mib, memory, other)
				}
			}
		}
	}
}

// diskRead is a read of a disk, in bytes.
type diskRead struct{ off, n int64 }

// loadReads reads a log: a read a line, its offset and its length.
func loadReads(t *testing.T, name string) (reads []diskRead) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	lines := bufio.NewScanner(z)
	for lines.Scan() {
		var r diskRead
		if _, err := fmt.Sscan(lines.Text(), &r.off, &r.n); err != nil {
			t.Fatalf("%s: %q: %v", name, lines.Text(), err)
		}
		reads = append(reads, r)
	}
	if err := lines.Err(); err != nil {
		t.Fatal(err)
	}
	return reads
}

// store is a policy at work.
type store interface {
	// use says whether block n is in memory.
	use(n int64) bool
	// put adds block n, which is not in memory.
	put(n int64)
}

// loads is the number of blocks loaded if the reads come one after another,
// by the rules of cloop.Image: the first and the last block are looked at
// first if the read covers them in part, and only such blocks are kept.
func loads(reads []diskRead, blockSize int64, s store) (count int) {
	for _, r := range reads {
		end := r.off + r.n
		first, last := r.off/blockSize, (end-1)/blockSize
		inPart := func(n int64) bool { return n*blockSize < r.off || (n+1)*blockSize > end }
		firstDone := inPart(first) && s.use(first)
		lastDone := last > first && inPart(last) && s.use(last)
		for n := first; n <= last; n++ {
			if n == first && firstDone || n == last && lastDone || s.use(n) {
				continue
			}
			count++
			if inPart(n) {
				s.put(n)
			}
		}
	}
	return count
}

// fewest is the number of loads of a policy that knows the future, and may
// keep blocks covered whole too: none has fewer.
func fewest(reads []diskRead, blockSize int64, size int) (count int) {
	var uses []int64
	for _, r := range reads {
		for n := r.off / blockSize; n*blockSize < r.off+r.n; n++ {
			uses = append(uses, n)
		}
	}
	next := make([]int, len(uses)) // use i's block is used again at next[i]
	seen := make(map[int64]int)
	for i := len(uses) - 1; i >= 0; i-- {
		next[i] = len(uses)
		if j, ok := seen[uses[i]]; ok {
			next[i] = j
		}
		seen[uses[i]] = i
	}
	held := make(map[int64]int) // block to its next use
	for i, n := range uses {
		if _, ok := held[n]; !ok {
			count++
		}
		held[n] = next[i]
		if len(held) <= size {
			continue
		}
		drop := n
		for m, use := range held {
			if use > held[drop] {
				drop = m
			}
		}
		delete(held, drop)
	}
	return count
}

type memoryStore struct{ m *cache.Memory }

func (s memoryStore) use(n int64) bool {
	b, ok := s.m.Peek(n)
	if ok {
		b.Release()
	}
	return ok
}

func (s memoryStore) put(n int64) {
	b, _ := s.m.Acquire(n)
	b.Publish(nil)
	b.Release()
}

type twoQueueStore struct {
	c *lru.TwoQueueCache[int64, struct{}]
}

func newTwoQueueStore(t *testing.T, size int) twoQueueStore {
	t.Helper()
	c, err := lru.New2Q[int64, struct{}](size)
	if err != nil {
		t.Fatal(err)
	}
	return twoQueueStore{c}
}

func (s twoQueueStore) use(n int64) bool {
	_, ok := s.c.Get(n)
	return ok
}

func (s twoQueueStore) put(n int64) { s.c.Add(n, struct{}{}) }
