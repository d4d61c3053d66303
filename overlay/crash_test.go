package overlay

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
)

// Whatever of an overlay's pages a crash leaves: what was flushed is there, and of
// what was written since each cluster is as some write left it, never anything else.
//
// Random writes, zeros and flushes run over files that remember. After each operation
// of a file there are crashes; the overlay is opened again, all is compared, and it
// goes on from there, to its next crash.
func TestCrash(t *testing.T) {
	tried := 0
	for seed := range uint64(crashRuns) {
		n, err := crashRun(seed, nil)
		if err != nil {
			t.Fatalf("seed %d: %v", seed, err)
		}
		tried += n
	}
	t.Logf("%d states", tried)
	if tried < 10_000 {
		t.Error("that is not what this test is for")
	}
}

// crashRuns is how many runs there are, each with some hundred states.
const crashRuns = 25

// The test above finds what it is for.
func TestCrashMutants(t *testing.T) {
	for name, mutate := range map[string]func(data, bits *memFile) (file, file){
		"the map first": func(data, bits *memFile) (file, file) {
			return lateSync{data, nil}, lateSync{bits, data}
		},
		"data is not synced": func(data, bits *memFile) (file, file) {
			return lateSync{data, nil}, bits
		},
		"nothing is punched": func(data, bits *memFile) (file, file) {
			return unpunched{data}, bits
		},
		"the map is not synced": func(data, bits *memFile) (file, file) {
			return data, lateSync{bits, nil}
		},
	} {
		t.Run(name, func(t *testing.T) {
			for seed := range uint64(crashRuns) {
				if _, err := crashRun(seed, mutate); err != nil {
					t.Log(err)
					return
				}
			}
			t.Error("nothing was noticed")
		})
	}
}

// lateSync is a file whose sync does nothing, and then syncs itself and another, if
// there is one.
type lateSync struct {
	*memFile
	other *memFile
}

func (f lateSync) sync() error {
	if f.other == nil {
		return nil
	}
	return errors.Join(f.memFile.sync(), f.other.sync())
}

// unpunched is a file whose holes do not become any.
type unpunched struct{ *memFile }

func (unpunched) Punch(int64, int64) error { return nil }

// crashSize is the size of the disk: three pages of the map, and a part of a cluster
// at the end.
const crashSize = 2*pageClusters*clusterSize + 9*clusterSize + 1000

// playgrounds is where all happens: the disk's start, where two pages of the map
// meet, and the end.
var playgrounds = [3]blockio.Extent{
	{Off: 0, Len: 9 * clusterSize},
	{Off: (pageClusters - 5) * clusterSize, Len: 10 * clusterSize},
	{Off: crashSize - 8*clusterSize - 1000, Len: 8*clusterSize + 1000},
}

// baseDisk is a disk none of whose bytes are zeros.
type baseDisk struct{ size int64 }

func (b baseDisk) Size() int64 { return b.size }

func (b baseDisk) ReadAtContext(_ context.Context, p []byte, off int64) (int, error) {
	p, eof := blockio.Clip(p, off, b.size)
	for n := 0; n < len(p); {
		at := off + int64(n)
		n += copy(p[n:], baseClusters[at/clusterSize%100][at%clusterSize:])
	}
	return len(p), eof
}

// baseClusters are the clusters of a baseDisk: the next hundred are the same.
var baseClusters = func() (list [100][]byte) {
	for i := range list {
		list[i] = bytes.Repeat([]byte{byte(i + 1)}, clusterSize)
	}
	return list
}()

// crasher is a disk over files that crash, and what may be on it after that.
type crasher struct {
	rnd   *rand.Rand
	noise *rand.ChaCha8
	disk  *Disk
	data  *memFile
	bits  *memFile
	tried int
	// may is what each cluster may be after a crash: what it was when it was flushed
	// last, and what writes have made of it since. The last is what it is.
	may map[int64][][]byte
}

// crashRun makes a run, and returns how many states were looked at. mutate may break
// the files.
func crashRun(seed uint64, mutate func(data, bits *memFile) (file, file)) (int, error) {
	c := &crasher{
		rnd: rand.New(rand.NewPCG(seed, 5)), noise: rand.NewChaCha8([32]byte{byte(seed)}),
		data: newMemFile(crashSize), bits: newMemFile(mapSize(crashSize)),
		may: make(map[int64][][]byte),
	}
	for generation := range 4 {
		if err := c.open(mutate); err != nil {
			return c.tried, err
		}
		for step := range 25 {
			if err := c.step(); err != nil {
				return c.tried, fmt.Errorf("generation %d, step %d: %w", generation, step, err)
			}
			for range 4 {
				if err := c.look(); err != nil {
					return c.tried, fmt.Errorf("generation %d, after step %d: %w", generation, step, err)
				}
			}
		}
		// The crash after which it goes on.
		c.data, c.bits = c.data.crash(c.rnd), c.bits.crash(c.rnd)
	}
	return c.tried, nil
}

// open opens the disk after a crash.
func (c *crasher) open(mutate func(data, bits *memFile) (file, file)) (err error) {
	data, bits := file(c.data), file(c.bits)
	if mutate != nil {
		data, bits = mutate(c.data, c.bits)
	}
	if c.disk, err = reopened(data, bits); err != nil {
		return err
	}
	for _, e := range playgrounds {
		for k := e.Off / clusterSize; k < clusterEnd(e.End()); k++ {
			is, err := cluster(c.disk, k)
			if err != nil {
				return err
			}
			c.may[k] = [][]byte{is} // no crash can change that any more
		}
	}
	// Before a sync has ended others write, and the machine crashes.
	c.data.onSync = func() error { return errors.Join(c.look(), c.change(), c.look()) }
	c.bits.onSync = c.look
	return nil
}

// reopened is the disk of files as they are.
func reopened(data, bits file) (*Disk, error) {
	d := newDisk(baseDisk{crashSize}, data, bits)
	return d, d.here.read(bits, clusterEnd(crashSize))
}

// cluster is a cluster of the disk.
func cluster(d *Disk, k int64) ([]byte, error) {
	p := make([]byte, clusterSize)
	n, err := d.ReadAtContext(context.Background(), p, k*clusterSize)
	if err == io.EOF {
		err = nil
	}
	return p[:n], err
}

// step flushes, or changes something.
func (c *crasher) step() error {
	if c.rnd.IntN(5) > 0 {
		return c.change()
	}
	before := make(map[int64]int)
	for k, list := range c.may {
		before[k] = len(list) - 1
	}
	if err := c.disk.Flush(context.Background()); err != nil {
		return err
	}
	for k, i := range before {
		c.may[k] = c.may[k][i:]
	}
	return nil
}

// change writes, or zeroes, a part of one of the playgrounds.
func (c *crasher) change() error {
	e := playgrounds[c.rnd.IntN(len(playgrounds))]
	end := e.End()
	e.Off += c.rnd.Int64N(e.Len)
	e.Len = 1 + c.rnd.Int64N(min(3*clusterSize, end-e.Off))
	if c.rnd.IntN(2) == 0 { // whole clusters
		e.Off -= e.Off % clusterSize
		e.Len = min(clusterEnd(e.End())*clusterSize, end) - e.Off
	}
	p := make([]byte, e.Len)
	if c.rnd.IntN(3) > 0 {
		c.noise.Read(p)
	}
	// Before it is done: afterwards it may have been written back already.
	for k := e.Off / clusterSize; k < clusterEnd(e.End()); k++ {
		list := c.may[k]
		is := bytes.Clone(list[len(list)-1])
		from := max(0, e.Off-k*clusterSize)
		copy(is[from:], p[max(0, k*clusterSize-e.Off):])
		c.may[k] = append(list, is)
	}
	if bytes.Count(p, []byte{0}) == len(p) {
		if err := c.disk.ZeroContext(context.Background(), e); err != nil {
			return err
		}
	} else if _, err := c.disk.WriteAtContext(context.Background(), p, e.Off); err != nil {
		return err
	}
	for k := e.Off / clusterSize; k < clusterEnd(e.End()); k++ {
		list := c.may[k]
		if is, err := cluster(c.disk, k); err != nil || !bytes.Equal(is, list[len(list)-1]) {
			return fmt.Errorf("cluster %d after it was written: %w", k, err)
		}
	}
	return nil
}

// look crashes, and compares what is left.
func (c *crasher) look() error {
	c.tried++
	after, err := reopened(c.data.crash(c.rnd), c.bits.crash(c.rnd))
	if err != nil {
		return err
	}
	for k, list := range c.may {
		is, err := cluster(after, k)
		if err != nil {
			return err
		}
		found := false
		for _, may := range list {
			found = found || bytes.Equal(is, may)
		}
		if !found {
			return fmt.Errorf("cluster %d is %x… after a crash (here: %v), and may be one of %d others", k, is[:8], after.here.has(k), len(list))
		}
	}
	return nil
}
