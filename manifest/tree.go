package manifest

import (
	"context"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"

	"github.com/cloopfs/cloopfs/blockio"
)

var (
	// ErrHashes says that the file of hashes is not the one that the manifest names.
	ErrHashes = errors.New("the hashes are not those of the manifest")
	// errClosed says that a Tree was closed.
	errClosed = errors.New("the hashes were closed")
	// errBusy says that too many pages are waited for.
	errBusy = errors.New("too many hashes are waited for")
)

const (
	// keptPages bounds the memory of a Tree: to 5 MiB, for 8 GiB of a disk in blocks
	// of 64 KiB.
	keptPages = 256
	// maxLoads bounds the pages under way, and their memory: to 20 MiB.
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
	done  chan struct{} // closed when what follows is known
	page  []byte
	err   error
	until time.Time // when a failure is forgotten
}

// OpenTree returns the tree of m's image, whose file is src. The error wraps ErrHashes if
// src is not of the right size. src must stay usable until Close has returned.
func OpenTree(src blockio.Source, m *Manifest) (*Tree, error) {
	t := &Tree{src: src, facts: m.Facts, root: m.Root, shape: shapeOf(m.Blocks), loads: make(map[place]*load)}
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
	_, err := t.want(ctx, place{len(t.shape.levels) - 1, 0})
	return err
}

// Leaf is what the tree says of block n, 0 <= n < Blocks. The error wraps ErrHashes if the
// page that says so is not the one that was signed.
func (t *Tree) Leaf(ctx context.Context, n int64) (Leaf, error) {
	page, err := t.want(ctx, place{0, n / fanOut})
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
// memory. Nobody waits for them.
func (t *Tree) Expect(first, count int64) {
	end := min(first+count, t.facts.Blocks)
	for k := first / fanOut; k*fanOut < end; k++ {
		t.begin(place{0, k})
	}
}

// begin returns the page if it is in memory, else its load, which it begins unless it is
// under way, or has just failed.
func (t *Tree) begin(at place) ([]byte, *load) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if page, ok := t.pages.Get(at); ok {
		return page, nil
	}
	t.forgetLocked()
	if l, ok := t.loads[at]; ok {
		return nil, l
	}
	l := &load{at: at, done: make(chan struct{})}
	switch {
	case t.ctx.Err() != nil:
		l.err = errClosed
	case len(t.loads)-len(t.failed) >= maxLoads:
		l.err = errBusy
	}
	if l.err != nil {
		close(l.done)
		return nil, l
	}
	t.loads[at] = l
	t.wg.Go(func() { t.bring(l) })
	return nil, l
}

// forgetLocked forgets failures that have lasted long enough.
func (t *Tree) forgetLocked() {
	for len(t.failed) > 0 && time.Now().After(t.failed[0].until) {
		delete(t.loads, t.failed[0].at)
		t.failed = t.failed[1:]
	}
}

// want is a page.
func (t *Tree) want(ctx context.Context, at place) ([]byte, error) {
	page, l := t.begin(at)
	if l == nil {
		return page, nil
	}
	select {
	case <-l.done:
		return l.page, l.err
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// bring reads and proves a page. The page above it is on its way at the same time.
func (t *Tree) bring(l *load) {
	if l.at.level < len(t.shape.levels)-1 {
		t.begin(l.at.above())
	}
	l.page, l.err = t.prove(l.at)
	t.mu.Lock()
	defer t.mu.Unlock()
	if l.err == nil {
		t.pages.Add(l.at, l.page)
		delete(t.loads, l.at)
	} else {
		l.until = time.Now().Add(failTime)
		t.failed = append(t.failed, l)
	}
	close(l.done)
}

// above is the page that proves a page.
func (p place) above() place { return place{p.level + 1, p.page / nodeFanOut} }

// prove reads a page, and once more if it is not what the page above it says: it may have
// been damaged on its way.
func (t *Tree) prove(at place) ([]byte, error) {
	page, err := t.read(at, false)
	if err != nil {
		return nil, err
	}
	right, err := t.proven(at, page)
	if err != nil || right {
		return page, err
	}
	if page, err = t.read(at, true); err != nil {
		return nil, err
	}
	if right, err = t.proven(at, page); err == nil && !right {
		err = &pageError{at.level, at.page}
	}
	return page, err
}

// read reads a page; again is past all that keeps what came before.
func (t *Tree) read(at place, again bool) ([]byte, error) {
	e := t.shape.page(at.level, at.page)
	page := make([]byte, e.Len)
	read := t.src.ReadAtContext
	if again {
		if src, ok := t.src.(blockio.Forgetter); ok {
			src.Forget(e)
		} else {
			read = t.stream
		}
	}
	if n, err := read(t.ctx, page, e.Off); err != nil && (err != io.EOF || n < len(page)) {
		return nil, fmt.Errorf("read the hashes: %w", err)
	}
	return page, nil
}

// stream fills p from the file at off, past what the file's source keeps.
func (t *Tree) stream(ctx context.Context, p []byte, off int64) (int, error) {
	body, err := t.src.OpenRange(ctx, blockio.Range{Extent: blockio.Extent{Off: off, Len: int64(len(p))}, Refetch: true})
	if err != nil {
		return 0, err
	}
	defer body.Close()
	return io.ReadFull(body, p)
}

// proven says whether a page is what the page above it says; of the top page, the root.
func (t *Tree) proven(at place, page []byte) (bool, error) {
	sum := hashPage(at.level, at.page, page)
	if at.level == len(t.shape.levels)-1 {
		return t.facts.root(sum) == t.root, nil
	}
	parent, err := t.want(t.ctx, at.above())
	if err != nil {
		return false, err
	}
	return Hash(parent[at.page%nodeFanOut*nodeSize:][:nodeSize]) == sum, nil
}
