package partition_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/internal/partition"
)

// The images of testdata/partition; its README says what is in them.
var fixtures = []string{"mbr", "logical", "gpt", "gpt-4k", "empty"}

// unpacked keeps the images, which are used very often.
var unpacked = map[string][]byte{}

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	if disk, ok := unpacked[name]; ok {
		return bytes.Clone(disk)
	}
	packed, err := os.ReadFile(filepath.Join("../../testdata/partition", name+".gz"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	disk, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	unpacked[name] = disk
	return bytes.Clone(disk)
}

// list is a line for each partition: number, start and size in bytes.
func list(parts []partition.Partition) string {
	var b strings.Builder
	for _, p := range parts {
		fmt.Fprintln(&b, p.Number, p.Off, p.Len)
	}
	return b.String()
}

func TestRealTables(t *testing.T) {
	for _, name := range fixtures {
		t.Run(name, func(t *testing.T) {
			want, err := os.ReadFile(filepath.Join("../../testdata/partition", name+".txt"))
			if err != nil {
				t.Fatal(err)
			}
			src := &blockiotest.Source{Data: fixture(t, name)}
			got, err := partition.Read(t.Context(), src)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(want), list(got)); diff != "" {
				t.Errorf("partitions (-want of sfdisk +got):\n%s", diff)
			}
			if n := len(src.Asked()); n > 4 { // of each logical partition a table of its own
				t.Errorf("%d requests", n)
			}
		})
	}
}

// part is an entry of an MBR, in sectors.
type part struct {
	kind        byte
	start, size uint32
}

// table writes an MBR to a sector of a disk.
func table(disk []byte, sector int, parts ...part) {
	p := disk[sector*512:]
	for i, e := range parts {
		entry := p[446+16*i:]
		entry[4] = e.kind
		binary.LittleEndian.PutUint32(entry[8:], e.start)
		binary.LittleEndian.PutUint32(entry[12:], e.size)
	}
	p[510], p[511] = 0x55, 0xaa
}

// disk is one of so many sectors with an MBR.
func disk(sectors int, parts ...part) []byte {
	d := make([]byte, sectors*512)
	table(d, 0, parts...)
	return d
}

func TestCraftedTables(t *testing.T) {
	many := disk(40_000, part{0x05, 1, 39_999})
	for i := range 39_000 {
		table(many, 1+i, part{}, part{0x05, uint32(i + 1), 1})
	}
	for _, c := range []struct {
		name string
		disk []byte
		want string
	}{
		{"nothing", nil, ""},
		{"one sector", disk(1, part{0x83, 0, 1}), ""},
		{"zeros", make([]byte, 10_000), ""},
		{"no mark", append(make([]byte, 511), 1), ""},
		{"an MBR without partitions", disk(10), ""},
		{"whole disk", disk(10, part{0x83, 0, 10}), "1 0 5120\n"},
		{"up to the end", disk(10, part{0x83, 9, 1}), "1 4608 512\n"},
		{"one beyond the end", disk(10, part{0x83, 9, 2}, part{0x83, 10, 1}, part{0x83, 1, 1}), "3 512 512\n"},
		{"far beyond the end", disk(10, part{0x83, 1<<32 - 1, 1<<32 - 1}, part{0x83, 0, 1<<32 - 1}, part{0x83, 1 << 31, 1}), ""},
		{"size 0", disk(10, part{0x83, 1, 0}, part{0x83, 2, 1}), "2 1024 512\n"},
		{"unused", disk(10, part{0, 1, 1}, part{0x83, 2, 1}), "2 1024 512\n"},
		{"one over another", disk(10, part{0x83, 1, 5}, part{0x83, 2, 3}), "1 512 2560\n2 1024 1536\n"},
		{"neither active nor inactive", func() []byte {
			d := disk(10, part{0x83, 1, 1})
			d[446] = 0x20
			return d
		}(), ""},
		{"extended, of each type", func() []byte {
			d := disk(100, part{0x05, 10, 10}, part{0x0f, 20, 10}, part{0x85, 30, 10}, part{0x83, 1, 1})
			for _, at := range []int{10, 20, 30} {
				table(d, at, part{0x83, 1, 2})
			}
			return d
		}(), "4 512 512\n5 5632 1024\n6 10752 1024\n7 15872 1024\n"},
		{"extended, with nothing in it", disk(100, part{0x05, 10, 10}), ""},
		{"extended, in the MBR itself", disk(100, part{0x05, 0, 100}, part{0x83, 1, 1}), "2 512 512\n"},
		{"extended, beyond the end", disk(100, part{0x05, 100, 10}, part{0x83, 1, 1}), "2 512 512\n"},
		{"logical ones beyond the end keep their numbers", func() []byte {
			d := disk(100, part{0x05, 10, 90})
			table(d, 10, part{0x83, 1, 200}, part{0x05, 10, 10})
			table(d, 20, part{0x83, 1, 2})
			return d
		}(), "6 10752 1024\n"},
		{"logical one of size 0 has no number", func() []byte {
			d := disk(100, part{0x05, 10, 90})
			table(d, 10, part{0x83, 1, 0}, part{0x05, 10, 10})
			table(d, 20, part{0x83, 1, 2})
			return d
		}(), "5 10752 1024\n"},
		{"only two entries count", func() []byte {
			d := disk(100, part{0x05, 10, 90})
			table(d, 10, part{0x83, 1, 2}, part{}, part{0x83, 3, 4}, part{0x83, 3, 4})
			return d
		}(), "5 5632 1024\n"},
		{"chain that ends in itself", func() []byte {
			d := disk(100, part{0x05, 10, 90})
			table(d, 10, part{0x83, 1, 2}, part{0x05, 10, 10})
			table(d, 20, part{0x83, 1, 2}, part{0x05, 10, 10})
			return d
		}(), "5 5632 1024\n6 10752 1024\n"},
		{"chain that goes back", func() []byte {
			d := disk(100, part{0x05, 10, 90})
			table(d, 10, part{0x83, 1, 2}, part{0x05, 20, 10})
			table(d, 30, part{0x83, 1, 2}, part{0x05, 10, 10})
			table(d, 20, part{0x83, 1, 2}, part{0x05, 20, 10})
			return d
		}(), "5 5632 1024\n6 15872 1024\n"},
		{"chain that leaves the disk", func() []byte {
			d := disk(100, part{0x05, 10, 90})
			table(d, 10, part{0x83, 1, 2}, part{0x05, 1<<32 - 1, 10})
			return d
		}(), "5 5632 1024\n"},
		{"chain of 39,000 without partitions", many, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			src := &blockiotest.Source{Data: c.disk}
			got, err := partition.Read(t.Context(), src)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, list(got)); diff != "" {
				t.Errorf("partitions (-want +got):\n%s", diff)
			}
			if n := len(src.Asked()); n > 130 {
				t.Errorf("%d requests", n)
			}
		})
	}
}

// A chain is followed as far as anyone would make one.
func TestLongChain(t *testing.T) {
	d := disk(40_000, part{0x05, 10, 39_990})
	for i := range 10_000 {
		table(d, 10+2*i, part{0x83, 1, 1}, part{0x05, uint32(2*i + 2), 2})
	}
	got, err := partition.Read(t.Context(), &blockiotest.Source{Data: d})
	if err != nil {
		t.Fatal(err)
	}
	if len(got) != 128 || got[0].Number != 5 || got[127].Number != 132 || got[127].Off != (10+2*127+1)*512 {
		t.Errorf("got %d partitions, want 128, from number 5 on", len(got))
	}
}

// A file system's first sector ends like an MBR and is none.
func TestBootSectors(t *testing.T) {
	fat := disk(100)
	copy(fat, "\xeb\x3c\x90mkfs.fat")
	copy(fat[54:], "FAT16   ")
	copy(fat[62:], "This is not a bootable disk.  Please insert a bootable floppy and\r\npress any key to try again ... \r\n")
	ntfs := disk(100)
	copy(ntfs, "\xeb\x52\x90NTFS    ")
	copy(ntfs[0x18b:], "\r\nA disk read error occurred\x00\r\nBOOTMGR is compressed\x00\r\nPress Ctrl+Alt+Del to restart\r\n\x00")
	for name, d := range map[string][]byte{"FAT": fat, "NTFS": ntfs} {
		if got, err := partition.Read(t.Context(), &blockiotest.Source{Data: d}); len(got) != 0 || err != nil {
			t.Errorf("%s: got %v, %v; want nothing", name, got, err)
		}
	}
}

// patched is the fixture gpt with a part of its header changed, and the sums right.
func patched(t *testing.T, change func(header, entries []byte)) []byte {
	t.Helper()
	d := fixture(t, "gpt")
	header, entries := d[512:604], d[1024:1024+128*128]
	change(header, entries)
	binary.LittleEndian.PutUint32(header[88:], crc32.ChecksumIEEE(entries))
	clear(header[16:20])
	binary.LittleEndian.PutUint32(header[16:], crc32.ChecksumIEEE(header))
	return d
}

func put32(at int, v uint32) func(header, entries []byte) {
	return func(header, _ []byte) { binary.LittleEndian.PutUint32(header[at:], v) }
}

// A table that contradicts itself is an error, and costs little memory: what is
// allocated in all is more than what is held at any time.
func TestDamaged(t *testing.T) {
	broken := func(at int) []byte {
		d := fixture(t, "gpt")
		d[at] ^= 1
		return d
	}
	for name, d := range map[string][]byte{
		"protective MBR without a GPT":         disk(100, part{0xee, 1, 99}),
		"the same, on a small disk":            disk(2, part{0xee, 1, 1}),
		"one of several entries is protective": disk(100, part{0x83, 1, 1}, part{0xee, 2, 98}),
		"wrong sum of the header":              broken(512 + 40),
		"wrong sum of the entries":             broken(1024 + 60),
		"1025 entries":                         patched(t, put32(80, 1025)),
		"very many entries":                    patched(t, put32(80, 1<<32-1)),
		"entries of 127 bytes":                 patched(t, put32(84, 127)),
		"entries of 0 bytes":                   patched(t, put32(84, 0)),
		"huge entries":                         patched(t, put32(84, 1<<32-1)),
		"entries beyond the end":               patched(t, put32(72, 1<<20)),
		"entries far beyond the end":           patched(t, func(header, _ []byte) { binary.LittleEndian.PutUint64(header[72:], 1<<63) }),
		"header cut off":                       fixture(t, "gpt")[:1024],
		"entries cut off":                      fixture(t, "gpt")[:10_000],
	} {
		t.Run(name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got, err := partition.Read(t.Context(), &blockiotest.Source{Data: d})
			runtime.ReadMemStats(&after)
			if !errors.Is(err, partition.ErrDamaged) || len(got) != 0 {
				t.Errorf("got %v, %v; want ErrDamaged", got, err)
			}
			if d := after.TotalAlloc - before.TotalAlloc; d > 1<<20 {
				t.Errorf("%d bytes allocated", d)
			}
		})
	}
}

// Entries that make no sense are left out.
func TestGPTEntries(t *testing.T) {
	for _, c := range []struct {
		name       string
		start, end uint64 // of entry 2
		want       string
	}{
		{"as it was", 4096, 4096, "2 2097152 512\n"},
		{"up to the end", 16383, 16383, "2 8388096 512\n"},
		{"the end before the start", 4096, 4094, ""},
		{"one sector beyond the end", 16383, 16384, ""},
		{"beyond the end", 16384, 16384, ""},
		{"negative", 1<<64 - 2, 1<<64 - 1, ""},
		{"whole space", 0, 1<<64 - 1, ""},
		{"bytes that do not fit", 1<<55 + 4096, 1<<55 + 4096, ""},
		{"start in bytes does not fit", 1<<55 + 4096, 4096, ""},
		{"end in bytes does not fit", 4096, 1<<55 + 4096, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := patched(t, func(_, entries []byte) {
				binary.LittleEndian.PutUint64(entries[128+32:], c.start)
				binary.LittleEndian.PutUint64(entries[128+40:], c.end)
			})
			got, err := partition.Read(t.Context(), &blockiotest.Source{Data: d})
			want := "1 1048576 1048576\n" + c.want + "9 2560000 511488\n128 4608000 51200\n"
			if diff := cmp.Diff(want, list(got)); err != nil || diff != "" {
				t.Errorf("%v; partitions (-want +got):\n%s", err, diff)
			}
		})
	}
}

// A failure to read is not a fault of the table.
func TestReadFails(t *testing.T) {
	bad := errors.New("no luck")
	for _, name := range []string{"mbr", "logical", "gpt", "gpt-4k"} {
		src := &blockiotest.Source{Data: fixture(t, name)}
		requests := 0
		if _, err := partition.Read(t.Context(), src); err != nil {
			t.Fatal(err)
		}
		all := len(src.Asked())
		for fail := range all {
			requests = 0
			src.Open = func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
				if requests++; requests > fail {
					return nil, bad
				}
				return body, nil
			}
			if _, err := partition.Read(t.Context(), src); !errors.Is(err, bad) || errors.Is(err, partition.ErrDamaged) {
				t.Errorf("%s, after %d requests: %v, want the error below", name, fail, err)
			}
		}
	}
}

// FuzzRead reads anything as a table.
func FuzzRead(f *testing.F) {
	for _, name := range fixtures {
		whole := fixture(f, name)
		f.Add(whole[:min(len(whole), 40<<10)])
	}
	chain := disk(100, part{0x05, 10, 90}, part{0x83, 1, 2})
	table(chain, 10, part{0x83, 1, 2}, part{0x05, 10, 10})
	table(chain, 20, part{0x83, 1, 2})
	f.Add(chain)
	f.Fuzz(func(t *testing.T, data []byte) {
		src := &blockiotest.Source{Data: data}
		got, err := partition.Read(t.Context(), src)
		if err != nil && !errors.Is(err, partition.ErrDamaged) {
			t.Errorf("error of no kind: %v", err)
		}
		last := 0
		for _, p := range got {
			if p.Off < 0 || p.Len <= 0 || p.Len > src.Size() || p.Off > src.Size()-p.Len {
				t.Errorf("partition %d is %d+%d of %d bytes", p.Number, p.Off, p.Len, src.Size())
			}
			if p.Number <= last {
				t.Errorf("number %d comes after %d", p.Number, last)
			}
			last = p.Number
		}
		if n := len(src.Asked()); n > 4*130 {
			t.Errorf("%d requests", n)
		}
	})
}
