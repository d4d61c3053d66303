package fusefs

import (
	"bytes"
	"context"
	"errors"
	"log/slog"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"

	"github.com/cloopfs/cloopfs/blockio"
)

// memory is a disk of these bytes.
type memory []byte

func (m memory) Size() int64 { return int64(len(m)) }

func (m memory) ReadAtContext(_ context.Context, p []byte, off int64) (int, error) {
	return bytes.NewReader(m).ReadAt(p, off)
}

// tree is the directory of a mount without a kernel.
func tree(disk memory, opt Options) *root {
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	r := newRoot(disk, opt)
	fs.NewNodeFS(r, &fs.Options{})
	return r
}

// listing is the names and inodes that a listing has.
func listing(t *testing.T, r *root) []fuse.DirEntry {
	t.Helper()
	stream, errno := r.Readdir(t.Context())
	if errno != 0 {
		t.Fatalf("Readdir: %v", errno)
	}
	var entries []fuse.DirEntry
	for stream.HasNext() {
		e, errno := stream.Next()
		if errno != 0 {
			t.Fatalf("Next: %v", errno)
		}
		entries = append(entries, fuse.DirEntry{Name: e.Name, Ino: e.Ino, Mode: e.Mode})
	}
	return entries
}

func find(r *root, name string) (*fs.Inode, syscall.Errno) {
	return r.Lookup(context.Background(), name, new(fuse.EntryOut))
}

// numbered is a disk of 8 sectors, each with its number in every byte.
func numbered() memory {
	disk := make(memory, 8*sectorSize)
	for i := range disk {
		disk[i] = byte(i / sectorSize)
	}
	return disk
}

var twoParts = []Partition{
	{1, blockio.Extent{Off: sectorSize, Len: 2 * sectorSize}},
	{5, blockio.Extent{Off: 6 * sectorSize, Len: sectorSize}},
}

func TestPartitionFiles(t *testing.T) {
	content := numbered()
	r := tree(content, Options{
		UID: 7, Mode: 0o444, ModTime: time.Unix(1000, 0),
		Partitions: func(context.Context) ([]Partition, error) { return twoParts, nil },
	})
	want := []fuse.DirEntry{
		{Name: "disk.img", Ino: 2, Mode: syscall.S_IFREG},
		{Name: "disk.img.p1", Ino: 3, Mode: syscall.S_IFREG},
		{Name: "disk.img.p5", Ino: 7, Mode: syscall.S_IFREG},
	}
	if diff := cmp.Diff(want, listing(t, r)); diff != "" {
		t.Errorf("listing (-want +got):\n%s", diff)
	}
	for _, p := range twoParts {
		name := map[int]string{1: "disk.img.p1", 5: "disk.img.p5"}[p.Number]
		var out fuse.EntryOut
		child, e := r.Lookup(t.Context(), name, &out)
		if e != 0 {
			t.Fatalf("Lookup(%s): %v", name, e)
		}
		if out.Size != uint64(p.Len) || out.Blocks != uint64(p.Len/sectorSize) || out.Mode != 0o444 || out.Uid != 7 || out.Mtime != 1000 {
			t.Errorf("%s: attributes %+v", name, out.Attr)
		}
		file := child.Operations().(*disk)
		for _, c := range []struct{ off, n, want int64 }{
			{0, p.Len, p.Len}, {0, 10 * p.Len, p.Len}, {100, 50, 50}, {p.Len - 1, 100, 1}, {p.Len, 100, 0}, {p.Len + 1, 100, 0},
		} {
			res, e := file.Read(t.Context(), nil, make([]byte, c.n), c.off)
			if e != 0 {
				t.Fatalf("%s: Read(%d, %d): %v", name, c.off, c.n, e)
			}
			got, _ := res.Bytes(nil)
			if want := content[p.Off+min(c.off, p.Len):][:c.want]; !bytes.Equal(got, want) {
				t.Errorf("%s: Read(%d, %d) is %d bytes, want %d of the partition's own", name, c.off, c.n, len(got), len(want))
			}
		}
	}
}

func TestTableIsReadWhenItIsNeeded(t *testing.T) {
	reads := 0
	r := tree(numbered(), Options{Partitions: func(context.Context) ([]Partition, error) {
		reads++
		return twoParts, nil
	}})
	for _, name := range []string{"disk.img", "disk", "disk.img2", "autorun.inf"} {
		if _, e := find(r, name); (e == 0) != (name == "disk.img") {
			t.Errorf("Lookup(%s): %v", name, e)
		}
	}
	r.Getattr(t.Context(), nil, new(fuse.AttrOut))
	r.Statfs(t.Context(), new(fuse.StatfsOut))
	if reads != 0 {
		t.Fatalf("the table was read %d times before somebody asked", reads)
	}
	for name, want := range map[string]syscall.Errno{"disk.img.p1": 0, "disk.img.p2": syscall.ENOENT, "disk.img.p": syscall.ENOENT, "disk.img.p05": syscall.ENOENT} {
		if _, e := find(r, name); e != want {
			t.Errorf("Lookup(%s): %v, want %v", name, e, want)
		}
	}
	listing(t, r)
	if reads != 1 {
		t.Errorf("the table was read %d times, want once", reads)
	}
}

func TestNoTable(t *testing.T) {
	for name, partitions := range map[string]func(context.Context) ([]Partition, error){
		"none":  nil,
		"empty": func(context.Context) ([]Partition, error) { return nil, nil },
	} {
		r := tree(numbered(), Options{Partitions: partitions})
		if _, e := find(r, "disk.img.p1"); e != syscall.ENOENT {
			t.Errorf("%s: Lookup of a partition: %v, want ENOENT", name, e)
		}
		if got := listing(t, r); len(got) != 1 || got[0].Name != DiskName {
			t.Errorf("%s: listing is %v, want the disk", name, got)
		}
	}
}

// What fails now may work later: the disk is listed alone, and the error is not
// remembered.
func TestTableFailureIsNotRemembered(t *testing.T) {
	fail := true
	var log bytes.Buffer
	r := tree(numbered(), Options{
		Logger: slog.New(slog.NewTextHandler(&log, nil)),
		Partitions: func(context.Context) ([]Partition, error) {
			if fail {
				return nil, errors.New("line is down")
			}
			return twoParts, nil
		},
	})
	if _, e := find(r, "disk.img.p1"); e != syscall.EIO {
		t.Errorf("Lookup: %v, want EIO", e)
	}
	if got := listing(t, r); len(got) != 1 {
		t.Errorf("listing is %v, want the disk alone", got)
	}
	if !bytes.Contains(log.Bytes(), []byte("line is down")) {
		t.Errorf("the log is %q, want the reason", log.Bytes())
	}
	fail = false
	if _, e := find(r, "disk.img.p1"); e != 0 {
		t.Errorf("Lookup: %v", e)
	}
	if got := listing(t, r); len(got) != 3 {
		t.Errorf("listing is %v, want three files", got)
	}
}

// However many wait for a table that does not come, each waits for the timeout.
func TestWaitForTableEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const timeout = 2 * time.Second
		r := tree(numbered(), Options{Timeout: timeout, Partitions: func(ctx context.Context) ([]Partition, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		}})
		start := time.Now()
		var all sync.WaitGroup
		for i := range 10 {
			time.Sleep(100 * time.Millisecond)
			all.Go(func() {
				begin := time.Now()
				if i%2 == 0 {
					if got := listing(t, r); len(got) != 1 {
						t.Errorf("listing is %v, want the disk alone", got)
					}
				} else if _, e := find(r, "disk.img.p1"); e != syscall.EIO {
					t.Errorf("Lookup: %v, want EIO", e)
				}
				if d := time.Since(begin); d != timeout+timeoutSlack {
					t.Errorf("waited for %v, want %v", d, timeout+timeoutSlack)
				}
			})
		}
		if _, e := find(r, "disk.img"); e != 0 || time.Since(start) > time.Second {
			t.Errorf("Lookup of the disk: %v after %v", e, time.Since(start))
		}
		all.Wait()
	})
}

// Who gives up while waiting for the table ends, and nothing is logged.
func TestWaiterForTableGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := tree(numbered(), Options{
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Partitions: func(ctx context.Context) ([]Partition, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			},
		})
		ctx, cancel := context.WithCancel(t.Context())
		var all sync.WaitGroup
		for range 3 {
			all.Go(func() {
				if _, e := r.Lookup(ctx, "disk.img.p1", new(fuse.EntryOut)); e != syscall.EINTR {
					t.Errorf("Lookup: %v, want EINTR", e)
				}
			})
			all.Go(func() {
				if _, e := r.Readdir(ctx); e != syscall.EINTR {
					t.Errorf("Readdir: %v, want EINTR", e)
				}
			})
		}
		synctest.Wait()
		cancel()
		all.Wait()
		if log.Len() > 0 {
			t.Errorf("the log is %q, want nothing", log.Bytes())
		}
	})
}

// Who waits for the table is one of those of whom there may be too many, and is told so.
func TestCrowdAtTable(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		r := tree(numbered(), Options{
			Logger: slog.New(slog.NewTextHandler(&log, nil)),
			Partitions: func(ctx context.Context) ([]Partition, error) {
				<-ctx.Done()
				return nil, ctx.Err()
			},
		})
		begin := time.Now()
		if _, e := find(r, "disk.img.p1"); e != syscall.EIO || time.Since(begin) != minParked {
			t.Errorf("Lookup: %v after %v, want EIO after %v", e, time.Since(begin), minParked)
		}
		if !bytes.Contains(log.Bytes(), []byte(errCrowded.Error())) {
			t.Errorf("the log is %q, want the reason", log.Bytes())
		}
	})
}
