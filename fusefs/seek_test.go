package fusefs

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
)

// holes is a disk of 8 pages and a bit: data in pages 0, 1 and 5, zeros elsewhere.
func holes() []byte {
	p := make([]byte, 8*pageSize+100)
	copy(p, bytes.Repeat([]byte{1}, 2*pageSize))
	copy(p[5*pageSize:], bytes.Repeat([]byte{1}, pageSize))
	return p
}

func TestLseek(t *testing.T) {
	const page, size = pageSize, 8*pageSize + 100
	r := tree(numbered(), Options{Partitions: func(context.Context) ([]Partition, error) { return twoParts, nil }})
	if err := r.showPartitions(t.Context()); err != nil {
		t.Fatal(err)
	}
	dev := blockiotest.NewDevice(holes())
	whole := writableTree(dev, Options{})
	part := newDisk(whole.device, whole.attr, blockio.Extent{Off: page + 1000, Len: 4 * page})
	unknown := r.disk
	for _, c := range []struct {
		name  string
		file  *disk
		off   uint64
		data  int64 // where the next is; negative: ENXIO
		holeA int64
	}{
		{"start", whole.disk, 0, 0, 2 * page},
		{"in data", whole.disk, 100, 100, 2 * page},
		{"before a hole", whole.disk, 2*page - 1, 2*page - 1, 2 * page},
		{"in a hole", whole.disk, 3*page + 5, 5 * page, 3*page + 5},
		{"data again", whole.disk, 5 * page, 5 * page, 6 * page},
		{"the last hole", whole.disk, 6 * page, -1, 6 * page},
		{"last byte", whole.disk, size - 1, -1, size - 1},
		{"end", whole.disk, size, -1, -1},
		{"beyond", whole.disk, size + 1, -1, -1},
		{"negative", whole.disk, math.MaxUint64, -1, -1},
		{"part: start", part, 0, 0, page - 1000},
		{"part: in a hole", part, 2 * page, 4*page - 1000, 2 * page},
		{"part: last byte", part, 4*page - 1, 4*page - 1, 4 * page},
		{"part: end", part, 4 * page, -1, -1},
		{"unknown", unknown, 17, 17, int64(len(numbered()))},
	} {
		for whence, want := range map[uint32]int64{unix.SEEK_DATA: c.data, unix.SEEK_HOLE: c.holeA} {
			got, e := c.file.Lseek(t.Context(), nil, c.off, whence)
			if want < 0 && e != syscall.ENXIO || want >= 0 && (e != 0 || got != uint64(want)) {
				t.Errorf("%s: Lseek(%d, %d) = %d, %v; want %d (negative: ENXIO)", c.name, c.off, whence, got, e, want)
			}
		}
	}
	if _, e := whole.Lseek(t.Context(), nil, 0, unix.SEEK_END); e != syscall.EINVAL {
		t.Errorf("SEEK_END: %v, want EINVAL", e)
	}
}

// What can't be known is data, and keeps nobody longer than the timeout.
func TestLseekWithoutMap(t *testing.T) {
	const size, off, known = 10_000, 100, 500
	for _, c := range []struct {
		name  string
		at    func(ctx context.Context) (int64, bool, error)
		after time.Duration
	}{
		{"error", func(context.Context) (int64, bool, error) { return 0, true, errors.New("no map") }, 0},
		{"nothing", func(context.Context) (int64, bool, error) { return 0, true, nil }, 0},
		{"stuck", func(ctx context.Context) (int64, bool, error) {
			<-ctx.Done()
			return 0, true, ctx.Err()
		}, time.Second + timeoutSlack},
		{"slow", func(context.Context) (int64, bool, error) {
			time.Sleep(time.Second + timeoutSlack)
			return 1, true, nil
		}, time.Second + timeoutSlack},
	} {
		for _, hole := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, hole %v", c.name, hole), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					// As far as it is known there is nothing of what is looked for.
					d := tree(nil, Options{Timeout: time.Second}).disk
					d.dev = mapped{make(memory, size), func(ctx context.Context, off int64) (int64, bool, error) {
						if off < known {
							return known - off, !hole, nil
						}
						return c.at(ctx)
					}}
					d.attr.Size = size
					whence, want := uint32(unix.SEEK_DATA), uint64(known)
					if hole {
						whence, want = unix.SEEK_HOLE, size
					}
					start := time.Now()
					got, e := d.Lseek(t.Context(), nil, off, whence)
					if got != want || e != 0 || time.Since(start) != c.after {
						t.Errorf("Lseek = %d, %v after %v; want %d after %v", got, e, time.Since(start), want, c.after)
					}
				})
			})
		}
	}
}

// Who is interrupted without having to wait gets his answer.
func TestInterruptedLseek(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := writableTree(blockiotest.NewDevice(holes()), Options{Timeout: time.Second})
	if got, e := w.Lseek(ctx, nil, 2*pageSize, unix.SEEK_DATA); got != 5*pageSize || e != 0 {
		t.Errorf("Lseek = %d, %v; want %d", got, e, 5*pageSize)
	}
}

// mapped is a disk with a map of its own.
type mapped struct {
	memory
	at func(ctx context.Context, off int64) (int64, bool, error)
}

func (m mapped) MapAt(ctx context.Context, off int64) (int64, bool, error) { return m.at(ctx, off) }
