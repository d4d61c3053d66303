package overlay

import (
	"math/rand/v2"
	"testing"
)

// The map in memory says what an array of bools says, whatever was set, also when it
// has been written and read again.
func TestClusters(t *testing.T) {
	const end = 3*pageClusters + 100
	for seed := range uint64(4) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		m, disk, want := newClusters(), newMemFile(mapSize(end*clusterSize)), make([]bool, end)
		// Mostly where two pages meet, where a byte does, or anywhere.
		place := func() int64 {
			switch rnd.IntN(3) {
			case 0:
				return min(end, pageClusters*rnd.Int64N(4)+max(0, rnd.Int64N(20)-10))
			case 1:
				return min(end, 8*rnd.Int64N(end/8))
			}
			return rnd.Int64N(end + 1)
		}
		check := func() {
			t.Helper()
			count := int64(0)
			for _, here := range want {
				if here {
					count++
				}
			}
			for range 1000 {
				if c := min(place(), end-1); m.has(c) != want[c] {
					t.Fatalf("seed %d: cluster %d is here: %v, want %v", seed, c, !want[c], want[c])
				}
			}
			if m.len() != count {
				t.Fatalf("seed %d: %d clusters are here, want %d", seed, m.len(), count)
			}
			for range 20 {
				first := min(place(), end-1)
				last := first + 1 + rnd.Int64N(end-first)
				n := first + 1
				for n < last && want[n] == want[first] {
					n++
				}
				if got, here := m.run(first, last); got != n-first || here != want[first] {
					t.Fatalf("seed %d: from %d to %d, %d are alike, %v; want %d, %v", seed, first, last, got, here, n-first, want[first])
				}
			}
		}
		for range 6 {
			from, to := place(), place()
			from, to = min(from, to), max(from, to)
			m.set(from, to)
			for c := from; c < to; c++ {
				want[c] = true
			}
			check()
			if rnd.IntN(2) > 0 {
				continue
			}
			for k, p := range m.take() {
				if _, err := disk.WriteAt(p[:], k*pageSize); err != nil {
					t.Fatal(err)
				}
			}
			if n := len(m.take()); n > 0 {
				t.Fatalf("seed %d: %d pages are to be written once more", seed, n)
			}
			m = newClusters()
			if err := m.read(disk, end); err != nil {
				t.Fatal(err)
			}
			check()
		}
	}
}

// A trim of a whole disk costs no memory but for its ends, also when it has been written
// and read, and what is there is not written again.
func TestTrimTakesNoMemory(t *testing.T) {
	const pages = 1 << 14
	m := newClusters()
	m.set(3, pages*pageClusters-3)
	again := newClusters()
	for k, p := range m.take() {
		read := *p
		again.load(k, &read)
	}
	for _, m := range []*clusters{&m, &again} {
		m.set(3, pages*pageClusters-3)
		if n := m.len(); n != pages*pageClusters-6 {
			t.Errorf("%d clusters", n)
		}
		own := make(map[*page]bool)
		for _, p := range m.pages {
			own[p] = true
		}
		if len(own) != 3 {
			t.Errorf("%d pages in memory, want the two ends and one for all between", len(own))
		}
		if n := len(m.take()); n != 0 {
			t.Errorf("%d pages to be written, want none", n)
		}
	}
	m.set(0, pages*pageClusters)
	if n := len(m.take()); n != 2 {
		t.Errorf("%d pages to be written, want those of the ends", n)
	}
}
