package overlay

import (
	"bytes"
	"math/bits"
	"sync"
)

const (
	// clusterSize is how many bytes of the disk a bit of the map stands for: a
	// page of the kernel, and a block of most file systems.
	clusterSize = 4 << 10
	// pageSize is how much of the map is written at a time.
	pageSize = 4 << 10
	// pageClusters is how many clusters a page of the map stands for: 128 MiB.
	pageClusters = 8 * pageSize
)

// page is a page of the map: cluster c's bit is bit c%8, counted from the lowest, of
// byte c/8.
type page [pageSize]byte

// full is the page of a stretch that is in the overlay as a whole. It is shared, as
// bits are never taken back.
var full = func() *page {
	p := new(page)
	copy(p[:], bytes.Repeat([]byte{0xff}, pageSize))
	return p
}()

// clusters is the map in memory. The zero value, with pages made, has no cluster. It
// is safe for concurrent use.
type clusters struct {
	mu    sync.RWMutex
	pages map[int64]*page // those with a bit set
	count int64           // bits that are set
	fresh map[int64]bool  // pages with bits that have not been written yet
}

func newClusters() clusters {
	return clusters{pages: make(map[int64]*page), fresh: make(map[int64]bool)}
}

func (m *clusters) has(c int64) bool {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.hasLocked(c)
}

func (m *clusters) hasLocked(c int64) bool {
	p := m.pages[c/pageClusters]
	return p != nil && p[c%pageClusters/8]>>(c%8)&1 == 1
}

// run says whether cluster first is here, and how many from there to end are alike.
func (m *clusters) run(first, end int64) (n int64, here bool) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	here = m.hasLocked(first)
	c := first + 1
	for c < end {
		switch p := m.pages[c/pageClusters]; {
		case p == nil || p == full: // all of the page is alike
			if (p == full) != here {
				return c - first, here
			}
			c = (c/pageClusters + 1) * pageClusters
		case m.hasLocked(c) != here:
			return c - first, here
		default:
			c++
		}
	}
	return min(c, end) - first, here
}

// set says that clusters [first, end) are here.
func (m *clusters) set(first, end int64) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for first < end {
		k := first / pageClusters
		to := min((k+1)*pageClusters, end)
		m.setLocked(k, first-k*pageClusters, to-k*pageClusters)
		first = to
	}
}

// setLocked sets bits [from, to) of page k.
func (m *clusters) setLocked(k, from, to int64) {
	p := m.pages[k]
	switch {
	case p == full:
		return
	case from == 0 && to == pageClusters:
		m.count += pageClusters - p.count()
		m.pages[k], m.fresh[k] = full, true
		return
	case p == nil:
		p = new(page)
		m.pages[k] = p
	}
	for c := from; c < to; c++ {
		if bit := byte(1) << (c % 8); p[c/8]&bit == 0 {
			p[c/8] |= bit
			m.count++
			m.fresh[k] = true
		}
	}
}

// count is the number of bits that are set; p may be nil.
func (p *page) count() (n int64) {
	if p == nil {
		return 0
	}
	for _, b := range p {
		n += int64(bits.OnesCount8(b))
	}
	return n
}

// load sets the bits of page k, which are on the disk.
func (m *clusters) load(k int64, p *page) {
	n := p.count()
	switch n {
	case 0:
		return
	case pageClusters:
		p = full
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	m.pages[k] = p
	m.count += n
}

// take returns the pages that have bits that have not been written, as they are
// now. They are not to be changed.
func (m *clusters) take() map[int64]*page {
	m.mu.Lock()
	defer m.mu.Unlock()
	taken := make(map[int64]*page, len(m.fresh))
	for k := range m.fresh {
		taken[k] = full
		if m.pages[k] != full {
			p := *m.pages[k]
			taken[k] = &p
		}
	}
	clear(m.fresh)
	return taken
}

// putBack says that pages that were taken have not been written.
func (m *clusters) putBack(taken map[int64]*page) {
	m.mu.Lock()
	defer m.mu.Unlock()
	for k := range taken {
		m.fresh[k] = true
	}
}

// len is the number of clusters that are here.
func (m *clusters) len() int64 {
	m.mu.RLock()
	defer m.mu.RUnlock()
	return m.count
}
