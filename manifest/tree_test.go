package manifest_test

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/manifest"
)

// memFile is a file in memory.
type memFile struct {
	mu   sync.Mutex
	data []byte
}

func (f *memFile) WriteAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if end := int(off) + len(p); end > len(f.data) {
		f.data = append(f.data, make([]byte, end-len(f.data))...)
	}
	return copy(f.data[off:], p), nil
}

func (f *memFile) ReadAt(p []byte, off int64) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return bytes.NewReader(f.data).ReadAt(p, off)
}

// leafOf is what is said of block n of a synthetic image.
func leafOf(n int64) manifest.Leaf {
	return manifest.Leaf{Codec: uint8(n % 5), Length: n * 7, Hash: sha256.Sum256(binary.BigEndian.AppendUint64(nil, uint64(n)))}
}

func synthetic(_ context.Context, first int64, leaves []manifest.Leaf) error {
	for i := range leaves {
		leaves[i] = leafOf(first + int64(i))
	}
	return nil
}

// build builds the tree of a synthetic image.
func build(t testing.TB, blocks int64) (*manifest.Manifest, []byte) {
	t.Helper()
	m := goldenManifest()
	m.Blocks = blocks
	var f memFile
	root, err := manifest.Build(t.Context(), &f, m.Facts, 4, synthetic, nil)
	if err != nil {
		t.Fatal(err)
	}
	m.Root = root
	return m, f.data
}

// open opens a tree.
func open(t testing.TB, src blockio.Source, m *manifest.Manifest) *manifest.Tree {
	t.Helper()
	tree, err := manifest.OpenTree(src, m)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tree.Close)
	return tree
}

// reference is the root and the file of a tree as docs/manifest.md says it, in other words
// than the code.
func reference(m *manifest.Manifest) (root [32]byte, file []byte) {
	var levels [][]byte
	var level []byte
	for n := range m.Blocks {
		l := leafOf(n)
		level = binary.BigEndian.AppendUint64(level, uint64(l.Codec)<<56+uint64(l.Length))
		level = append(level, l.Hash[:]...)
	}
	size := 512 * 40
	for {
		levels = append(levels, level)
		var above []byte
		for k := 0; k == 0 || k*size < len(level); k++ {
			head := append([]byte{1, byte(len(levels) - 1)}, binary.BigEndian.AppendUint64(nil, uint64(k))...)
			sum := sha256.Sum256(append(head, level[k*size:min((k+1)*size, len(level))]...))
			above = append(above, sum[:]...)
		}
		if len(above) == 32 {
			for _, level := range slices.Backward(levels) {
				file = append(file, level...)
			}
			facts := fmt.Sprintf("size: %d\ncontainer: %s\nblock-size: %d\nblocks: %d\nstart: %d\nhash: sha256\n", m.Size, m.Container, m.BlockSize, m.Blocks, m.Start)
			return sha256.Sum256(append(append([]byte{2}, facts...), above...)), file
		}
		level, size = above, 256*32
	}
}

func TestBuild(t *testing.T) {
	for _, blocks := range []int64{0, 1, 511, 512, 513, 1024, 512*256 - 1, 512 * 256, 512*256 + 1, 512*512 + 1} {
		t.Run(fmt.Sprint(blocks), func(t *testing.T) {
			t.Parallel()
			m, file := build(t, blocks)
			root, want := reference(m)
			if m.Root != root || !bytes.Equal(file, want) {
				t.Fatalf("root %v, %d bytes; want %x, %d bytes", m.Root, len(file), root, len(want))
			}
			if int64(len(file)) != manifest.HashesSize(blocks) {
				t.Errorf("%d bytes, HashesSize says %d", len(file), manifest.HashesSize(blocks))
			}
			tree := open(t, &blockiotest.Source{Data: file}, m)
			if err := tree.Top(t.Context()); err != nil {
				t.Error(err)
			}
			for n := int64(0); n < blocks; n += 1 + blocks/1000 {
				if got, err := tree.Leaf(t.Context(), n); err != nil || got != leafOf(n) {
					t.Fatalf("block %d: %v, %v; want %v", n, got, err, leafOf(n))
				}
			}
			if blocks > 0 {
				if got, err := tree.Leaf(t.Context(), blocks-1); err != nil || got != leafOf(blocks-1) {
					t.Errorf("the last block: %v, %v; want %v", got, err, leafOf(blocks-1))
				}
			}
		})
	}
}

// Whichever bit of the file is flipped: what is under its page is not believed, the rest is.
func TestFlippedHashes(t *testing.T) {
	const blocks = 512*256 + 1 // pages of three levels
	m, file := build(t, blocks)
	level1 := int64(32 * 2)
	level0 := level1 + 32*257
	tests := []struct {
		name string
		at   int64
		n    int64 // a block that is hidden
		page string
		fine int64 // one that is not; -1: none
	}{
		{"top", 5, 0, "page 0 of level 2", -1},
		{"first page of level 1", level1 + 100, 0, "page 0 of level 1", 512 * 256},
		{"second page of level 1", level1 + 32*256, 512 * 256, "page 1 of level 1", 0},
		{"first leaf's codec", level0, 511, "page 0 of level 0", 512},
		{"a leaf's length", level0 + 40*600 + 7, 600, "page 1 of level 0", 511},
		{"last leaf's hash", level0 + 40*blocks - 1, blocks - 1, "page 256 of level 0", 0},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			bad := bytes.Clone(file)
			bad[test.at] ^= 0x10
			tree := open(t, &blockiotest.Source{Data: bad}, m)
			want := "the hashes are not those of the manifest: " + test.page + " does not match"
			if _, err := tree.Leaf(t.Context(), test.n); !errors.Is(err, manifest.ErrHashes) || err.Error() != want {
				t.Errorf("block %d: error %v, want %s", test.n, err, want)
			}
			if test.fine >= 0 {
				if got, err := tree.Leaf(t.Context(), test.fine); err != nil || got != leafOf(test.fine) {
					t.Errorf("block %d: %v, %v", test.fine, got, err)
				}
			}
			if err := tree.Top(t.Context()); (err != nil) != (test.name == "top") {
				t.Errorf("Top: %v", err)
			}
		})
	}
	// What the manifest says of the image is part of the root.
	for name, change := range map[string]func(m *manifest.Manifest){
		"size":       func(m *manifest.Manifest) { m.Size++ },
		"container":  func(m *manifest.Manifest) { m.Container = "cloop-v4" },
		"block size": func(m *manifest.Manifest) { m.BlockSize *= 2 },
		"start":      func(m *manifest.Manifest) { m.Start++ },
		"root":       func(m *manifest.Manifest) { m.Root[0] ^= 1 },
	} {
		other := *m
		change(&other)
		tree := open(t, &blockiotest.Source{Data: file}, &other)
		if err := tree.Top(t.Context()); !errors.Is(err, manifest.ErrHashes) {
			t.Errorf("another %s: error %v, want ErrHashes", name, err)
		}
	}
	for _, size := range []int{0, len(file) - 1, len(file) + 1} {
		data := append(bytes.Clone(file), 0)[:size]
		if _, err := manifest.OpenTree(&blockiotest.Source{Data: data}, m); !errors.Is(err, manifest.ErrHashes) {
			t.Errorf("a file of %d bytes: error %v, want ErrHashes", size, err)
		}
	}
}

// What was damaged on its way is read once more.
func TestMendedHashes(t *testing.T) {
	m, file := build(t, 513)
	times := 1
	src := &blockiotest.Source{Data: file}
	src.Open = func(_ context.Context, r blockio.Range, body io.Reader) (io.Reader, error) {
		if r.Off == 0 || times == 0 {
			return body, nil
		}
		if r.Refetch {
			t.Error("the first read is none")
		}
		times--
		bad, err := io.ReadAll(body)
		bad[len(bad)/2] ^= 1
		return bytes.NewReader(bad), err
	}
	tree := open(t, src, m)
	if got, err := tree.Leaf(t.Context(), 512); err != nil || got != leafOf(512) {
		t.Errorf("%v, %v", got, err)
	}
	refetched := 0
	for _, r := range src.Asked() {
		if r.Refetch {
			refetched++
		}
	}
	if refetched != 1 {
		t.Errorf("%d ranges asked for past all that keeps them, want 1", refetched)
	}
}

// A page is read once for all who want it, with the page above it at the same time; and
// alone.
func TestPageIsReadOnce(t *testing.T) {
	m, file := build(t, 5000)
	synctest.Test(t, func(t *testing.T) {
		src := &blockiotest.Source{Data: file}
		src.Open = func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			time.Sleep(time.Second)
			return body, nil
		}
		tree := open(t, src, m)
		begin := time.Now()
		var wg sync.WaitGroup
		for n := range int64(512) {
			wg.Go(func() {
				if got, err := tree.Leaf(t.Context(), 512+n); err != nil || got != leafOf(512+n) {
					t.Errorf("block %d: %v, %v", 512+n, got, err)
				}
			})
		}
		wg.Wait()
		if took := time.Since(begin); took != time.Second {
			t.Errorf("it took %v, want one round trip of 1s", took)
		}
		if asked := src.Asked(); len(asked) != 2 {
			t.Errorf("asked for %v, want two pages", asked)
		}
		tree.Close()
		for range 1100 {
			if _, err := tree.Leaf(t.Context(), 0); err == nil {
				t.Fatal("a page comes after Close")
			}
		}
	})
}

// Who waits for a page ends with his context; the page comes for the others.
func TestWaitForPage(t *testing.T) {
	m, file := build(t, 10)
	synctest.Test(t, func(t *testing.T) {
		src := &blockiotest.Source{Data: file}
		src.Open = func(ctx context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			select {
			case <-time.After(10 * time.Second):
				return body, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		tree := open(t, src, m)
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		if _, err := tree.Leaf(ctx, 1); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("error %v, want the context's", err)
		}
		if got, err := tree.Leaf(t.Context(), 1); err != nil || got != leafOf(1) {
			t.Errorf("%v, %v", got, err)
		}
		if asked := src.Asked(); len(asked) != 1 {
			t.Errorf("asked for %v, want one range", asked)
		}
		tree.Close()
		if _, err := tree.Leaf(t.Context(), 1); err != nil {
			t.Errorf("what is in memory, after Close: %v", err)
		}
	})
}

// A failure lasts for a second, not for ever.
func TestFailedPage(t *testing.T) {
	m, file := build(t, 10)
	synctest.Test(t, func(t *testing.T) {
		bad := errors.New("no line")
		src := &blockiotest.Source{Data: file}
		src.Open = func(context.Context, blockio.Range, io.Reader) (io.Reader, error) {
			time.Sleep(time.Second)
			return nil, bad
		}
		tree := open(t, src, m)
		for range 3 {
			if _, err := tree.Leaf(t.Context(), 1); !errors.Is(err, bad) || !strings.HasPrefix(err.Error(), "read the hashes: ") {
				t.Errorf("error %v, want the source's", err)
			}
		}
		if asked := src.Asked(); len(asked) != 1 {
			t.Errorf("asked for %v, want one range", asked)
		}
		src.Open = nil
		time.Sleep(1100 * time.Millisecond)
		if got, err := tree.Leaf(t.Context(), 1); err != nil || got != leafOf(1) {
			t.Errorf("%v, %v", got, err)
		}
		tree.Close()
	})
}

// Who wants a page that was asked for before he came is not failed by that: he has his own
// time, and so has each that waits with him.
func TestReaderHasHisOwnTime(t *testing.T) {
	const stall = 30 * time.Second
	m, file := build(t, 1024)
	tests := []struct {
		name  string
		first func(tree *manifest.Tree)
		comes time.Duration // after that
		takes time.Duration // what is asked for then
	}{
		{"joined", func(tree *manifest.Tree) { tree.Expect(0, 1) }, stall - 5*time.Second, 15 * time.Second},
		{"joined another reader", func(tree *manifest.Tree) { go tree.Leaf(context.Background(), 0) }, stall - 5*time.Second, 15 * time.Second},
		{"the page above", func(tree *manifest.Tree) { tree.Expect(512, 1) }, stall - 20*time.Second, 5 * time.Second},
		{"the page above, and the line is slow", func(tree *manifest.Tree) { tree.Expect(512, 1) }, stall - 5*time.Second, 15 * time.Second},
		{"failed ahead of him", func(tree *manifest.Tree) { tree.Expect(0, 1) }, stall + time.Second/2, 15 * time.Second},
		{"the page above failed for another", func(tree *manifest.Tree) { go tree.Leaf(context.Background(), 512) }, stall + time.Second/2, 15 * time.Second},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				begin := time.Now()
				src := &blockiotest.Source{Data: file}
				src.Open = func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
					if time.Since(begin) < time.Second {
						time.Sleep(stall)
						return nil, errors.New("gave up")
					}
					time.Sleep(test.takes)
					return body, nil
				}
				tree := open(t, src, m)
				test.first(tree)
				time.Sleep(test.comes)
				var wg sync.WaitGroup
				for patience, ok := range map[time.Duration]bool{stall: true, stall - time.Second: true, time.Second: false} {
					wg.Go(func() {
						ctx, cancel := context.WithTimeout(t.Context(), patience)
						defer cancel()
						got, err := tree.Leaf(ctx, 0)
						if ok && (err != nil || got != leafOf(0)) || !ok && !errors.Is(err, context.DeadlineExceeded) {
							t.Errorf("with a patience of %v: %v, %v", patience, got, err)
						}
					})
				}
				wg.Wait()
				if asked := len(src.Asked()); asked > 5 {
					t.Errorf("%d pages were asked for, want two, each at most twice, and what came first", asked)
				}
				tree.Close()
			})
		})
	}
}

// The memory for pages is bounded, and what went comes again.
func TestPagesAreBounded(t *testing.T) {
	const pages = 600
	m, file := build(t, 512*pages)
	src := &blockiotest.Source{Data: file}
	tree := open(t, src, m)
	for round := range 2 {
		for k := range int64(pages) {
			if got, err := tree.Leaf(t.Context(), 512*k); err != nil || got != leafOf(512*k) {
				t.Fatalf("block %d: %v, %v", 512*k, got, err)
			}
		}
		if asked := len(src.Asked()); asked < pages {
			t.Errorf("round %d: %d pages were read, want all %d: more than may be kept", round, asked, pages)
		}
	}
}

// However many pages are wanted, the memory for those that do not come is bounded; who comes
// then waits for room, as long as he wants.
func TestPagesUnderWayAreBounded(t *testing.T) {
	const pages = 1100
	m, file := build(t, 512*pages)
	synctest.Test(t, func(t *testing.T) {
		open := make(chan struct{})
		src := &blockiotest.Source{Data: file}
		src.Open = func(ctx context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			select {
			case <-open:
				return body, nil
			case <-ctx.Done():
				return nil, ctx.Err()
			}
		}
		tree, err := manifest.OpenTree(src, m)
		if err != nil {
			t.Fatal(err)
		}
		tree.Expect(0, m.Blocks)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		begin := time.Now()
		if _, err := tree.Leaf(ctx, m.Blocks-1); !errors.Is(err, context.DeadlineExceeded) || time.Since(begin) != 10*time.Second {
			t.Errorf("a page too many: error %v after %v, want the context's after 10s", err, time.Since(begin))
		}
		var wg sync.WaitGroup
		for i := range int64(16 * 100) {
			wg.Go(func() {
				n := m.Blocks - 1 - i/16*512
				if got, err := tree.Leaf(t.Context(), n); err != nil || got != leafOf(n) {
					t.Errorf("block %d: %v, %v", n, got, err)
				}
			})
		}
		synctest.Wait()
		if asked := len(src.Asked()); asked > 1024+pages/256+2 {
			t.Errorf("%d pages are under way, want at most 1024, and those above them", asked)
		}
		close(open)
		wg.Wait()
		tree.Close()
	})
}

// Whatever is changed in the file, what is believed is what was signed. A change is the place of
// a byte, in two bytes, and what it is XORed with.
func FuzzHashes(f *testing.F) {
	const blocks = 600
	m, file := build(f, blocks)
	f.Add([]byte{}, uint16(0))
	f.Add([]byte{0, 3, 1}, uint16(599))
	f.Add([]byte{0x50, 0x40, 1, 0x50, 0x41, 0x80}, uint16(512))
	f.Fuzz(func(t *testing.T, changes []byte, n uint16) {
		data := bytes.Clone(file)
		for ; len(changes) >= 3; changes = changes[3:] {
			data[int(binary.BigEndian.Uint16(changes))%len(data)] ^= changes[2]
		}
		tree, err := manifest.OpenTree(&blockiotest.Source{Data: data}, m)
		if err != nil {
			t.Fatal(err)
		}
		defer tree.Close()
		at := int64(n) % blocks
		leaf, err := tree.Leaf(t.Context(), at)
		switch {
		case err == nil && leaf != leafOf(at):
			t.Errorf("block %d: %v", at, leaf)
		case err != nil && !errors.Is(err, manifest.ErrHashes):
			t.Errorf("error %v, want ErrHashes", err)
		case err != nil && bytes.Equal(data, file):
			t.Error(err)
		}
	})
}
