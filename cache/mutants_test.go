package cache

import (
	"encoding/binary"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
)

// The crash tests find out when the bytes of blocks or of chunks are not compared
// with their checksums, and when that is done at the first use only.
func TestMutants(t *testing.T) {
	for _, m := range []struct {
		name, table string
		checkOnce   bool
	}{
		{"no check of blocks", blocksName, false},
		{"no check of chunks", chunksName, false},
		{"check of blocks at first use", blocksName, true},
		{"check of chunks at first use", chunksName, true},
	} {
		t.Run(m.name, func(t *testing.T) {
			var err error
			for _, im := range crashImages(t) {
				// Those in which nothing but the table tells what is right.
				if im.damaged >= 0 || im.raw != (m.table == chunksName) {
					continue
				}
				c := crash{crashImage: im, mutate: func(im *crashImage, dir memDir) directory {
					return unchecked{dir, im, m.table, m.checkOnce}
				}}
				if err = c.run(t); errors.Is(err, errWrongByte) {
					t.Logf("%s, %d states: %v", im.name, c.tried, err)
					return
				}
			}
			t.Errorf("the crash tests find no wrong byte: %v", err)
		})
	}
}

// unchecked is a directory in which the entries of a table match, whatever is stored:
// who compares bytes with them checks nothing.
type unchecked struct {
	memDir
	im        *crashImage
	table     string // what the table's name begins with
	checkOnce bool   // entries are as they are until they have matched once
}

func (d unchecked) open(name string, write bool) (file, error) {
	f, err := d.memDir.open(name, write)
	if err != nil || !strings.HasPrefix(name, d.table) {
		return f, err
	}
	disk, err := openFiles(memDir{memFiles: d.memFiles}, int64(len(d.im.file)), true)
	if err != nil {
		return nil, err
	}
	t := &uncheckedTable{file: f, stored: func(n int64) []byte {
		at := disk.cover(blockio.Extent{Off: n * chunkSize, Len: 1})
		p := make([]byte, at.Len)
		disk.readAt(p, at.Off)
		return p
	}, always: !d.checkOnce, matched: make(map[int64]bool)}
	if name != chunksName {
		blocks := &Blocks{files: disk, parts: d.im.parts}
		if blocks.parts == nil {
			blocks.parts = []blockio.Extent{{Len: disk.Size()}}
		}
		t.stored = func(n int64) []byte {
			p := make([]byte, d.im.blocks[n].Len)
			blocks.do(d.im.blocks[n], p, disk.readAt)
			return p
		}
	}
	return t, nil
}

// uncheckedTable is a table whose entries match what is stored.
type uncheckedTable struct {
	file
	stored func(n int64) []byte // what entry n stands for
	always bool                 // else those that have matched once

	// mu guards the field below.
	mu      sync.Mutex
	matched map[int64]bool
}

func (t *uncheckedTable) ReadAt(p []byte, off int64) (int, error) {
	got, err := t.file.ReadAt(p, off)
	for i := 0; i+sumSize <= got; i += sumSize {
		sum := binary.LittleEndian.Uint64(p[i:])
		if sum == 0 {
			continue
		}
		n := (off + int64(i)) / sumSize
		now := sumOf(t.stored(n))
		if t.always || t.matchedOnce(n, now == sum) {
			binary.LittleEndian.PutUint64(p[i:], now)
		}
	}
	return got, err
}

// matchedOnce says whether entry n matches, or did.
func (t *uncheckedTable) matchedOnce(n int64, now bool) bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.matched[n] = t.matched[n] || now
	return t.matched[n]
}
