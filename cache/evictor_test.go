package cache

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/fetch"
)

// evictorEnv, if set, makes the test program throw away what is in the cache
// directory of that name, until its input ends.
const evictorEnv = "CLOOPFS_TEST_EVICT"

// soakEnv is how long the long tests run.
const soakEnv = "CLOOPFS_TEST_SOAK"

func TestMain(m *testing.M) {
	if path := os.Getenv(evictorEnv); path != "" {
		if err := evictorMain(path); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	os.Exit(m.Run())
}

// evictorMain throws away a little at a time, as fast as it can, and prints at the
// end how many bytes that were.
func evictorMain(path string) error {
	d, err := OpenDir(path, roomy)
	if err != nil {
		return err
	}
	defer d.Close()
	end := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin) // ends with the test, however that ends
		close(end)
	}()
	for total := int64(0); ; {
		select {
		case <-end:
			fmt.Println(total)
			return nil
		default:
		}
		n, err := d.evict(1+rand.Int64N(4*regionSize), true)
		if err != nil {
			return err
		}
		total += n
	}
}

// startEvictor starts a process that throws away. stop ends it, and returns how
// many bytes it has thrown away.
func startEvictor(t *testing.T, path string) (stop func() int64) {
	t.Helper()
	program, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(program)
	cmd.Env = append(os.Environ(), evictorEnv+"="+path)
	var out, errors bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errors
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	return func() (n int64) {
		t.Helper()
		in.Close()
		if err := cmd.Wait(); err != nil {
			t.Errorf("the evictor: %v: %s", err, errors.String())
		}
		if _, err := fmt.Sscan(out.String(), &n); err != nil {
			t.Errorf("the evictor printed %q: %v", out.String(), err)
		}
		return n
	}
}

// patchy is n bytes of a disk: stretches of random bytes and of zeros, which a hole
// reads as, of any length.
func patchy(n int) []byte {
	p := random(int64(n))
	rnd := rand.New(rand.NewPCG(8, 8))
	for off := 0; off < n; {
		length := 1 + rnd.IntN(200_000)
		clear(p[off:min(off+length, n)])
		off += length + rnd.IntN(200_000)
	}
	return p
}

// buildStored is a cloop image of disk whose blocks are stored as they are: nothing
// in them tells zeros from what should be there.
func buildStored(disk []byte, blockSize int) []byte {
	const stored = 1 << 60 // a codec, in an entry's four highest bits
	blocks := (len(disk) + blockSize - 1) / blockSize
	image := clooptest.Header("V4.0", blockSize, blocks)
	start := len(image) + 8*(blocks+1)
	for n := range blocks + 1 {
		image = binary.BigEndian.AppendUint64(image, uint64(stored|start+min(n*blockSize, len(disk))))
	}
	return append(image, disk...)
}

// openImage joins the layers over an entry, as the program does. Nothing stays in
// memory.
func openImage(t *testing.T, e *Entry, origin blockio.Source, raw bool) *cloop.Image {
	t.Helper()
	source := e.Bytes(origin)
	var index *cloop.Index
	var err error
	if raw {
		index, err = cloop.Raw(source.Size())
	} else {
		index, err = cloop.Open(t.Context(), source)
	}
	if err != nil {
		t.Fatal(err)
	}
	s := fetch.New(source, index, fetch.Options{Keep: 1, Store: wholeBlocks(t, e, raw)})
	t.Cleanup(s.Close)
	return cloop.NewImage(index, s, NewMemory(0, index.BlockSize()))
}

// A process that throws away at full speed what others are reading and storing:
// never one wrong byte.
func TestEvictorUnderReaders(t *testing.T) {
	long := 2 * time.Second
	if text := os.Getenv(soakEnv); text != "" {
		var err error
		if long, err = time.ParseDuration(text); err != nil {
			t.Fatal(err)
		}
	}
	disk := patchy(6*mib + 512)
	path := filepath.Join(t.TempDir(), "cache")
	type process struct {
		name string
		*Entry
		image *cloop.Image
	}
	var all []process
	for name, file := range map[string][]byte{"stored blocks": buildStored(disk, 20<<10), "raw": disk} {
		for range 2 {
			e := openEntry(t, openDir(t, path, roomy), image(name, int64(len(file))))
			all = append(all, process{name, e, openImage(t, e, &blockiotest.Source{Data: file}, name == "raw")})
		}
	}
	stop := startEvictor(t, path)
	until := time.Now().Add(long)
	var wg sync.WaitGroup
	for i, p := range all {
		for seed := range uint64(2) {
			wg.Go(func() {
				rnd := rand.New(rand.NewPCG(uint64(i), seed))
				buf := make([]byte, 300_000)
				for time.Now().Before(until) && !t.Failed() {
					got := buf[:1+rnd.IntN(len(buf))]
					off := rnd.IntN(len(disk) - len(got))
					if _, err := p.image.ReadAtContext(t.Context(), got, int64(off)); err != nil {
						t.Errorf("%s: read of %d+%d: %v", p.name, off, len(got), err)
					} else if want := disk[off : off+len(got)]; !bytes.Equal(got, want) {
						t.Errorf("%s: read of %d+%d: wrong bytes", p.name, off, len(got))
					}
				}
			})
		}
	}
	wg.Wait()
	evicted := stop()
	for _, p := range all {
		s := p.Stats()
		t.Logf("%s: %d reads from the cache, %d mismatches, %d MiB stored", p.name, s.Hits, s.Mismatches, s.Stored/mib)
		if s.Hits == 0 || s.Stored == 0 {
			t.Errorf("%s: %d reads from the cache, %d bytes stored; that is not what this test is for", p.name, s.Hits, s.Stored)
		}
		if s.Mismatches == 0 && p.name != "raw" { // there the entries are cleared before the bytes go
			t.Errorf("%s: nothing was thrown away that was there", p.name)
		}
	}
	t.Logf("%d MiB thrown away", evicted/mib)
	if evicted < int64(len(disk)) {
		t.Errorf("%d bytes thrown away, want at least %d", evicted, len(disk))
	}
}
