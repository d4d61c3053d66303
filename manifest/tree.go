package manifest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
	"golang.org/x/sync/semaphore"

	"github.com/cloopfs/cloopfs/blockio"
)

var (
	// ErrHashes says that the file of hashes is not the one that the manifest names.
	ErrHashes = errors.New("the hashes are not those of the manifest")
	// errClosed says that a Tree was closed.
	errClosed = errors.New("the hashes were closed")
)

const (
	// keptPages bounds the memory of a Tree: to 5 MiB, for 8 GiB of a disk in blocks
	// of 64 KiB.
	keptPages = 256
	// maxLoads bounds the pages of level 0 under way, and their memory: to 20 MiB. Those above
	// them are few: 256 share one.
	maxLoads = 1024
	// failTime is how long a page that could not be had is not asked for again: the
	// kernel asks twice for what it did not get.
	failTime = time.Second
)

// Tree is the hashes of an image's blocks, proven by a manifest's root. A page is read when
// something under it is wanted first, once for all who want it, and is believed when the
// page above it, up to the root, proves it. It is safe for concurrent use.
type Tree struct {
	src   blockio.Source
	facts Facts
	root  Hash
	shape shape
	room  *semaphore.Weighted // for pages of level 0 under way

	ctx  context.Context // of all reads; it ends with Close
	stop context.CancelFunc
	wg   sync.WaitGroup

	// mu guards the fields below.
	mu     sync.Mutex
	pages  *simplelru.LRU[place, []byte] // those that were proven
	loads  map[place]*load               // those under way, and those that failed lately
	failed []*load                       // those of loads that failed, the oldest first
}

// place is which page.
type place struct {
	level int
	page  int64
}

// load is the way of a page into memory.
type load struct {
	at    place
	began time.Time
	done  chan struct{} // closed when what follows is known
	page  []byte
	err   error

	// Guarded by Tree.mu.
	wanted bool      // by a reader
	failed time.Time // when; zero if it has not
}

// OpenTree returns the tree of m's image, whose file is src. The error wraps ErrHashes if
// src is not of the right size. src must stay usable until Close has returned.
func OpenTree(src blockio.Source, m *Manifest) (*Tree, error) {
	t := &Tree{
		src: src, facts: m.Facts, root: m.Root, shape: shapeOf(m.Blocks),
		room: semaphore.NewWeighted(maxLoads), loads: make(map[place]*load),
	}
	if size := t.shape.size(); src.Size() != size {
		return nil, fmt.Errorf("%w: %d bytes, and those of %d blocks have %d", ErrHashes, src.Size(), m.Blocks, size)
	}
	var err error
	if t.pages, err = simplelru.NewLRU[place, []byte](keptPages, nil); err != nil {
		panic("manifest: internal error: " + err.Error()) // only for a size below 1
	}
	t.ctx, t.stop = context.WithCancel(context.Background())
	return t, nil
}

// Close ends what is under way.
func (t *Tree) Close() {
	t.mu.Lock()
	t.stop()
	t.mu.Unlock()
	t.wg.Wait()
}

// Top proves the top page: that the file is, at its top, the one that the root names.
func (t *Tree) Top(ctx context.Context) error {
	_, err := t.want(ctx, place{len(t.shape.levels) - 1, 0}, time.Now())
	return err
}

// Leaf is what the tree says of block n, 0 <= n < Blocks. The error wraps ErrHashes if the
// page that says so is not the one that was signed.
func (t *Tree) Leaf(ctx context.Context, n int64) (Leaf, error) {
	return t.leaf(ctx, n, time.Now())
}

// leaf is Leaf for a reader who came at since.
func (t *Tree) leaf(ctx context.Context, n int64, since time.Time) (Leaf, error) {
	page, err := t.want(ctx, place{0, n / fanOut}, since)
	if err != nil {
		return Leaf{}, err
	}
	return leafAt(page[n%fanOut*leafSize:]), nil
}

// have says whether what is said of block n is in memory.
func (t *Tree) have(n int64) (Leaf, bool) {
	t.mu.Lock()
	defer t.mu.Unlock()
	page, ok := t.pages.Get(place{0, n / fanOut})
	if !ok {
		return Leaf{}, false
	}
	return leafAt(page[n%fanOut*leafSize:]), true
}

// Expect has the pages for the blocks [first, first+count) read, if they are not in
// memory, and there is room. Nobody waits for them.
func (t *Tree) Expect(first, count int64) {
	t.mu.Lock()
	defer t.mu.Unlock()
	end := min(first+count, t.facts.Blocks)
	for k := first / fanOut; k*fanOut < end; k++ {
		at := place{0, k}
		if page, l := t.findLocked(at, time.Time{}); page == nil && l == nil && t.room.TryAcquire(1) {
			t.beginLocked(at)
		}
	}
}

// want is a page, for who came at since. He has his own time: what was begun before he came,
// and fails, is begun anew.
func (t *Tree) want(ctx context.Context, at place, since time.Time) ([]byte, error) {
	for {
		page, l, err := t.join(ctx, at, since)
		if l == nil {
			return page, err
		}
		select {
		case <-l.done:
			if l.err == nil || t.counts(l, since) {
				return l.page, l.err
			}
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
}

// join returns the page if it is in memory, else its load. Who has to begin one waits for room.
func (t *Tree) join(ctx context.Context, at place, since time.Time) ([]byte, *load, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	page, l := t.findLocked(at, since)
	if page == nil && l == nil && at.level == 0 && !t.room.TryAcquire(1) {
		t.mu.Unlock()
		err := t.room.Acquire(ctx, 1)
		t.mu.Lock()
		if err != nil {
			return nil, nil, err
		}
		if page, l = t.findLocked(at, since); page != nil || l != nil {
			t.room.Release(1) // somebody else was faster
		}
	}
	if page != nil {
		return page, nil, nil
	}
	if l == nil {
		l = t.beginLocked(at)
	}
	l.wanted = l.wanted || at.level == 0
	return nil, l, nil
}

// findLocked returns the page if it is in memory, else its load, unless that has failed and
// does not count for who came at since.
func (t *Tree) findLocked(at place, since time.Time) ([]byte, *load) {
	if page, ok := t.pages.Get(at); ok {
		return page, nil
	}
	for len(t.failed) > 0 && time.Since(t.failed[0].failed) > failTime {
		if old := t.failed[0]; t.loads[old.at] == old {
			delete(t.loads, old.at)
		}
		t.failed = t.failed[1:]
	}
	l := t.loads[at]
	if l != nil && !l.failed.IsZero() && !l.countsLocked(since) {
		return nil, nil
	}
	return nil, l
}

func (t *Tree) counts(l *load, since time.Time) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return l.countsLocked(since)
}

// countsLocked says whether the failure of l is that of a reader who came at since: he was
// there when it began, or he asks for what has just failed for a reader.
func (l *load) countsLocked(since time.Time) bool {
	return !l.began.Before(since) || l.wanted && !l.failed.After(since)
}

// beginLocked begins to bring a page. There is room for it.
func (t *Tree) beginLocked(at place) *load {
	l := &load{at: at, began: time.Now(), done: make(chan struct{})}
	if t.ctx.Err() != nil {
		l.err = errClosed
		close(l.done)
		t.leave(at)
		return l
	}
	t.loads[at] = l
	t.wg.Go(func() { t.bring(l) })
	return l
}

// leave gives back the room of a page.
func (t *Tree) leave(at place) {
	if at.level == 0 {
		t.room.Release(1)
	}
}

// bring reads and proves a page. The page above it is on its way at the same time.
func (t *Tree) bring(l *load) {
	defer t.leave(l.at)
	if l.at.level < len(t.shape.levels)-1 {
		t.wg.Go(func() { _, _ = t.want(t.ctx, l.at.above(), l.began) })
	}
	page, err := t.prove(l)
	t.mu.Lock()
	defer t.mu.Unlock()
	if err == nil {
		l.page = page
		t.pages.Add(l.at, page)
		delete(t.loads, l.at)
	} else {
		l.err, l.failed = err, time.Now()
		t.failed = append(t.failed, l)
	}
	close(l.done)
}

// above is the page that proves a page.
func (p place) above() place { return place{p.level + 1, p.page / nodeFanOut} }

// prove reads a page, and once more if it is not what the page above it says: it may have
// been damaged on its way.
func (t *Tree) prove(l *load) ([]byte, error) {
	page, err := t.read(l.at, false)
	if err != nil {
		return nil, err
	}
	right, err := t.proven(l, page)
	if err != nil || right {
		return page, err
	}
	if page, err = t.read(l.at, true); err != nil {
		return nil, err
	}
	if right, err = t.proven(l, page); err == nil && !right {
		err = &pageError{l.at.level, l.at.page}
	}
	return page, err
}

// read reads a page; again is past all that keeps what came before.
func (t *Tree) read(at place, again bool) ([]byte, error) {
	e := t.shape.page(at.level, at.page)
	page := make([]byte, e.Len)
	var err error
	if again {
		_, err = blockio.ReadAgain(t.ctx, t.src, page, e.Off)
	} else {
		_, err = t.src.ReadAtContext(t.ctx, page, e.Off)
	}
	if err != nil {
		return nil, fmt.Errorf("read the hashes: %w", err)
	}
	return page, nil
}

// proven says whether a page that was brought is what the page above it says; of the top
// page, the root.
func (t *Tree) proven(l *load, page []byte) (bool, error) {
	at := l.at
	sum := hashPage(at.level, at.page, page)
	if at.level == len(t.shape.levels)-1 {
		return t.facts.root(sum) == t.root, nil
	}
	parent, err := t.want(t.ctx, at.above(), l.began)
	if err != nil {
		return false, err
	}
	return Hash(parent[at.page%nodeFanOut*nodeSize:][:nodeSize]) == sum, nil
}
