package iso9660_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"runtime"
	"strings"
	"testing"
	"unicode/utf16"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/internal/iso9660"
)

// What no tool at hand makes is made here: ECMA-119 for the records, IEEE P1282
// for Rock Ridge's fields.

// rec is a directory's record.
type rec struct {
	id       string
	location uint32 // in sectors, unless the test says otherwise
	size     uint32
	flags    byte
	attrs    byte   // sectors of attributes before the data
	gap      byte   // of an interleaved file
	use      string // system use area
}

const (
	isDirectory  = 0x02
	isAssociated = 0x04
	hasMore      = 0x80
)

func (r rec) bytes() string {
	b := make([]byte, 33, 256)
	b[1] = r.attrs
	binary.LittleEndian.PutUint32(b[2:], r.location)
	binary.BigEndian.PutUint32(b[6:], r.location)
	binary.LittleEndian.PutUint32(b[10:], r.size)
	binary.BigEndian.PutUint32(b[14:], r.size)
	b[25], b[27], b[32] = r.flags, r.gap, byte(len(r.id))
	b = append(b, r.id...)
	if len(b)%2 == 1 {
		b = append(b, 0)
	}
	b = append(b, r.use...)
	b[0] = byte(len(b))
	return string(b)
}

// dir is a directory at a sector, of one sector.
func dir(sector uint32, recs ...rec) string {
	all := rec{id: "\x00", location: sector, size: 2048, flags: isDirectory}.bytes() +
		rec{id: "\x01", location: sector, size: 2048, flags: isDirectory}.bytes()
	for _, r := range recs {
		all += r.bytes()
	}
	return all
}

// rockRidgeDir is one with the fields that say that there are such.
func rockRidgeDir(sector uint32, recs ...rec) string {
	return rec{id: "\x00", location: sector, size: 2048, flags: isDirectory, use: "SP\x07\x01\xbe\xef\x00"}.bytes() +
		strings.TrimPrefix(dir(sector, recs...), rec{id: "\x00", location: sector, size: 2048, flags: isDirectory}.bytes())
}

// field is one of Rock Ridge.
func field(sign, data string) string {
	return sign + string([]byte{byte(4 + len(data)), 1}) + data
}

// both is a number in both orders, as most fields have it.
func both(n uint32) string {
	return string(binary.BigEndian.AppendUint32(binary.LittleEndian.AppendUint32(nil, n), n))
}

func nm(name string) string { return field("NM", "\x00"+name) }

func ce(sector, off, size uint32) string { return field("CE", both(sector)+both(off)+both(size)) }

// descriptor is a volume descriptor of a kind, whose root directory is at a
// sector and has a size.
func descriptor(kind byte, root, size uint32) string {
	b := make([]byte, 2048)
	b[0] = kind
	copy(b[1:], "CD001\x01")
	if kind == 2 {
		copy(b[88:], "%/E")
	}
	binary.LittleEndian.PutUint16(b[128:], 2048)
	copy(b[156:], rec{id: "\x00", location: root, size: size, flags: isDirectory}.bytes())
	return string(b)
}

const end = "\xffCD001\x01"

// craft is an image: sectors from number 16 on, each filled up with zeros.
func craft(sectors ...string) []byte {
	image := make([]byte, (16+len(sectors))*2048)
	for i, s := range sectors {
		if copy(image[(16+i)*2048:], s) > 2048 {
			panic("the test has a sector of more than 2048 bytes")
		}
	}
	return image
}

// image is one whose root directory is sector 18; what follows lies behind it.
func image(root string, more ...string) []byte {
	return craft(append([]string{descriptor(1, 18, 2048), end, root}, more...)...)
}

func sectors(first, n int64) blockio.Extent { return blockio.Extent{Off: first * 2048, Len: n} }

func TestCraftedRecords(t *testing.T) {
	at20 := []blockio.Extent{sectors(20, 10)}
	one := func(r rec) []byte { return image(dir(18, r), make5()...) }
	xa := "\x00\x00\x00\x00\x0d\x55XA\x01\x00\x00\x00\x00\x00" // what a CD-ROM XA puts before other fields
	for _, c := range []struct {
		name  string
		image []byte
		path  string
		want  []blockio.Extent
	}{
		{"name with a version", one(rec{id: "NAME.EXT;1", location: 20, size: 10}), "name.ext", at20},
		{"dot without an extension", one(rec{id: "NAME.;12", location: 20, size: 10}), "NAME", at20},
		{"no version", one(rec{id: "NAME", location: 20, size: 10}), "NAME", at20},
		{"no number behind the semicolon", one(rec{id: "A;B", location: 20, size: 10}), "A;B", at20},
		{"attributes before the data", one(rec{id: "A", location: 19, size: 10, attrs: 1}), "A", at20},
		{"two versions", image(dir(18, rec{id: "A;2", location: 20, size: 10}, rec{id: "A;1", location: 19, size: 10}), make5()...), "A", at20},
		{
			"two extents", image(dir(18,
				rec{id: "A;1", location: 20, size: 2048, flags: hasMore}, rec{id: "A;1", location: 22, size: 7}), make5()...),
			"A",
			[]blockio.Extent{sectors(20, 2048), sectors(22, 7)},
		},
		{
			"three extents, out of order, then another file", image(dir(18,
				rec{id: "A;1", location: 22, size: 2048, flags: hasMore}, rec{id: "A;1", location: 19, size: 2048, flags: hasMore},
				rec{id: "A;1", location: 21, size: 1}, rec{id: "B;1", location: 20, size: 10}), make5()...),
			"A",
			[]blockio.Extent{sectors(22, 2048), sectors(19, 2048), sectors(21, 1)},
		},
		{"the file behind one of several extents", image(dir(18,
			rec{id: "A;1", location: 22, size: 2048, flags: hasMore}, rec{id: "A;1", location: 21, size: 1},
			rec{id: "B;1", location: 20, size: 10}), make5()...), "B", at20},
		{"a Macintosh's second fork", image(dir(18,
			rec{id: "A;1", location: 21, size: 5, flags: isAssociated}, rec{id: "A;1", location: 20, size: 10}), make5()...), "A", at20},
		{"directory of two sectors", craft(descriptor(1, 18, 4096), end, dir(18, rec{id: "B", location: 21, size: 1}),
			rec{id: "A", location: 20, size: 10}.bytes(), "", ""), "A", at20},
		{"blocks of 512 bytes", func() []byte {
			p := image(dir(18, rec{id: "A", location: 80, size: 10}), make5()...)
			binary.LittleEndian.PutUint16(p[16*2048+128:], 512)
			binary.LittleEndian.PutUint32(p[16*2048+156+2:], 18*4)
			return p
		}(), "A", at20},
		{"other descriptors around", craft(descriptor(0, 99, 0), descriptor(3, 99, 0), descriptor(1, 21, 2048), descriptor(1, 99, 2048), end,
			dir(21, rec{id: "A", location: 20, size: 10})), "A", at20},
		{"no end of the descriptors", craft(descriptor(1, 19, 2048), "\x00BEA01", "", dir(19, rec{id: "A", location: 20, size: 10}), ""), "A", at20},
		{"another supplementary volume", func() []byte {
			p := craft(descriptor(2, 99, 0), descriptor(1, 19, 2048), end, dir(19, rec{id: "A", location: 20, size: 10}), "")
			copy(p[16*2048+88:], "%/B")
			return p
		}(), "A", at20},
		{"Joliet", craft(descriptor(1, 19, 2048), descriptor(2, 20, 2048), end, dir(19, rec{id: "A", location: 99, size: 10}),
			dir(20, rec{id: ucs2("Grüße 😀;1"), location: 20, size: 10})), "grüße 😀", at20},
		{"Rock Ridge before Joliet", craft(descriptor(1, 19, 2048), descriptor(2, 20, 2048), end,
			rockRidgeDir(19, rec{id: "A", location: 20, size: 10, use: nm("name")}), dir(20, rec{id: ucs2("name"), location: 99, size: 10})), "name", at20},
		{"name in two fields", image(rockRidgeDir(18, rec{id: "A", location: 20, size: 10, use: field("NM", "\x01one ") + nm("name")}), make5()...), "one name", at20},
		{"unknown fields", image(rockRidgeDir(18, rec{id: "A", location: 20, size: 10, use: field("ZZ", "?") + nm("name")}), make5()...), "name", at20},
		{"no name", image(rockRidgeDir(18, rec{id: "NAME.;1", location: 20, size: 10}), make5()...), "name", at20},
		{"nothing behind the end of the fields", image(rockRidgeDir(18, rec{id: "A", location: 20, size: 10, use: field("ST", "") + nm("name")}), make5()...), "A", at20},
		{"fields elsewhere", image(rockRidgeDir(18, rec{id: "A", location: 20, size: 10, use: field("NM", "\x01na") + ce(19, 100, 7)}),
			strings.Repeat("?", 100)+nm("me"), "", ""), "name", at20},
		{"fields elsewhere twice", image(rockRidgeDir(18, rec{id: "A", location: 20, size: 10, use: ce(19, 0, 28)}),
			ce(20, 5, 9), "?????"+nm("name"), ""), "name", at20},
		{"fields that begin later", image(strings.Replace(rockRidgeDir(18, rec{id: "A", location: 20, size: 10, use: "??" + nm("name")}),
			"\xbe\xef\x00", "\xbe\xef\x02", 1), make5()...), "name", at20},
		{"CD-ROM XA", image(rec{id: "\x00", location: 18, size: 2048, flags: isDirectory, use: xa + "SP\x07\x01\xbe\xef\x0e"}.bytes()+
			rec{id: "A", location: 20, size: 10, use: xa + nm("name")}.bytes(), make5()...), "name", at20},
		{"relocated directory", image(rockRidgeDir(18,
			rec{id: "LINK", location: 99, size: 20, use: nm("sub") + field("CL", both(19))},
			rec{id: "MOVED", location: 19, size: 2048, flags: isDirectory, use: nm("moved") + field("RE", "")}),
			dir(19, rec{id: "A", location: 20, size: 10}), "", ""), "sub/a", at20},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, err := iso9660.Find(t.Context(), &blockiotest.Source{Data: c.image}, c.path)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("extents (-want +got):\n%s", diff)
			}
		})
	}
}

// make5 is five empty sectors, for files that nobody reads.
func make5() []string { return make([]string, 5) }

func ucs2(s string) string {
	var b []byte
	for _, u := range utf16.Encode([]rune(s)) {
		b = binary.BigEndian.AppendUint16(b, u)
	}
	return string(b)
}

// What is no file is not found, and says why where that helps.
func TestNotAFile(t *testing.T) {
	px := func(mode uint32) string { return field("PX", both(mode)+both(1)+both(0)+both(0)+both(1)) }
	root := rockRidgeDir(18,
		rec{id: "A", location: 20, use: nm("link") + px(0o120777) + field("SL", "\x00\x00\x01x")},
		rec{id: "B", location: 20, use: nm("old link") + field("SL", "\x00\x00\x01x")},
		rec{id: "C", location: 20, use: nm("device") + px(0o060600)},
		rec{id: "D", location: 20, size: 10, gap: 1, use: nm("interleaved")},
		rec{id: "E", location: 18, size: 2048, flags: isDirectory, use: nm("directory") + px(0o040755)},
		rec{id: "F", location: 18, size: 2048, use: nm("file") + px(0o100644)},
		rec{id: "G", location: 19, size: 2048, flags: isDirectory, use: nm("moved") + field("RE", "")},
	)
	for path, want := range map[string]string{
		"link":        "link: no such file in the ISO 9660 image, only a link or a device",
		"old link":    "old link: no such file in the ISO 9660 image, only a link or a device",
		"device":      "device: no such file in the ISO 9660 image, only a link or a device",
		"interleaved": "interleaved: no such file in the ISO 9660 image, only a link or a device",
		"directory":   "directory: no such file in the ISO 9660 image, only a directory",
		"file/file":   "file/file: no such file in the ISO 9660 image",
		"moved":       "moved: no such file in the ISO 9660 image",
		"none":        "none: no such file in the ISO 9660 image",
	} {
		if _, err := find(t, image(root, make5()...), path); !errors.Is(err, iso9660.ErrNotFound) || err.Error() != want {
			t.Errorf("%s: got %v, want %s", path, err, want)
		}
	}
	if _, err := find(t, image(root, make5()...), "directory/file"); err != nil {
		t.Error(err)
	}
	if _, err := find(t, image(""), "A"); !errors.Is(err, iso9660.ErrNotFound) {
		t.Errorf("in a directory with nothing in it: %v, want ErrNotFound", err)
	}
}

// What contradicts itself is an error that says so, and costs little memory:
// what is allocated in all is more than what is held at any time.
func TestDamaged(t *testing.T) {
	patch := func(off int, n uint32) []byte {
		p := image(dir(18, rec{id: "A", location: 19, size: 5}), "")
		binary.LittleEndian.PutUint32(p[off:], n)
		return p
	}
	const root = 16*2048 + 156
	for _, c := range []struct {
		name  string
		image []byte
		says  string
	}{
		{"no volume", craft(end, "", ""), "no volume"},
		{"blocks of 0 bytes", patch(16*2048+128, 0), "blocks of 0 bytes"},
		{"blocks of 4096 bytes", patch(16*2048+128, 4096), "blocks of 4096 bytes"},
		{"directory behind the end", patch(root+2, 21), "refers to bytes 43008+2048 of 40960"},
		{"directory far behind the end", patch(root+2, 0xffffffff), "refers to bytes"},
		{"huge directory", patch(root+10, 0xffffffff), "a directory of 4294967295 bytes"},
		{"directory goes on behind the end", patch(root+10, 4<<20), "refers to bytes 40960+2048 of 40960"},
		{"file behind the end", image(dir(18, rec{id: "A", location: 20, size: 1})), "A ends at 40961, the image at 38912 (cut off?)"},
		{"huge file", image(dir(18, rec{id: "A", location: 18, size: 0xffffffff})), "cut off?"},
		{"file far behind the end", image(dir(18, rec{id: "A", location: 0xffffffff, size: 0xffffffff, attrs: 255})), "cut off?"},
		{"short record", image(dir(18) + strings.Repeat("\x21", 200)), "a directory with a record of 33 bytes"},
		{"record over the sector's end", image(dir(18) + strings.Repeat(rec{id: "B"}.bytes(), 57) + "\xff"), "a directory with a record of 255 bytes"},
		{"name over the record's end", image(dir(18) + "\x22" + strings.Repeat("\x00", 31) + "\x02xx"), "a directory with a record of 34 bytes"},
		{"the last extent is missing", image(dir(18, rec{id: "A", location: 18, size: 2048, flags: hasMore})), "A lacks an extent"},
		{"an extent is missing", image(dir(18, rec{id: "A", location: 18, size: 2048, flags: hasMore}, rec{id: "B"})), "A lacks an extent"},
		{"an extent ends within a block", image(dir(18, rec{id: "A", location: 18, size: 2047, flags: hasMore}, rec{id: "A"})), "A lacks an extent"},
		{"fields behind the end", image(rockRidgeDir(18, rec{id: "A", use: ce(99, 0, 10)})), "refers to bytes"},
		{"many fields", image(rockRidgeDir(18, rec{id: "A", use: ce(18, 0, 0xffffffff)})), "fields of 4294967295 bytes"},
		{"no fields", image(rockRidgeDir(18, rec{id: "A", use: ce(18, 0, 0)})), "fields of 0 bytes"},
		{"fields that go round", image(rockRidgeDir(18, rec{id: "A", use: ce(19, 0, 28)}), ce(19, 0, 28)), "A has too many fields"},
		{"relocated to nowhere", image(rockRidgeDir(18, rec{id: "A", use: field("CL", both(99))})), "refers to bytes"},
		{"relocated to what is none", image(rockRidgeDir(18, rec{id: "A", use: field("CL", both(19))}), ""), "A is not where it should be"},
		{"relocated to a broken one", image(rockRidgeDir(18, rec{id: "A", use: field("CL", both(19))}), "\x05"), "a record of 5 bytes"},
	} {
		t.Run(c.name, func(t *testing.T) {
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			_, err := find(t, c.image, "A")
			runtime.ReadMemStats(&after)
			if !errors.Is(err, iso9660.ErrDamaged) || !strings.Contains(err.Error(), c.says) {
				t.Errorf("got %v; want ErrDamaged, saying %q", err, c.says)
			}
			if d := after.TotalAlloc - before.TotalAlloc; d > 1<<20 {
				t.Errorf("%d bytes allocated", d)
			}
		})
	}
}

// The path table is not read: its size does not matter.
func TestPathTableIsIgnored(t *testing.T) {
	for _, name := range fixtures {
		data := fixture(t, name)
		for _, off := range []int{132, 140, 148} { // size, places
			binary.LittleEndian.PutUint32(data[16*2048+off:], 0xffffffff)
		}
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		src := &blockiotest.Source{Data: data}
		if _, err := iso9660.Find(t.Context(), src, "KNOPPIX/KNOPPIX"); err != nil {
			t.Errorf("%s: %v", name, err)
		}
		runtime.ReadMemStats(&after)
		if d := after.TotalAlloc - before.TotalAlloc; d > 1<<20 {
			t.Errorf("%s: %d bytes allocated", name, d)
		}
	}
}

// Directories that contain themselves have no end, but what is listed has one.
func TestLoop(t *testing.T) {
	one := image(dir(18, rec{id: "SELF", location: 18, size: 2048, flags: isDirectory}, rec{id: "A", location: 18, size: 1}))
	files, err := iso9660.List(t.Context(), &blockiotest.Source{Data: one}, math.MaxInt64)
	var got []string
	for _, f := range files {
		got = append(got, f.Path)
	}
	if diff := cmp.Diff([]string{"A", "SELF/A", "SELF/SELF/A", "SELF/SELF/SELF/A"}, got); err != nil || diff != "" {
		t.Errorf("%v; listed (-want +got):\n%s", err, diff)
	}
	if _, err := find(t, one, strings.Repeat("self/", 100)+"a"); err != nil {
		t.Errorf("what was asked for: %v", err)
	}
	var many []rec
	for i := range 40 {
		many = append(many, rec{id: fmt.Sprint(i), location: 18, size: 2048, flags: isDirectory})
	}
	many = append(many, rec{id: "A", location: 18, size: 1})
	src := &blockiotest.Source{Data: image(dir(18, many...))}
	files, err = iso9660.List(t.Context(), src, math.MaxInt64)
	if err != nil || len(files) < 100 || len(files) > 20_000 {
		t.Errorf("listed %d files, %v", len(files), err)
	}
	if n := len(src.Asked()); n > 2 {
		t.Errorf("%d requests for the same bytes, want at most 2", n)
	}
}

// zeros is an image that exists as far as it is read, and is zeros but for its
// start.
type zeros struct {
	start []byte
	size  int64
	read  int64
}

func (z *zeros) Size() int64 { return z.size }

func (z *zeros) ReadAtContext(_ context.Context, p []byte, off int64) (int, error) {
	z.read += int64(len(p))
	p, eof := blockio.Clip(p, off, z.size)
	clear(p)
	if off < int64(len(z.start)) {
		copy(p, z.start[off:])
	}
	return len(p), eof
}

// Large files are found in images of many gigabytes: those of level 3 have several
// extents, none as long as 4 GiB.
func TestLargeFile(t *testing.T) {
	const part = 0xfffff800
	root := dir(18,
		rec{id: "KNOPPIX.;1", location: 20, size: part, flags: hasMore},
		rec{id: "KNOPPIX.;1", location: 20 + part/2048, size: part, flags: hasMore},
		rec{id: "KNOPPIX.;1", location: 0xf0000000, size: 12345})
	img := &zeros{start: image(root), size: 0xf0000000*2048 + 12345}
	got, err := iso9660.Find(t.Context(), img, "knoppix")
	if err != nil {
		t.Fatal(err)
	}
	want := []blockio.Extent{{Off: 40960, Len: part}, {Off: 40960 + part, Len: part}, {Off: 0xf0000000 * 2048, Len: 12345}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("extents (-want +got):\n%s", diff)
	}
	img.size--
	if _, err := iso9660.Find(t.Context(), img, "knoppix"); !errors.Is(err, iso9660.ErrDamaged) {
		t.Errorf("a byte is missing: %v, want ErrDamaged", err)
	}
}

// Very many directories as large as they may be: what is read of them has a bound.
func TestReadsAreBounded(t *testing.T) {
	var many []rec
	for i := range 40 {
		many = append(many, rec{id: fmt.Sprint(i), location: 1000 + uint32(i)*2048, size: 4 << 20, flags: isDirectory})
	}
	img := &zeros{start: image(dir(18, many...)), size: 1 << 40}
	if _, err := iso9660.List(t.Context(), img, math.MaxInt64); !errors.Is(err, iso9660.ErrDamaged) || !strings.Contains(err.Error(), "too much to read") {
		t.Errorf("got %v, want ErrDamaged for too much to read", err)
	}
	if img.read > 64<<20 {
		t.Errorf("%d bytes read, want at most 64 MiB", img.read)
	}
}

// FuzzFind looks for files in anything. What lies before the descriptors does not
// matter and is no part of the input.
func FuzzFind(f *testing.F) {
	const ignored = 16 * 2048
	whole := fixture(f, "genisoimage-rr-relocated")
	for _, seed := range [][]byte{
		image(rockRidgeDir(18, rec{id: "A", location: 19, use: nm("name") + ce(19, 0, 7)}), nm("e")),
		image(dir(18, rec{id: "A;1", location: 18, size: 2048, flags: hasMore}, rec{id: "A;1", location: 18, size: 7})),
		craft(descriptor(1, 19, 2048), descriptor(2, 20, 2048), end, dir(19), dir(20, rec{id: ucs2("a;1"), size: 10}, rec{id: ucs2("b"), location: 20, size: 2048, flags: isDirectory})),
		image(rockRidgeDir(18, rec{id: "A", use: nm("a") + field("CL", both(19))}), dir(19, rec{id: "B"})),
		whole[:100<<10],
	} {
		f.Add(seed[ignored:], "a/b")
	}
	f.Fuzz(func(t *testing.T, data []byte, path string) {
		src := &blockiotest.Source{Data: append(make([]byte, ignored), data...)}
		known := func(err error) bool {
			return err == nil || errors.Is(err, iso9660.ErrFormat) || errors.Is(err, iso9660.ErrDamaged) || errors.Is(err, iso9660.ErrNotFound)
		}
		extents, err := iso9660.Find(t.Context(), src, path)
		if !known(err) {
			t.Errorf("Find: error of no kind: %v", err)
		}
		for _, e := range extents {
			if e.Off < 0 || e.Len < 0 || e.Len > src.Size() || e.Off > src.Size()-e.Len {
				t.Errorf("extent %v of an image of %d bytes", e, src.Size())
			}
		}
		if _, err := iso9660.List(t.Context(), src, math.MaxInt64); !known(err) {
			t.Errorf("List: error of no kind: %v", err)
		}
		var read int64
		for _, r := range src.Asked() {
			read += r.Len
		}
		if read > 2*64<<20 {
			t.Errorf("%d bytes read", read)
		}
	})
}
