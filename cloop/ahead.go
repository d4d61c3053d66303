package cloop

import (
	"context"
	"runtime"
	"slices"
	"sync"
)

// maxSequences is how many sequential readers are told apart.
const maxSequences = 16

// ended is the context of who does not wait.
var ended = func() context.Context {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	return ctx
}()

// ahead decodes what sequential readers will want next. A nil ahead does nothing.
type ahead struct {
	near  func(n int64) bool
	depth int64 // blocks
	// helpers has a place for each core but one: that is left to readers.
	helpers chan struct{}

	// mu guards the field below.
	mu        sync.Mutex
	sequences []*sequence // the last read first
}

// sequence is a sequential reader.
type sequence struct {
	next   int64 // the byte behind what it has read
	length int64 // how many bytes that are
	done   int64 // the block behind what was decoded for it
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

// decodeAhead notes a read of n bytes at off, and starts decoding what will follow. It
// returns the sequential reader; nil if it is none.
func (im *Image) decodeAhead(off, n int64) *sequence {
	bs := int64(im.index.blockSize)
	if im.ahead == nil || n >= bs {
		return nil
	}
	a := im.ahead
	a.mu.Lock()
	defer a.mu.Unlock()
	s := a.follow(off, n, bs/4)
	if s.length < bs {
		return nil
	}
	for {
		select {
		case a.helpers <- struct{}{}:
		default:
			return s
		}
		n, ok := a.nextLocked(im, s)
		if !ok {
			<-a.helpers
			return s
		}
		go func() {
			defer func() { <-a.helpers }()
			for im.bring(n); a.lend(im, s); {
			}
		}()
	}
}

// nextLocked is the next block to be decoded for s.
func (a *ahead) nextLocked(im *Image, s *sequence) (n int64, ok bool) {
	at := (s.next - 1) / int64(im.index.blockSize)
	end := min(at+1+a.depth, im.index.blocks)
	for s.done = max(s.done, at+1); s.done < end; s.done++ {
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

// lend decodes the next block for s, and says whether there was one.
func (a *ahead) lend(im *Image, s *sequence) bool {
	a.mu.Lock()
	n, ok := a.nextLocked(im, s)
	a.mu.Unlock()
	if ok {
		im.bring(n)
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
	r := read{im: im, off: n * int64(im.index.blockSize), partial: [2]partial{{n: n, block: block, load: load}}, partials: 1}
	var err error
	if load {
		err = r.readRun(context.Background(), n, n+1)
	}
	r.release(err)
}

// follow notes a read of a sequential reader, or of one who may become one. He may go back
// or skip so many bytes: the kernel's own read-ahead sends its requests out of order.
func (a *ahead) follow(off, n, slack int64) *sequence {
	i := slices.IndexFunc(a.sequences, func(s *sequence) bool {
		return off >= s.next-slack && off <= s.next+slack
	})
	end := off + n
	s := &sequence{next: end, length: n}
	if i >= 0 {
		s = a.sequences[i]
		a.sequences = slices.Delete(a.sequences, i, i+1)
		s.length += max(0, min(n, end-s.next))
		s.next = max(s.next, end)
	}
	a.sequences = slices.Insert(a.sequences, 0, s)
	a.sequences = a.sequences[:min(len(a.sequences), maxSequences)]
	return s
}
