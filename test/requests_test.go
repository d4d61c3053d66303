//go:build integration

package test

import (
	"slices"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// Adjacent blocks that are missing are asked for together: up to 256 KiB stored
// cost one request.
func TestRunOfMissingBlocks(t *testing.T) {
	tests := []struct {
		name      string
		blockSize int
		sizes     []int // of the stored blocks
		off, size int   // of the read
		first, n  int   // the blocks it touches
	}{
		{"16 blocks, 256 KiB in all", 64 * kib, blocks(24, 16*kib), 256 * kib, mib, 4, 16},
		{"8 blocks, 256 KiB in all", 128 * kib, blocks(16, 32*kib), 256 * kib, mib, 2, 8},
		{"one block of 256 KiB", mib, blocks(3, 256*kib), mib, mib, 1, 1},
		{"3 incompressible blocks", 64 * kib, blocks(8, 64*kib), 128 * kib, 192 * kib, 2, 3},
		{"zeros", 64 * kib, blocks(40, 0), 0, mib, 0, 16},
		{"from inside a block to inside another", 64 * kib, blocks(24, 20*kib), 100 * kib, 600 * kib, 1, 10},
		{"one page", 64 * kib, blocks(8, 30*kib), 5*64*kib + pageSize, pageSize, 5, 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := makeImage(t, test.blockSize, test.sizes...)
			srv, url := serve(t, s.image)
			dir := mount(t, url)
			srv.Reset()

			args := directRead(diskOf(dir), test.off, test.size)
			got := must(t, args[0], args[1:]...)

			checkBytes(t, "read", got, s.disk[test.off:test.off+test.size])
			from, to := s.offsets[test.first], s.offsets[test.first+test.n]
			want := []testserver.Range{{
				Name: "disk.cloop", Off: int64(from), Len: int64(to - from), Status: 206, Sent: int64(to - from),
			}}
			if got := srv.Stats().Ranges; !slices.Equal(got, want) {
				t.Errorf("requests are %v, want %v", got, want)
			}
			umount(t, dir)
		})
	}
}

// However many readers want a block that is missing, it is asked for once.
func TestReadersOfOneBlock(t *testing.T) {
	const readers = 64
	tests := []struct {
		name string
		rtt  time.Duration
		size int // of each read
	}{
		{"pages, RTT 50 ms", 50 * time.Millisecond, pageSize},
		{"pages, no RTT", 0, pageSize},
		{"whole block, RTT 50 ms", 50 * time.Millisecond, 64 * kib},
		{"whole block, no RTT", 0, 64 * kib},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			const block = 7
			s := makeImage(t, 64*kib, blocks(16, 40*kib)...)
			srv, url := serve(t, s.image)
			dir := mount(t, url)
			srv.Reset()
			srv.Set(func(c *testserver.Config) { c.RTT = test.rtt })

			offset := func(i int) int { return block*64*kib + i*test.size%(64*kib) }
			var procs []*process
			for i := range readers {
				args := directRead(diskOf(dir), offset(i), test.size)
				procs = append(procs, start(t, args[0], args[1:]...))
			}
			for i, p := range procs {
				checkBytes(t, p.name, p.result(t).stdout, s.disk[offset(i):offset(i)+test.size])
			}

			if st := srv.Stats(); st.Requests != 1 {
				t.Errorf("%d readers cost %d requests, want 1: %v", readers, st.Requests, st.Ranges)
			}
			umount(t, dir)
		})
	}
}

// Connections are kept: reading everything takes many requests and few
// connections, and brings no byte twice.
func TestKeptConnections(t *testing.T) {
	tests := []struct {
		name  string
		flags []string // of dd
		// conns is the most connections allowed: O_DIRECT reads come one after
		// the other, read-ahead makes a few at a time.
		conns int
	}{
		{"direct", []string{"iflag=direct", "bs=1M"}, 2},
		{"buffered", []string{"bs=1M"}, 8},
	}
	s := makeImage(t, 64*kib, blocks(1024, 50*kib)...)
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			srv, url := serve(t, s.image)
			dir := mount(t, url)
			got := must(t, "dd", append(test.flags, "if="+diskOf(dir), "status=none")...)
			checkBytes(t, "disk", got, s.disk)

			st := srv.Stats()
			t.Logf("%d requests, %d connections, %d bytes for an image of %d", st.Requests, st.Conns, st.Bytes, len(s.image))
			if st.Conns > test.conns || st.Conns*10 > st.Requests {
				t.Errorf("%d connections for %d requests, want at most %d", st.Conns, st.Requests, test.conns)
			}
			// The first request brings some kilobytes whose second half may have
			// to be asked for again, as part of the index or of a block.
			if slack := int64(16 * kib); st.Bytes > int64(len(s.image))+slack {
				t.Errorf("%d bytes were sent, want at most %d more than the image's %d", st.Bytes, slack, len(s.image))
			}
			umount(t, dir)
		})
	}
}

// The price of the first page of a fresh mount: one request for the header and
// the start of the index, one for the end of the index if it is longer, and one
// for the block.
func TestFirstPage(t *testing.T) {
	const head = 8 * kib // what the first request asks for
	tests := []struct {
		name   string
		blocks int
		want   []testserver.Range
	}{
		{"short index", 64, []testserver.Range{{Len: head}}},
		{"long index", 2000, []testserver.Range{{Len: head}, {Off: 136 + 8*3*512, Len: 8 * (2001 - 3*512)}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			const n = 40
			sizes := blocks(test.blocks, 0)
			sizes[n] = 10 * kib
			s := makeImage(t, 64*kib, sizes...)
			srv, url := serve(t, s.image)
			dir := mount(t, url)
			args := directRead(diskOf(dir), n*64*kib, pageSize)
			checkBytes(t, "page", must(t, args[0], args[1:]...), s.block(n)[:pageSize])

			off, size := s.stored(n)
			want := slices.Concat(test.want, []testserver.Range{{Off: int64(off), Len: int64(size)}})
			for i := range want {
				want[i].Name, want[i].Status, want[i].Sent = "disk.cloop", 206, want[i].Len
			}
			st := srv.Stats()
			t.Logf("%d requests, %d bytes", st.Requests, st.Bytes)
			if !slices.Equal(st.Ranges, want) {
				t.Errorf("requests are %v, want %v", st.Ranges, want)
			}
			umount(t, dir)
		})
	}
}
