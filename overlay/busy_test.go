package overlay

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// A cluster has one writer at a time: who wants one that is being written waits until
// all of it is done, or his context ends; who wants others does not.
func TestOneWriterOfACluster(t *testing.T) {
	for _, c := range []struct {
		first, end int64
		waits      bool
	}{{0, 3, false}, {0, 4, true}, {3, 4, true}, {2, 9, true}, {4, 5, true}, {5, 6, true}, {5, 9, true}, {6, 9, false}} {
		synctest.Test(t, func(t *testing.T) {
			var b busy
			release, err := b.lock(t.Context(), 3, 6)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := b.lock(t.Context(), 20, 21); err != nil { // until the end
				t.Fatal(err)
			}
			ctx, cancel := context.WithTimeout(t.Context(), time.Second)
			defer cancel()
			again, err := b.lock(ctx, c.first, c.end)
			if waited := err != nil; waited != c.waits || waited && !errors.Is(err, context.DeadlineExceeded) {
				t.Errorf("clusters %d to %d: %v; want that they can't be had: %v", c.first, c.end, err, c.waits)
			}
			if err == nil {
				again()
			}
			// Who still waits gets them.
			time.AfterFunc(time.Minute, release)
			begin := time.Now()
			if again, err = b.lock(t.Context(), c.first, c.end); err != nil {
				t.Fatal(err)
			}
			if waited := time.Since(begin); (waited == time.Minute) != c.waits {
				t.Errorf("clusters %d to %d were had after %v; want that they are waited for: %v", c.first, c.end, waited, c.waits)
			}
			again()
			time.Sleep(time.Hour)
			b.mu.Lock()
			defer b.mu.Unlock()
			if len(b.held) != 1 {
				t.Errorf("%d are held, want the other", len(b.held))
			}
		})
	}
}

// slowDisk is a disk below that takes a second for each read.
type slowDisk struct{ baseDisk }

func (d slowDisk) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	time.Sleep(time.Second)
	return d.baseDisk.ReadAtContext(ctx, p, off)
}

// Two who write parts of one fresh cluster at a time lose nothing of each other.
func TestPartsWrittenAtOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		disk := newDisk(slowDisk{baseDisk{crashSize}}, newMemFile(crashSize), newMemFile(mapSize(crashSize)))
		for i := range int64(2) {
			go func() {
				p := bytes.Repeat([]byte{200}, 100)
				if _, err := disk.WriteAtContext(context.Background(), p, 5*clusterSize+i*1000); err != nil {
					t.Error(err)
				}
			}()
		}
		// Who gives up waiting for them has written nothing, and is told so.
		ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
		defer cancel()
		synctest.Wait()
		if n, err := disk.WriteAtContext(ctx, []byte("x"), 5*clusterSize+500); n != 0 || !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("a write that could not wait: %d, %v", n, err)
		}
		time.Sleep(time.Minute)
		want := bytes.Clone(baseClusters[5])
		for i := range int64(2) {
			copy(want[i*1000:], bytes.Repeat([]byte{200}, 100))
		}
		if got, err := cluster(disk, 5); err != nil || !bytes.Equal(got, want) {
			t.Errorf("something that was written is not there (%v)", err)
		}
		if disk.Differs(blockio.Extent{Off: 4 * clusterSize, Len: clusterSize}) || !disk.Differs(blockio.Extent{Off: 4 * clusterSize, Len: clusterSize + 1}) {
			t.Error("another cluster differs, or this one does not")
		}
	})
}
