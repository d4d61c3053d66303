package overlay

import (
	"errors"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"sync"
)

// memFile is a sparse file in memory that remembers what a crash could leave of it:
// each page as it was when the file was last synced, or as any write since made it,
// whatever became of the others. That is how a kernel writes back.
type memFile struct {
	size int64
	// onSync, if set, is called when a sync begins; an error is the sync's, and what
	// was not durable by then never will be.
	onSync func() error

	mu    sync.Mutex
	pages map[int64][][]byte // the versions of a page: durable first, newest last; nil is zeros
}

func newMemFile(size int64) *memFile {
	return &memFile{size: size, pages: make(map[int64][][]byte)}
}

// crash returns the file after a crash. A page is as it was at one time or another,
// which rnd chooses.
func (f *memFile) crash(rnd *rand.Rand) *memFile {
	f.mu.Lock()
	defer f.mu.Unlock()
	after := newMemFile(f.size)
	kind := rnd.IntN(4)
	for _, k := range slices.Sorted(maps.Keys(f.pages)) {
		versions := f.pages[k]
		i := rnd.IntN(len(versions))
		switch kind {
		case 0: // nothing was written back
			i = 0
		case 1: // everything was
			i = len(versions) - 1
		}
		after.pages[k] = [][]byte{versions[i]}
	}
	return after
}

// durable returns the file after a crash before which nothing was written back that
// nobody asked for.
func (f *memFile) durable() *memFile {
	f.mu.Lock()
	defer f.mu.Unlock()
	after := newMemFile(f.size)
	for k, versions := range f.pages {
		after.pages[k] = versions[:1]
	}
	return after
}

// newest is what a page is.
func (f *memFile) newest(k int64) []byte {
	if v := f.pages[k]; len(v) > 0 && v[len(v)-1] != nil {
		return v[len(v)-1]
	}
	return zeros[:]
}

func (f *memFile) replace(k int64, p []byte) {
	if f.pages[k] == nil {
		f.pages[k] = [][]byte{nil}
	}
	f.pages[k] = append(f.pages[k], p)
}

func (f *memFile) ReadAt(p []byte, off int64) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for n < len(p) {
		at := off + int64(n)
		if at >= f.size {
			return n, io.EOF
		}
		to := min(len(p), n+int(f.size-at))
		n += copy(p[n:to], f.newest(at / clusterSize)[at%clusterSize:])
	}
	return n, nil
}

func (f *memFile) WriteAt(p []byte, off int64) (n int, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off+int64(len(p)) > f.size {
		return 0, errors.New("a write behind the end")
	}
	for n < len(p) {
		at := off + int64(n)
		page := slices.Clone(f.newest(at / clusterSize))
		n += copy(page[at%clusterSize:], p[n:])
		f.replace(at/clusterSize, page)
	}
	return n, nil
}

func (f *memFile) Punch(off, n int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off%clusterSize != 0 || n%clusterSize != 0 {
		return errors.New("not whole pages")
	}
	for k := off / clusterSize; k < (off+n)/clusterSize; k++ {
		if f.pages[k] != nil {
			f.replace(k, nil)
		}
	}
	return nil
}

func (f *memFile) sync() error {
	// What is written while the sync goes on may come too late for it.
	f.mu.Lock()
	now := make(map[int64]int, len(f.pages))
	for k, v := range f.pages {
		now[k] = len(v) - 1
	}
	f.mu.Unlock()
	if f.onSync != nil {
		if err := f.onSync(); err != nil {
			return err
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for k, i := range now {
		f.pages[k] = f.pages[k][i:]
	}
	return nil
}

func (f *memFile) NextData(off int64) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, k := range slices.Sorted(maps.Keys(f.pages)) {
		if v := f.pages[k]; v[len(v)-1] != nil && (k+1)*clusterSize > off {
			return max(off, k*clusterSize), nil
		}
	}
	return 0, io.EOF
}

func (f *memFile) NextHole(off int64) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off >= f.size {
		return 0, io.EOF
	}
	for k := off / clusterSize; ; k++ {
		if v := f.pages[k]; len(v) == 0 || v[len(v)-1] == nil || k*clusterSize >= f.size {
			return min(max(off, k*clusterSize), f.size), nil
		}
	}
}

func (*memFile) Close() error { return nil }
