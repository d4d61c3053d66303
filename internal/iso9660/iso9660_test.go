package iso9660_test

import (
	"bytes"
	"compress/gzip"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/blockio/blockiotest"
	"github.com/cloopfs/cloopfs/internal/iso9660"
)

// The images of testdata/iso9660; its README says what is in them.
var fixtures = []string{"xorriso-rr-joliet", "xorriso-rr", "xorriso-joliet", "xorriso-plain", "genisoimage-rr-relocated"}

func fixture(t testing.TB, name string) []byte {
	t.Helper()
	packed, err := os.ReadFile(filepath.Join("../../testdata/iso9660", name+".iso.gz"))
	if err != nil {
		t.Fatal(err)
	}
	r, err := gzip.NewReader(bytes.NewReader(packed))
	if err != nil {
		t.Fatal(err)
	}
	image, err := io.ReadAll(r)
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// content is what the maker of the fixtures wrote to a file of a size.
func content(path string, size int) string {
	line := "this is " + path + "\n"
	return strings.Repeat(line, size/len(line)+1)[:size]
}

// at is the bytes of extents.
func at(image []byte, extents []blockio.Extent) string {
	var b strings.Builder
	for _, e := range extents {
		b.Write(image[e.Off:e.End()])
	}
	return b.String()
}

// find returns the content of a file of an image, or the error.
func find(t *testing.T, image []byte, path string) (string, error) {
	t.Helper()
	extents, err := iso9660.Find(t.Context(), &blockiotest.Source{Data: image}, path)
	return at(image, extents), err
}

func TestFind(t *testing.T) {
	const (
		rrJoliet = 1 << iota
		rr
		joliet
		plain
		relocated
		all   = rrJoliet | rr | joliet | plain | relocated
		long  = rrJoliet | rr | relocated // names as they were
		names = all &^ plain              // names, cut off where they are long
		cases = rr | relocated            // names that differ in case only
	)
	digits := strings.Repeat("0123456789", 20)
	images := make([][]byte, len(fixtures))
	for i, name := range fixtures {
		images[i] = fixture(t, name)
	}
	for _, c := range []struct {
		in   int    // the fixtures that have it; it is not found in the others
		path string // as asked for
		file string // what it was made as
		size int
	}{
		{all, "KNOPPIX/KNOPPIX", "KNOPPIX/KNOPPIX", 5000},
		{all, "knoppix/Knoppix", "KNOPPIX/KNOPPIX", 5000},
		{all, "KNOPPIX/KNOPPIX1", "KNOPPIX/KNOPPIX1", 2048},
		{all, "/KNOPPIX//KNOPPIX1/", "KNOPPIX/KNOPPIX1", 2048},
		{all, "x/../../KNOPPIX/./KNOPPIX", "KNOPPIX/KNOPPIX", 5000},
		{all, "boot/isolinux/boot.cat", "boot/isolinux/boot.cat", 100},
		{all, "a/b/f", "a/b/f", 30},
		{all, "b/b/f", "b/b/f", 40},
		{all, "a/a/a", "a/a/a", 50},
		{all, "d1/d2/d3/d4/d5/d6/d7/deep", "d1/d2/d3/d4/d5/d6/d7/deep", 60},
		{relocated, "d1/d2/d3/d4/d5/d6/d7/d8/d9/deeper", "d1/d2/d3/d4/d5/d6/d7/d8/d9/deeper", 61},
		{all, "config", "config", 10},
		{all, ".config", ".config", 2048},
		{all, "read.me", "Read.Me", 20},
		{names, "two words", "two words", 25},
		{plain, "two_words", "two words", 25},
		{names, "a#b", "a#b", 27},
		{names, "50%25", "50%25", 29},
		{all, "empty", "empty", 0},
		{all, "many/file1", "many/file1", 1},
		{all, "many/file100", "many/file100", 1},
		{long, "long/" + digits, "long/" + digits, 33},
		{joliet, "long/" + digits[:64], "long/" + digits, 33},
		{cases, "case/Name", "case/Name", 31},
		{cases, "case/nAME", "case/nAME", 32},
		{cases, "CASE/nAME", "case/nAME", 32},
		{cases, "case/name", "case/Name", 31},
		{0, "missing", "", 0},
		{0, "KNOPPIX/missing", "", 0},
		{0, "missing/KNOPPIX", "", 0},
		{0, "KNOPPIX", "", 0},
		{0, "d1/d2", "", 0},
		{0, "nothing", "", 0},
		{0, "nothing/at/all", "", 0},
		{0, "link", "", 0},
		{0, "link/KNOPPIX", "", 0},
		{0, "config/config", "", 0},
		{0, "rr_moved/d8/d9/deeper", "", 0},
		{0, "", "", 0},
		{0, "/", "", 0},
		{0, "..", "", 0},
		{0, "KNOPPIX/KNOPPIX;1", "", 0},
		{0, "confi", "", 0},
	} {
		for i, name := range fixtures {
			got, err := find(t, images[i], c.path)
			switch in := c.in&(1<<i) != 0; {
			case in && err != nil:
				t.Errorf("%s: %q: %v", name, c.path, err)
			case in && got != content(c.file, c.size):
				t.Errorf("%s: %q: got %.100q, want %d bytes of %s", name, c.path, got, c.size, c.file)
			case !in && (!errors.Is(err, iso9660.ErrNotFound) || !strings.HasPrefix(err.Error(), c.path+": ")):
				t.Errorf("%s: %q: %q, %v; want ErrNotFound with the path", name, c.path, got, err)
			}
		}
	}
}

func TestList(t *testing.T) {
	digits := strings.Repeat("0123456789", 20)
	var many []string
	for i := range 100 {
		many = append(many, fmt.Sprintf("many/file%d 1", i+1))
	}
	// Of d1/…/deep nothing is listed: it lies too deep.
	usual := append([]string{
		".config 2048", "50%25 29", "a#b 27", "config 10", "empty 0", "Read.Me 20", "two words 25",
		"KNOPPIX/KNOPPIX 5000", "KNOPPIX/KNOPPIX1 2048", "a/a/a 50", "a/b/f 30", "b/b/f 40", "boot/isolinux/boot.cat 100",
	}, many...)
	cases := []string{"case/Name 31", "case/nAME 32"}
	var upper []string
	for _, line := range usual {
		upper = append(upper, strings.NewReplacer(" ", "_", "#", "_", "%", "_").Replace(strings.ToUpper(line[:strings.LastIndex(line, " ")]))+line[strings.LastIndex(line, " "):])
	}
	for name, want := range map[string][]string{
		"xorriso-rr-joliet":        append([]string{"long/" + digits + " 33"}, usual...),
		"xorriso-rr":               slices.Concat([]string{"long/" + digits + " 33"}, cases, usual),
		"xorriso-joliet":           append([]string{"long/" + digits[:64] + " 33"}, usual...),
		"xorriso-plain":            append([]string{"LONG/" + digits[:30] + " 33"}, upper...),
		"genisoimage-rr-relocated": slices.Concat([]string{"long/" + digits + " 33"}, cases, usual),
	} {
		t.Run(name, func(t *testing.T) {
			image := fixture(t, name)
			files, err := iso9660.List(t.Context(), &blockiotest.Source{Data: image}, math.MaxInt64)
			if err != nil {
				t.Fatal(err)
			}
			var got []string
			depth := 0
			for _, f := range files {
				got = append(got, fmt.Sprint(f.Path, " ", f.Size()))
				if d := strings.Count(f.Path, "/"); d < depth {
					t.Errorf("%s comes too late", f.Path)
				} else {
					depth = d
				}
				if extents, err := iso9660.Find(t.Context(), &blockiotest.Source{Data: image}, f.Path); err != nil || !slices.Equal(extents, f.Extents) {
					t.Errorf("%s: listed at %v, found at %v, %v", f.Path, f.Extents, extents, err)
				}
			}
			slices.Sort(got)
			slices.Sort(want)
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("listed (-want +got):\n%s", diff)
			}
		})
	}
}

// What finding a file costs.
func TestFewRequests(t *testing.T) {
	for _, name := range fixtures {
		for _, path := range []string{"KNOPPIX/KNOPPIX", "d1/d2/d3/d4/d5/d6/d7/deep", "missing", "link"} {
			src := &blockiotest.Source{Data: fixture(t, name)}
			if _, err := iso9660.Find(t.Context(), src, path); err != nil && !errors.Is(err, iso9660.ErrNotFound) {
				t.Fatal(err)
			}
			asked, bytes := src.Asked(), int64(0)
			for _, r := range asked {
				bytes += r.Len
			}
			if len(asked) > 3 || bytes > 112<<10 {
				t.Errorf("%s: %s: %d requests, %d bytes; want at most 3 and 112 KiB", name, path, len(asked), bytes)
			}
		}
	}
}

func TestNoISO(t *testing.T) {
	image := fixture(t, "xorriso-plain")
	for name, data := range map[string][]byte{
		"nothing":      nil,
		"few bytes":    make([]byte, 100),
		"zeros":        make([]byte, 100_000),
		"another mark": bytes.Replace(image, []byte("CD001"), []byte("NSR02"), 1),
		"cut off":      image[:34<<10-1],
	} {
		if _, err := find(t, data, "config"); !errors.Is(err, iso9660.ErrFormat) {
			t.Errorf("%s: %v, want ErrFormat", name, err)
		}
		if _, err := iso9660.List(t.Context(), &blockiotest.Source{Data: data}, math.MaxInt64); !errors.Is(err, iso9660.ErrFormat) {
			t.Errorf("%s: List: %v, want ErrFormat", name, err)
		}
	}
}

// A failure to read is not a fault of the image.
func TestReadFails(t *testing.T) {
	bad := errors.New("no luck")
	for fail := range 2 {
		src := &blockiotest.Source{Data: fixture(t, "xorriso-rr")}
		n := 0
		src.Open = func(_ context.Context, _ blockio.Range, body io.Reader) (io.Reader, error) {
			if n++; n > fail {
				return nil, bad
			}
			return body, nil
		}
		_, err := iso9660.Find(t.Context(), src, "KNOPPIX/KNOPPIX")
		if !errors.Is(err, bad) || errors.Is(err, iso9660.ErrDamaged) {
			t.Errorf("after %d requests: %v, want the error below", fail, err)
		}
	}
}

// A download that broke off: a file is found where all that it takes is there,
// and nothing is ever wrong.
func TestCutOff(t *testing.T) {
	for _, name := range fixtures {
		image := fixture(t, name)
		found, damaged := 0, 0
		for size := 0; size <= len(image); size += 2048 {
			got, err := find(t, image[:size], "KNOPPIX/KNOPPIX")
			switch {
			case err == nil && got == content("KNOPPIX/KNOPPIX", 5000):
				found++
			case errors.Is(err, iso9660.ErrDamaged):
				damaged++
			case errors.Is(err, iso9660.ErrFormat) && size < 34<<10:
			default:
				t.Fatalf("%s cut off at %d: %.50q, %v", name, size, got, err)
			}
			if _, err := iso9660.List(t.Context(), &blockiotest.Source{Data: image[:size]}, math.MaxInt64); err != nil && !errors.Is(err, iso9660.ErrDamaged) && !errors.Is(err, iso9660.ErrFormat) {
				t.Fatalf("%s cut off at %d: List: %v", name, size, err)
			}
		}
		if found == 0 || damaged == 0 {
			t.Errorf("%s: found %d times, damaged %d times", name, found, damaged)
		}
	}
}

// Directories that lie far from the start are left alone.
func TestListOfManyDirectories(t *testing.T) {
	const near, far = 64 << 10, 100 // bytes, a sector
	file := rec{id: "FILE", location: 18, size: 10}
	sub := func(id string, sector uint32) rec {
		return rec{id: id, location: sector, size: 2048, flags: isDirectory}
	}
	root := []rec{sub("CLOSE", 19)}
	disc := image("", make([]string, 400)...)
	put := func(sector uint32, recs ...rec) { copy(disc[sector*2048:], dir(sector, recs...)) }
	put(19, file)
	for i := range uint32(20) {
		root = append(root, sub(fmt.Sprintf("FAR%02d", i), far+10*i))
		put(far+10*i, file)
	}
	put(18, root...)
	for _, c := range []struct {
		near            int64
		files, requests int
	}{{near, 1, 4}, {math.MaxInt64, 21, 100}} {
		src := &blockiotest.Source{Data: disc}
		files, err := iso9660.List(t.Context(), src, c.near)
		if err != nil {
			t.Fatal(err)
		}
		if len(files) != c.files || files[0].Path != "CLOSE/FILE" {
			t.Errorf("near %d: listed %v, want %d files", c.near, files, c.files)
		}
		beyond := 0
		for _, r := range src.Asked() {
			if r.End() > c.near {
				beyond++
			}
		}
		if n := len(src.Asked()); n > c.requests || beyond > 0 {
			t.Errorf("near %d: %d requests, %d of them for what is beyond", c.near, n, beyond)
		}
	}
}
