package overlay

import (
	"bytes"
	"context"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
)

// ops is how many operations TestModel makes.
func ops(t *testing.T) int {
	n, err := strconv.Atoi(os.Getenv("CLOOPFS_TEST_OPS"))
	if err != nil {
		if os.Getenv("CLOOPFS_TEST_OPS") != "" {
			t.Fatal(err)
		}
		return 20_000
	}
	return n
}

// An overlay on a real file system and an array of bytes are the same disk, whatever
// is done to them. When the process dies, each cluster is what it was, or what it was
// when it was last flushed.
func TestModel(t *testing.T) {
	const size = 300*clusterSize + 777
	m := &model{
		t: t, rnd: rand.New(rand.NewPCG(1, 2)), noise: rand.NewChaCha8([32]byte{1}), path: filepath.Join(t.TempDir(), "overlay"),
		base:  Base{Source: "https://example.org/image", Size: size, Identity: "model"},
		below: baseDisk{size}, now: make([]byte, size), unflushed: make(map[int64][]byte),
	}
	if _, err := m.below.ReadAtContext(t.Context(), m.now, 0); err != nil {
		t.Fatal(err)
	}
	m.open()
	count := make(map[string]int)
	for range ops(t) {
		switch n := m.rnd.IntN(1000); {
		case n < 480:
			count["write"]++
			m.write()
		case n < 580:
			count["zero"]++
			m.zero()
		case n < 960:
			count["read"]++
			m.read()
		case n < 980:
			count["map"]++
			m.mapped()
		case n < 994:
			count["flush"]++
			m.flush()
		case n < 997:
			count["close"]++
			m.close()
			m.open()
		default:
			count["kill"]++
			m.kill()
		}
		if t.Failed() {
			break
		}
	}
	m.close()
	t.Log(count)
}

type model struct {
	t     *testing.T
	rnd   *rand.Rand
	noise *rand.ChaCha8
	path  string
	base  Base
	below blockio.ReaderAt
	dir   *Dir
	disk  *Disk

	now       []byte           // the disk
	unflushed map[int64][]byte // clusters written since the last flush, as they were then
}

func (m *model) must(err error) {
	if err != nil {
		m.t.Helper()
		m.t.Fatal(err)
	}
}

func (m *model) open() {
	var err error
	m.dir, err = OpenOrMake(m.path, m.base)
	m.must(err)
	m.disk, err = m.dir.Disk(m.below, m.base, slog.New(slog.DiscardHandler))
	m.must(err)
}

func (m *model) close() {
	m.must(m.disk.Close())
	clear(m.unflushed)
}

// kill is what the process's end does, and opens the overlay again.
func (m *model) kill() {
	m.disk.timer.Stop()
	m.must(m.disk.closeFiles())
	m.must(m.dir.Close())
	m.open()
	for k, flushed := range m.unflushed {
		is, err := cluster(m.disk, k)
		m.must(err)
		now := m.now[k*clusterSize:][:len(is)]
		if !bytes.Equal(is, now) && !bytes.Equal(is, flushed) {
			m.t.Fatalf("cluster %d is neither what it was nor what it was at the last flush", k)
		}
		copy(now, is)
	}
	clear(m.unflushed) // what is there now, is in the kernel's hands
}

// place is somewhere on the disk: mostly a few bytes, or whole clusters.
func (m *model) place() blockio.Extent {
	size := int64(len(m.now))
	e := blockio.Extent{Off: m.rnd.Int64N(size)}
	switch m.rnd.IntN(3) {
	case 0:
		e.Len = 1 + m.rnd.Int64N(100)
	case 1:
		e.Off -= e.Off % clusterSize
		e.Len = clusterSize * (1 + m.rnd.Int64N(8))
	default:
		e.Len = 1 + m.rnd.Int64N(5*clusterSize)
	}
	e.Len = min(e.Len, size-e.Off)
	return e
}

// change says that e is about to be something else.
func (m *model) change(e blockio.Extent) []byte {
	for k := e.Off / clusterSize; k < clusterEnd(e.End()); k++ {
		if m.unflushed[k] == nil {
			m.unflushed[k] = bytes.Clone(m.now[k*clusterSize : min((k+1)*clusterSize, int64(len(m.now)))])
		}
	}
	return m.now[e.Off:e.End()]
}

func (m *model) write() {
	e := m.place()
	p := m.change(e)
	m.noise.Read(p)
	_, err := m.disk.WriteAtContext(context.Background(), p, e.Off)
	m.must(err)
}

func (m *model) zero() {
	e := m.place()
	clear(m.change(e))
	m.must(m.disk.ZeroContext(context.Background(), e))
}

func (m *model) read() {
	e := m.place()
	p := make([]byte, e.Len)
	_, err := m.disk.ReadAtContext(context.Background(), p, e.Off)
	m.must(err)
	if !bytes.Equal(p, m.now[e.Off:e.End()]) {
		m.t.Fatalf("bytes %d+%d are not what was written", e.Off, e.Len)
	}
}

// mapped checks that what is said to be zeros is.
func (m *model) mapped() {
	off := m.rnd.Int64N(int64(len(m.now)))
	n, zeros, err := m.disk.MapAt(context.Background(), off)
	m.must(err)
	if n < 1 || off+n > int64(len(m.now)) {
		m.t.Fatalf("MapAt(%d) = %d of %d bytes", off, n, len(m.now))
	}
	if zeros && bytes.Count(m.now[off:off+n], []byte{0}) != int(n) {
		m.t.Fatalf("bytes %d+%d are said to be zeros", off, n)
	}
}

func (m *model) flush() {
	m.must(m.disk.Flush(context.Background()))
	clear(m.unflushed)
}

func TestConforms(t *testing.T) {
	const size = 100*clusterSize + 333
	base := Base{Source: "x", Size: size, Identity: "x"}
	newDisk := map[string]func() (*Disk, error){
		"kept": func() (*Disk, error) {
			d, err := OpenOrMake(filepath.Join(t.TempDir(), "overlay"), base)
			if err != nil {
				return nil, err
			}
			return d.Disk(baseDisk{size}, base, slog.New(slog.DiscardHandler))
		},
		"ephemeral": func() (*Disk, error) { return Ephemeral(t.TempDir(), baseDisk{size}) },
	}
	for name, open := range newDisk {
		t.Run(name, func(t *testing.T) {
			blockiotest.TestDevice(t, func() blockio.Device {
				d, err := open()
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { d.Close() })
				return d
			})
		})
	}
}

// askedContext counts who asks when it ends: that is who waits.
type askedContext struct {
	context.Context
	asked *int
}

func (c askedContext) Done() <-chan struct{} {
	*c.asked++
	return c.Context.Done()
}

// Reads and writes that need not wait ask for nothing.
func TestNothingWaits(t *testing.T) {
	disk, err := reopened(newMemFile(crashSize), newMemFile(mapSize(crashSize)))
	if err != nil {
		t.Fatal(err)
	}
	asked := 0
	ctx := askedContext{t.Context(), &asked}
	p := make([]byte, 2*clusterSize)
	for _, off := range []int64{0, 10 * clusterSize} {
		if _, err := disk.ReadAtContext(ctx, p, off); err != nil {
			t.Fatal(err)
		}
		if _, err := disk.WriteAtContext(ctx, p, off); err != nil {
			t.Fatal(err)
		}
		if _, err := disk.ReadAtContext(ctx, p, off); err != nil {
			t.Fatal(err)
		}
		if err := disk.ZeroContext(ctx, blockio.Extent{Off: off, Len: clusterSize}); err != nil {
			t.Fatal(err)
		}
	}
	if asked > 0 {
		t.Errorf("the context was asked %d times", asked)
	}
}
