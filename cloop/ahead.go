package cloop

import (
	"errors"
	"runtime"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/cloopfs/cloopfs/blockio"
)

// errPassedOn is published of a block that was not loaded for no fault of its own, or could
// not be decoded ahead: who wants it tries for himself.
var errPassedOn = errors.New("left to who wants it")

// ahead decodes what sequential readers will want next: those who come to the end of one
// block after that of the one before.
type ahead struct {
	from  blockio.Taker
	depth int // of blocks that are taken, of all readers together
	// helpers has a place for each core but one: that is left to readers.
	helpers chan struct{}

	// mu guards the fields below.
	mu      sync.Mutex
	clock   int64 // block ends that were read
	readers [16]sequence
	taken   []taken     // and not read yet, the first first
	some    atomic.Bool // there are some taken; may be read without mu
}

// sequence is a sequential reader, or one who may become one.
type sequence struct {
	next    int64 // the block behind that whose end was read last
	done    int64 // the block behind what was taken for it
	used    int64 // when, by ahead.clock; 0 if never
	inOrder bool
	stalled bool // what comes next could not be taken, at the last block end
}

// taken is a block that is decoded ahead.
type taken struct {
	n     int64
	since int64 // by ahead.clock
}

// maxTaken is after how many block ends nobody is expected any more to read what was taken.
const maxTaken = 64

// DecodeAhead has sequential readers find the next blocks decoded already, if the Runs of
// the image is a [blockio.Taker]: depth of them, of all readers together. They are decoded
// on all cores but one, and on that of a reader who waits for one of them. Readers of whole
// blocks need no such help. It must not be called when anybody reads already.
func (im *Image) DecodeAhead(depth int) {
	from, ok := im.runs.(blockio.Taker)
	helpers := runtime.GOMAXPROCS(0) - 1
	if ok && depth > 0 && helpers > 0 {
		im.ahead = &ahead{from: from, depth: depth, helpers: make(chan struct{}, helpers)}
	}
}

// decodeAhead notes a read of n bytes at off, and starts decoding what will follow.
func (im *Image) decodeAhead(off, n int64) {
	bs := int64(im.index.blockSize)
	if im.ahead == nil || n >= bs || off/bs == (off+n)/bs {
		return // most reads of large blocks
	}
	a := im.ahead
	for more := a.follow((off+n)/bs - 1); more; {
		select {
		case a.helpers <- struct{}{}:
		default:
			return
		}
		n, ok := a.next(im)
		if !ok {
			<-a.helpers
			return
		}
		go func() {
			defer func() { <-a.helpers }()
			for ok := true; ok; {
				if ok = a.bring(im, n); ok {
					n, ok = a.next(im)
				}
			}
		}()
	}
}

// follow notes that the end of block n was read, and says whether by a sequential reader.
func (a *ahead) follow(n int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.clock++
	oldest := &a.readers[0]
	for i := range a.readers {
		s := &a.readers[i]
		if s.used > 0 && s.next == n {
			s.next, s.used, s.inOrder, s.stalled = n+1, a.clock, true, false
			return true
		}
		if s.used < oldest.used {
			oldest = s
		}
	}
	*oldest = sequence{next: n + 1, used: a.clock}
	return false
}

// next is the next block to be decoded ahead, for the sequential reader who was seen last
// of those who have not all that they may.
func (a *ahead) next(im *Image) (n int64, ok bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taken = slices.DeleteFunc(a.taken, func(t taken) bool { return a.clock-t.since > maxTaken })
	a.some.Store(len(a.taken) > 0)
	if len(a.taken) >= a.depth {
		return 0, false
	}
	var best *sequence
	for i := range a.readers {
		s := &a.readers[i]
		if !s.inOrder || s.stalled || best != nil && s.used < best.used {
			continue
		}
		end := min(s.next+int64(a.depth), im.index.blocks)
		for s.done = max(s.done, s.next); s.done < end && (im.zeros.has(s.done) || a.findLocked(s.done) >= 0); {
			s.done++
		}
		if s.done < end {
			best = s
		}
	}
	if best == nil {
		return 0, false
	}
	best.done++
	a.taken = append(a.taken, taken{best.done - 1, a.clock})
	a.some.Store(true)
	return best.done - 1, true
}

// findLocked is where block n is among those taken, -1 if nowhere.
func (a *ahead) findLocked(n int64) int {
	return slices.IndexFunc(a.taken, func(t taken) bool { return t.n == n })
}

// drop says that block n is not taken any more, and whether it was.
func (a *ahead) drop(n int64) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	i := a.findLocked(n)
	if i >= 0 {
		a.taken = slices.Delete(a.taken, i, i+1)
		a.some.Store(len(a.taken) > 0)
	}
	return i >= 0
}

// bring decodes block n, which next has named, into memory. If it is not at hand, or bad,
// that is left for later or to its reader.
func (a *ahead) bring(im *Image, n int64) bool {
	if a.from.Take(n, im.keep) {
		if im.zeros.has(n) {
			im.had(n) // nobody will: its reader finds it among the zeros
		}
		return true
	}
	a.drop(n)
	a.mu.Lock()
	defer a.mu.Unlock()
	for i := range a.readers {
		if s := &a.readers[i]; s.next <= n && n < s.done {
			s.done, s.stalled = n, true
		}
	}
	return false
}

// keep decodes block n into memory, unless it is there, somebody does, or there is no room.
func (im *Image) keep(n int64, stored []byte) error {
	_, c, err := im.index.entry(blockio.AtOnce, n)
	if err != nil {
		return err
	}
	if !im.blocks.TryReserve() {
		return errPassedOn
	}
	defer im.blocks.Unreserve()
	block, load := im.blocks.Acquire(n)
	defer block.Release()
	if !load {
		return nil
	}
	empty, err := im.decode(n, c, block.Bytes(), stored)
	switch {
	case err != nil:
		block.Publish(errPassedOn)
	case empty:
		block.Publish(errZeros)
	default:
		block.Publish(nil)
	}
	return err
}

// Close ends decoding ahead: what [blockio.Taker] takes from may be closed after that.
// Reads that are under way go on.
func (im *Image) Close() {
	if im.ahead == nil {
		return
	}
	for range cap(im.ahead.helpers) { // each place, when its helper has ended
		im.ahead.helpers <- struct{}{}
	}
}

// loaded notes that a reader has loaded block n by himself.
func (im *Image) loaded(n int64) {
	if a := im.ahead; a != nil && a.some.Load() {
		a.drop(n)
	}
}

// had tells that a reader has found block n in memory, if it was taken.
func (im *Image) had(n int64) {
	if a := im.ahead; a != nil && a.some.Load() && a.drop(n) {
		a.from.Had(n)
	}
}

// lend decodes another block for the reader who waits for block n, which is being decoded
// ahead, and says whether there was one.
func (im *Image) lend(n int64) bool {
	a := im.ahead
	if a == nil {
		return false
	}
	a.mu.Lock()
	waiting := a.findLocked(n) >= 0
	a.mu.Unlock()
	if !waiting {
		return false
	}
	next, ok := a.next(im)
	return ok && a.bring(im, next)
}
