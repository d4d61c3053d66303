package cache

import (
	"context"
	"sync"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/semaphore"

	"github.com/cloopfs/cloopfs/blockio"
)

// Memory holds decoded blocks, the least recently used dropped first. It
// implements [blockio.BlockCache].
//
// Its buffers are counted references: a block that is dropped while a reader
// holds it goes back to the pool when the reader is done, so Memory's size is
// its bound plus what readers fill or copy at the moment.
type Memory struct {
	blockSize int
	places    sync.Pool // of *memoryBlock
	buffers   sync.Pool // of *buffer
	loads     *semaphore.Weighted

	// mu guards the fields below and the refs of every block.
	mu      sync.Mutex
	loaded  *simplelru.LRU[int64, *memoryBlock]
	loading map[int64]*memoryBlock
	stats   MemoryStats
}

// MemoryStats is the use that was made of a Memory.
type MemoryStats struct {
	Blocks int   // that it holds
	Bytes  int64 // of these
	Hits   int64 // blocks that were wanted and there, or being loaded
	Loads  int64 // blocks that had to be loaded
}

// Stats says what use was made of the memory so far.
func (m *Memory) Stats() MemoryStats {
	m.mu.Lock()
	defer m.mu.Unlock()
	s := m.stats
	s.Blocks = m.loaded.Len()
	s.Bytes = int64(s.Blocks) * int64(m.blockSize)
	return s
}

// NewMemory returns a Memory of at most size bytes for blocks of blockSize
// bytes each. It always holds at least one block, and lets two be filled.
func NewMemory(size int64, blockSize int) *Memory {
	blocks := int(max(1, size/int64(blockSize)))
	m := &Memory{
		blockSize: blockSize,
		loads:     semaphore.NewWeighted(int64(max(2, blocks))),
		loading:   make(map[int64]*memoryBlock),
	}
	lru, err := simplelru.NewLRU(blocks, func(_ int64, b *memoryBlock) { b.unrefLocked() })
	if err != nil {
		panic("cache: internal error: " + err.Error()) // only for a size below 1
	}
	m.loaded = lru
	return m
}

// Peek returns block n if it is loaded.
func (m *Memory) Peek(n int64) (blockio.CachedBlock, bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.loaded.Get(n)
	if !ok {
		return nil, false
	}
	m.stats.Hits++
	b.refs++
	return b, true
}

// Reserve waits until another block may be filled: at a time, as many as Memory may hold.
func (m *Memory) Reserve() {
	_ = m.loads.Acquire(context.Background(), 1) // fails with its context only
}

// TryReserve is Reserve for who does not wait.
func (m *Memory) TryReserve() bool { return m.loads.TryAcquire(1) }

// Unreserve ends what Reserve began.
func (m *Memory) Unreserve() { m.loads.Release(1) }

// Acquire returns block n, to be loaded by the caller if load is true.
func (m *Memory) Acquire(n int64) (block blockio.CachedBlock, load bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	b, ok := m.loaded.Get(n)
	if !ok {
		b, ok = m.loading[n]
	}
	if !ok {
		b = m.newBlock(n)
		m.loading[n] = b
		m.stats.Loads++
	} else {
		m.stats.Hits++
	}
	b.refs++
	return b, !ok
}

func (m *Memory) newBlock(n int64) *memoryBlock {
	b, ok := m.places.Get().(*memoryBlock)
	if !ok {
		b = new(memoryBlock)
	}
	*b = memoryBlock{memory: m, n: n}
	return b
}

// buffer is what a block is decoded into.
type buffer struct{ bytes []byte }

// memoryBlock is one block's place.
type memoryBlock struct {
	memory *Memory
	n      int64
	buffer *buffer // nil until the loader fills it: while it waits for the network there is none

	// Guarded by memory.mu.
	refs   int           // holders, and one for the LRU
	loaded bool          // Publish was called
	err    error         // with this
	ready  chan struct{} // closed by Publish; nil while nobody waits
}

func (b *memoryBlock) Bytes() []byte {
	if b.buffer == nil {
		var ok bool
		if b.buffer, ok = b.memory.buffers.Get().(*buffer); !ok {
			b.buffer = &buffer{make([]byte, b.memory.blockSize)}
		}
	}
	return b.buffer.bytes
}

func (b *memoryBlock) Discard() {
	if b.buffer != nil {
		b.memory.buffers.Put(b.buffer)
		b.buffer = nil
	}
}

func (b *memoryBlock) Publish(err error) {
	b.memory.mu.Lock()
	defer b.memory.mu.Unlock()
	delete(b.memory.loading, b.n)
	if err == nil {
		b.refs++
		b.memory.loaded.Add(b.n, b)
	}
	b.loaded, b.err = true, err
	if b.ready != nil {
		close(b.ready)
	}
}

func (b *memoryBlock) Wait(ctx context.Context) error {
	ready, err := b.state()
	if ready == nil {
		return err
	}
	select {
	case <-ready:
		_, err = b.state()
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// state is what became of loading the block, or what to wait for.
func (b *memoryBlock) state() (wait <-chan struct{}, err error) {
	b.memory.mu.Lock()
	defer b.memory.mu.Unlock()
	if !b.loaded && b.ready == nil {
		b.ready = make(chan struct{})
	}
	if b.loaded {
		return nil, b.err
	}
	return b.ready, nil
}

func (b *memoryBlock) Release() {
	b.memory.mu.Lock()
	defer b.memory.mu.Unlock()
	b.unrefLocked()
}

// unrefLocked drops one reference, and recycles place and buffer after the last.
func (b *memoryBlock) unrefLocked() {
	if b.refs--; b.refs > 0 {
		return
	}
	b.Discard()
	b.memory.places.Put(b)
}
