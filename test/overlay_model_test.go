//go:build integration

package test

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// A disk that is written to through a mount and an array of bytes are the same,
// whatever is done to them, and in whatever way: through the page cache, past it, or
// through a mapping. (This is what fsx(8) of xfstests does to files that may grow.)
func TestOverlayModel(t *testing.T) {
	s := makeImage(t, 64*kib, blocks(100, 20*kib)...)
	odd := noise(1, 5*mib+777) // its last sector and its last cluster are cut off
	clear(odd[mib : 3*mib])
	path := filepath.Join(t.TempDir(), "odd.img")
	if err := os.WriteFile(path, odd, 0o644); err != nil {
		t.Fatal(err)
	}
	_, url := serve(t, s.image)
	for _, disk := range []struct {
		name, source string
		content      []byte
		flags        []string
	}{
		{"cloop over HTTP", url, s.disk, []string{"--memory", "1MiB"}},
		{"raw file of an odd size", path, odd, []string{"--format", "raw"}},
	} {
		t.Run(disk.name, func(t *testing.T) {
			_, flags := makeOverlay(t, disk.flags...)
			m := &model{
				t: t, source: disk.source, dir: makeDir(t), flags: flags,
				now: slices.Clone(disk.content), count: make(map[string]int),
			}
			seed := rand.Uint64()
			m.rnd = rand.New(rand.NewPCG(seed, 0))
			m.mount()
			ops := 0
			for end := time.Now().Add(envTime(t, "CLOOPFS_TEST_OVERLAY_TIME", 20*time.Second) / 2); time.Now().Before(end) && !t.Failed(); ops++ {
				m.step()
			}
			m.umount()
			if t.Failed() {
				t.Logf("after %d operations from seed %d", ops, seed)
			}
			t.Logf("%d operations: %v", ops, m.count)
			for _, op := range []string{"write", "read", "punch", "zero", "fsync", "fdatasync", "msync", "map write", "map read", "data", "remount", "kill"} {
				if m.count[op] == 0 && !t.Failed() {
					t.Errorf("no %s at all", op)
				}
			}
			// The base is what it was.
			mountAt(t, disk.source, m.dir, disk.flags...)
			checkBytes(t, "base", must(t, "cat", diskOf(m.dir)), disk.content)
			umount(t, m.dir)
		})
	}
}

// model is a mounted disk and what it should be.
type model struct {
	t      *testing.T
	rnd    *rand.Rand
	source string
	dir    string
	flags  []string
	w      *writer
	now    []byte
	// dirty says that something was written through the mapping that the kernel
	// may not have sent yet.
	dirty bool
	count map[string]int // of operations
}

func (m *model) mount() {
	mountAt(m.t, m.source, m.dir, m.flags...)
	checkBytes(m.t, "disk after a mount", must(m.t, "cat", diskOf(m.dir)), m.now)
	m.w = openWriter(m.t, diskOf(m.dir))
}

func (m *model) umount() {
	m.w.close(m.t)
	umount(m.t, m.dir)
	m.dirty = false
}

// step does one operation.
func (m *model) step() {
	size := int64(len(m.now))
	what := task{Off: m.rnd.Int64N(size)}
	switch m.rnd.IntN(3) {
	case 0: // close to others
		what.Off = min(m.rnd.Int64N(50)*pageSize+m.rnd.Int64N(100), size-1)
	case 1:
		what.Off &^= pageSize - 1
	}
	most := [...]int64{100, pageSize, pageSize, 5 * pageSize, 5 * pageSize, 300 * kib}[m.rnd.IntN(6)]
	what.Len = 1 + m.rnd.Int64N(most)
	if m.rnd.IntN(3) == 0 {
		what.Len = (what.Len + pageSize - 1) &^ (pageSize - 1)
	}
	what.Len = min(what.Len, size-what.Off)
	switch n := m.rnd.IntN(1000); {
	case n < 300:
		what.Op = "write"
	case n < 550:
		what.Op = "read"
	case n < 650:
		what.Op = "map write"
	case n < 750:
		what.Op = "map read"
	case n < 800:
		what.Op = "punch"
	case n < 850:
		what.Op = "zero"
	case n < 900:
		what.Op = "data"
	case n < 930:
		what.Op = "hole"
	case n < 960:
		what.Op = "fsync"
	case n < 988:
		what.Op = "fdatasync"
	case n < 998:
		what.Op = "msync"
	case n < 999:
		m.count["remount"]++
		m.umount()
		m.mount()
		return
	default:
		// What was flushed is there, and nothing has been written since.
		m.count["kill"]++
		m.w.must(m.t, task{Op: "fsync"})
		killDaemon(m.t, m.dir)
		m.w.p.kill()
		m.dirty = false
		m.mount()
		return
	}
	if (what.Op == "read" || what.Op == "write") && m.rnd.IntN(3) == 0 && what.Off+sector <= size {
		what.Direct = true
		what.Off &^= sector - 1
		what.Len = max(what.Len&^(sector-1), sector)
	}
	m.do(what)
}

const sector = 512

// do does what the disk and the array are to have done to them, or compares them.
func (m *model) do(what task) {
	if what.Direct {
		m.count["O_DIRECT "+what.Op]++
	}
	m.count[what.Op]++
	is := m.now[what.Off:][:what.Len]
	switch what.Op {
	case "write", "map write":
		what.Data = noise(m.rnd.Uint64(), what.Len)
		copy(is, what.Data)
		m.dirty = m.dirty || what.Op == "map write"
	case "punch", "zero":
		clear(is)
	case "read", "map read":
		d := m.w.must(m.t, what)
		checkBytes(m.t, fmt.Sprintf("%s of %d bytes at %d", what.Op, what.Len, what.Off), string(d.Data), is)
		return
	case "data", "hole":
		m.seek(what)
		return
	case "fsync", "fdatasync", "msync":
		m.dirty = false
	}
	m.w.must(m.t, what)
}

// seek looks for data or for a hole, which has zeros in it.
func (m *model) seek(what task) {
	if m.dirty {
		m.do(task{Op: "fdatasync"})
	}
	d, err := m.w.do(what)
	if err != nil {
		m.t.Fatal(err)
	}
	size := int64(len(m.now))
	if what.Op == "data" && d.Errno == unix.ENXIO {
		d.N, d.Errno = size, 0 // zeros to the end
	}
	if d.Errno != 0 || d.N < what.Off || d.N > size {
		m.t.Fatalf("looking for %s at %d of %d: got %d, %v", what.Op, what.Off, size, d.N, d.Errno)
	}
	if what.Op == "hole" {
		if d.N == size {
			return
		}
		what.Op, what.Off = "data", d.N // of the hole that was found
		m.seek(what)
		return
	}
	hole := m.now[what.Off:d.N]
	if n := bytes.Count(hole, []byte{0}); n != len(hole) {
		m.t.Fatalf("there is said to be no data in %d bytes at %d, of which %d are other than zero", len(hole), what.Off, len(hole)-n)
	}
	m.count["zeros in holes"] += len(hole)
}
