package cache

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"

	"github.com/cloopfs/cloopfs/blockio/blockiotest"
)

// FuzzFiles changes the files of an entry, and reads the disk through the whole line:
// never one wrong byte. Half of the blocks have no checksum but the cache's.
func FuzzFiles(f *testing.F) {
	f.Add([]byte{})
	for name := range byte(5) { // also one that is not there
		f.Add([]byte{name, 0, 0, 0, 2, 0, 0})                    // zeros
		f.Add([]byte{name, 0, 0, 40, 3, 1, 2, 3})                // other bytes
		f.Add([]byte{name | 0x80, 0, 0, 9})                      // cut off
		f.Add([]byte{name | 0x80, 0, 0, 9, name, 8, 0, 0, 1, 7}) // and longer again
	}
	var once sync.Once
	var c crash
	var whole *memFiles
	f.Fuzz(func(t *testing.T, edits []byte) {
		once.Do(func() {
			c = crash{crashImage: crashImages(t)[2]}
			c.look(t)
			whole, _ = c.use(t)
		})
		files := whole.crash(newest)
		editFiles(files, edits)
		l, err := c.open(&blockiotest.Source{Data: c.file}, memDir{memFiles: files})
		if err != nil {
			t.Fatal(err)
		}
		defer l.close()
		for seed := range uint64(2) {
			if err := l.readAll(rand.New(rand.NewPCG(1+seed, 0))); err != nil {
				t.Fatalf("read %d times before: %v", seed, err)
			}
		}
	})
}

// editFiles changes files as a list of edits says. Each names a file, and an offset (24
// bits); then either the file ends there, or a number of bytes follows, and they are
// written there.
func editFiles(m *memFiles, edits []byte) {
	names := append(m.names(), "other")
	for len(edits) >= 4 {
		f := m.files[names[int(edits[0]&0x7f)%len(names)]]
		if f == nil {
			f = m.add("other")
		}
		cut, off := edits[0]&0x80 != 0, int64(edits[1])<<16|int64(edits[2])<<8|int64(edits[3])
		edits = edits[4:]
		switch {
		case cut:
			f.size = min(f.size, off)
			f.cut()
		case len(edits) > 0:
			n := min(int(edits[0]), len(edits)-1)
			_, _ = f.WriteAt(slices.Clone(edits[1:1+n]), off) // never fails
			edits = edits[1+n:]
		}
	}
}
