package cache

import (
	"bytes"
	"io"
	"io/fs"
	"slices"
	"sync"
	"sync/atomic"
)

// pageSize is what a kernel writes back at a time: after a crash each page of a
// file is as it was at some time, whatever became of the others.
const pageSize = 4 << 10

// memFiles is the files of an entry in memory. They remember what was written.
type memFiles struct {
	mu     sync.Mutex
	files  map[string]*memFile
	writes atomic.Int64 // so far, to all of them
}

// newMemFiles returns the files of a new entry for an image of size bytes.
func newMemFiles(size int64) *memFiles {
	m := &memFiles{files: make(map[string]*memFile)}
	for name, size := range map[string]int64{dataName: size, chunksName: 0, usedName: 0} {
		m.add(name).grow(size)
	}
	return m
}

func (m *memFiles) add(name string) *memFile {
	m.files[name] = &memFile{writes: &m.writes, sizes: []int64{0}}
	return m.files[name]
}

func (m *memFiles) names() (names []string) {
	for name := range m.files {
		names = append(names, name)
	}
	slices.Sort(names)
	return names
}

// wholeFile stands for a page in a choice: it is about the file's size.
const wholeFile = -1

// choice says what a crash has left of a page of a file, as one of its versions
// [0, n): zeros, as if it had never been written, then what it was after each
// write. The newest may be zeros, too.
type choice func(name string, page, n int) int

// crash returns what a crash may have left.
func (m *memFiles) crash(choose choice) *memFiles {
	left := &memFiles{files: make(map[string]*memFile)}
	for _, name := range m.names() {
		f := m.files[name]
		size := max(choose(name, wholeFile, len(f.sizes)), f.syncedSize)
		after := &memFile{size: f.sizes[size], pages: make([][]byte, len(f.pages))}
		for i, versions := range f.history {
			version := choose(name, i, len(versions))
			if i < len(f.synced) {
				version = max(version, f.synced[i])
			}
			after.pages[i] = versions[version].page
		}
		after.cut()
		left.files[name] = after
	}
	return left
}

// clone returns the same files once more.
func (m *memFiles) clone() *memFiles {
	c := &memFiles{files: make(map[string]*memFile)}
	for name, f := range m.files {
		c.files[name] = &memFile{size: f.size, pages: slices.Clone(f.pages)}
	}
	return c
}

// newest chooses what there is without a crash.
func newest(_ string, _, n int) int { return n - 1 }

// after chooses what there was after so many writes, without a crash.
func (m *memFiles) after(writes int64) choice {
	return func(name string, page, n int) int {
		if page == wholeFile {
			return n - 1
		}
		versions := m.files[name].history[page]
		for n--; n > 0 && versions[n].write > writes; n-- {
		}
		return n
	}
}

// memDir is how one process sees the files.
type memDir struct {
	*memFiles
	// before, if it is set, is called before each page that is read: that is
	// when other processes have their turn.
	before func()
}

func (d memDir) open(name string, write bool) (file, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	f := d.files[name]
	if f == nil {
		if !write {
			return nil, fs.ErrNotExist
		}
		f = d.add(name)
	}
	return openFile{f, d.before}, nil
}

type openFile struct {
	*memFile
	before func()
}

func (f openFile) ReadAt(p []byte, off int64) (n int, err error) {
	for n < len(p) && err == nil {
		if f.before != nil {
			f.before()
		}
		var k int
		k, err = f.readPage(p[n:], off+int64(n))
		n += k
	}
	return n, err
}

func (openFile) Close() error { return nil }

// memFile is a sparse file.
type memFile struct {
	mu    sync.Mutex
	size  int64
	pages [][]byte // nil is zeros; a page is replaced, never changed

	// What was there: all sizes, and of each page all versions. Nobody wants to
	// know if sizes is nil.
	writes  *atomic.Int64
	sizes   []int64
	history [][]version
	// What cannot be lost any more: the version of each page, and the size.
	synced     []int
	syncedSize int
}

// version is what a page was after so many writes.
type version struct {
	write int64
	page  []byte
}

var zeroPage [pageSize]byte

// readPage reads from the page that has the byte at off.
func (f *memFile) readPage(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if off >= f.size {
		return 0, io.EOF
	}
	page := f.pages[off/pageSize]
	if page == nil {
		page = zeroPage[:]
	}
	return copy(p[:min(int64(len(p)), f.size-off)], page[off%pageSize:]), nil
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.grow(max(f.size, off+int64(len(p))))
	for n := 0; n < len(p); {
		i := (off + int64(n)) / pageSize
		page := make([]byte, pageSize)
		copy(page, f.pages[i])
		n += copy(page[(off+int64(n))%pageSize:], p[n:])
		f.replace(i, page)
	}
	return len(p), nil
}

func (f *memFile) Sync() error {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.syncedSize = len(f.sizes) - 1
	f.synced = f.synced[:0]
	for _, versions := range f.history {
		f.synced = append(f.synced, len(versions)-1)
	}
	return nil
}

func (f *memFile) Punch(off, n int64) error {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := off / pageSize; i < min((off+n)/pageSize, int64(len(f.pages))); i++ {
		f.replace(i, nil)
	}
	return nil
}

func (f *memFile) grow(size int64) {
	if size == f.size {
		return
	}
	f.size = size
	if f.sizes != nil {
		f.sizes = append(f.sizes, size)
	}
	for int64(len(f.pages))*pageSize < size {
		f.pages = append(f.pages, nil)
	}
}

// replace makes page the newest version of page i.
func (f *memFile) replace(i int64, page []byte) {
	was := f.pages[i]
	f.pages[i] = page
	if f.sizes == nil || bytes.Equal(page, was) {
		return
	}
	for int64(len(f.history)) <= i {
		f.history = append(f.history, []version{{}})
	}
	f.history[i] = append(f.history[i], version{f.writes.Add(1), page})
}

// cut drops what lies behind the end.
func (f *memFile) cut() {
	f.pages = f.pages[:min((f.size+pageSize-1)/pageSize, int64(len(f.pages)))]
	for int64(len(f.pages))*pageSize < f.size {
		f.pages = append(f.pages, nil)
	}
	if last := len(f.pages) - 1; f.size%pageSize != 0 && f.pages[last] != nil {
		page := slices.Clone(f.pages[last])
		clear(page[f.size%pageSize:])
		f.pages[last] = page
	}
}

func (f *memFile) Allocated() (n int64, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, page := range f.pages {
		if page != nil {
			n += pageSize
		}
	}
	return n, nil
}

func (f *memFile) NextData(off int64) (int64, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for i := off / pageSize; i < int64(len(f.pages)); i++ {
		if f.pages[i] != nil {
			return max(off, i*pageSize), nil
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
	i := off / pageSize
	for i < int64(len(f.pages)) && f.pages[i] != nil {
		i++
	}
	return min(max(off, i*pageSize), f.size), nil
}

// All claims succeed: they are a matter of speed.
func (*memFile) claim(int64, int64) bool { return true }

func (*memFile) unclaim(int64, int64) {}

func (*memFile) claimed(int64, int64) bool { return false }
