package httpblock

import (
	"hash/maphash"
	"sync"

	"github.com/cloopfs/cloopfs/blockio"
)

// Samples are small pieces of the file that have been read, by their hashes:
// enough to tell whether what is found elsewhere is the same file.
const (
	sampleCount = 4
	sampleSize  = 4 << 10 // bytes at the start of a response
)

// sample is a piece of the file.
type sample struct {
	extent blockio.Extent // empty: there is none
	sum    uint64
}

// samples are the latest samples.
type samples struct {
	seed maphash.Seed // so that nobody can make other bytes with the same hash

	// mu guards the fields below.
	mu   sync.Mutex
	ring [sampleCount]sample
	next int
}

func (s *samples) sum(p []byte) uint64 { return maphash.Bytes(s.seed, p) }

func (s *samples) add(one sample) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.ring[s.next] = one
	s.next = (s.next + 1) % sampleCount
}

// forget drops what was taken of e: those bytes were no good.
func (s *samples) forget(e blockio.Extent) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i, one := range s.ring {
		if one.extent.Off < e.End() && e.Off < one.extent.End() {
			s.ring[i] = sample{}
		}
	}
}

// latest returns the samples.
func (s *samples) latest() [sampleCount]sample {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.ring
}

// sampling takes a sample of a response while that is read. The zero value takes
// none. It is not safe for concurrent use.
type sampling struct {
	to     *samples
	extent blockio.Extent
	left   int64
	hash   maphash.Hash
}

// begin begins a sample of the first bytes of a response.
func (m *sampling) begin(to *samples, s span) {
	m.to, m.extent = to, blockio.Extent{Off: s.off, Len: min(s.n, sampleSize)}
	m.left = m.extent.Len
	m.hash.SetSeed(to.seed)
}

// add is told the next bytes of the response.
func (m *sampling) add(p []byte) {
	if m.left == 0 {
		return
	}
	p = p[:min(int64(len(p)), m.left)]
	m.hash.Write(p)
	m.left -= int64(len(p))
	if m.left == 0 {
		m.to.add(sample{m.extent, m.hash.Sum64()})
	}
}
