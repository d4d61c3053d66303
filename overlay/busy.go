package overlay

import (
	"context"
	"slices"
	"sync"
)

// busy is the clusters that are being written: each by one writer at a time, who may
// have to wait for what lies below. The zero value is ready.
type busy struct {
	mu   sync.Mutex
	held []*hold
}

// hold is a writer's clusters [first, end).
type hold struct {
	first, end int64
	done       chan struct{} // closed by release
}

// lock waits until nobody holds any of the clusters [first, end), or ctx ends.
func (b *busy) lock(ctx context.Context, first, end int64) (release func(), err error) {
	h := &hold{first: first, end: end, done: make(chan struct{})}
	for {
		other := b.take(h)
		if other == nil {
			return func() { b.release(h) }, nil
		}
		select {
		case <-other.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// take holds h, unless another is in its way, which it returns.
func (b *busy) take(h *hold) *hold {
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, other := range b.held {
		if other.first < h.end && h.first < other.end {
			return other
		}
	}
	b.held = append(b.held, h)
	return nil
}

func (b *busy) release(h *hold) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.held = slices.DeleteFunc(b.held, func(other *hold) bool { return other == h })
	close(h.done)
}
