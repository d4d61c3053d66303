package cloop

import (
	"context"
	"runtime"
	"sync"
)

// ended is the context of who does not wait.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// ahead decodes what sequential readers will want next: those who come to the end of one
// block after that of the one before.
type ahead struct {
	near  func(n int64) bool
	depth int64 // blocks
	// helpers has a place for each core but one: that is left to readers.
	helpers chan struct{}

	// mu guards the fields below.
	mu      sync.Mutex
	clock   int64
	readers [16]sequence // told apart
}

// sequence is a sequential reader, or one who may become one.
type sequence struct {
	next int64 // the block behind that whose end was read last
	done int64 // the block behind what was decoded for it
	used int64 // when, by ahead.clock
}

// DecodeAhead has sequential readers find up to depth blocks decoded already, of those that
// near says are at hand: on all cores but one, and on that of a reader who waits for one of
// them. Readers of whole blocks need no such help. It must not be called when anybody reads
// already.
func (im *Image) DecodeAhead(near func(n int64) bool, depth int) {
	helpers := runtime.GOMAXPROCS(0) - 1
	if depth > 0 && helpers > 0 {
		im.ahead = &ahead{near: near, depth: int64(depth), helpers: make(chan struct{}, helpers)}
	}
}

// decodeAhead notes a read of n bytes at off, and starts decoding what will follow.
func (im *Image) decodeAhead(off, n int64) {
	bs := int64(im.index.blockSize)
	if im.ahead == nil || n >= bs || off/bs == (off+n)/bs {
		return // most reads of large blocks
	}
	a := im.ahead
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.follow((off+n)/bs - 1)
	for s != nil {
		select {
		case a.helpers <- struct{}{}:
		default:
			return
		}
		n, ok := a.nextLocked(im, s)
		if !ok {
			<-a.helpers
			return
		}
		go a.helpFrom(im, s, n)
	}
}

// follow notes that the end of block n was read, and returns by which sequential reader;
// nil if by none.
func (a *ahead) follow(n int64) *sequence {
	a.clock++
	oldest := &a.readers[0]
	for i := range a.readers {
		s := &a.readers[i]
		if s.used > 0 && s.next == n {
			s.next, s.used = n+1, a.clock
			return s
		}
		if s.used < oldest.used {
			oldest = s
		}
	}
	*oldest = sequence{next: n + 1, used: a.clock}
	return nil
}

// nextLocked is the next block to be decoded for s.
func (a *ahead) nextLocked(im *Image, s *sequence) (n int64, ok bool) {
	end := min(s.next+a.depth, im.index.blocks)
	for s.done = max(s.done, s.next); s.done < end; s.done++ {
		if im.zeros.has(s.done) {
			continue
		}
		if !a.near(s.done) {
			break // for now
		}
		s.done++
		return s.done - 1, true
	}
	return 0, false
}

// helpFrom decodes block n, and what else is to be decoded for s.
func (a *ahead) helpFrom(im *Image, s *sequence, n int64) {
	defer func() { <-a.helpers }()
	for ok := true; ok; {
		im.bring(n)
		a.mu.Lock()
		n, ok = a.nextLocked(im, s)
		a.mu.Unlock()
	}
}

// lend decodes a block for the sequential reader who waits for block n, and says whether
// there was one.
func (im *Image) lend(n int64) bool {
	a := im.ahead
	if a == nil {
		return false
	}
	next, ok := int64(0), false
	a.mu.Lock()
	for i := range a.readers {
		if s := &a.readers[i]; s.used > 0 && s.next == n && s.done > n {
			next, ok = a.nextLocked(im, s)
		}
	}
	a.mu.Unlock()
	if ok {
		im.bring(next)
	}
	return ok
}

// bring decodes block n into memory, unless somebody does. A failure is for who reads the
// block to find.
func (im *Image) bring(n int64) {
	if im.blocks.Reserve(ended, 1) != nil {
		return
	}
	defer im.blocks.Unreserve(1)
	block, load := im.blocks.Acquire(n)
	r := newRead(im, nil, n*int64(im.index.blockSize))
	defer r.recycle()
	r.partial[0], r.partials = partial{n: n, block: block, load: load}, 1
	var err error
	if load {
		err = r.readRun(context.Background(), n, n+1)
	}
	r.release(err)
}
