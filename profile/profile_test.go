package profile_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/profile"
)

const image = "image 1000000 100 0123abc\n"

var of = profile.Image{Size: 1_000_000, Blocks: 100, Identity: "0123abc"}

// runs makes a profile of runs, each of a first block and a count.
func runs(list ...[2]int64) *profile.Profile {
	p := &profile.Profile{Image: of}
	for _, r := range list {
		p.Runs = append(p.Runs, profile.Run{First: r[0], Count: r[1]})
	}
	return p
}

func write(t *testing.T, p *profile.Profile) string {
	t.Helper()
	var out bytes.Buffer
	if err := p.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestRoundTrip(t *testing.T) {
	p := runs([2]int64{50, 50}, [2]int64{0, 1}, [2]int64{1, 49})
	p.Runs[0].Gap, p.Runs[2].Gap = time.Microsecond, time.Hour
	text := write(t, p)
	want := "cloopfs profile 1\n" + image + "50 50 1\n0 1 0\n1 49 3600000000\nend 3\n"
	if text != want {
		t.Errorf("written is %q, want %q", text, want)
	}
	got, err := profile.Read(iotest.OneByteReader(strings.NewReader(text)))
	if diff := cmp.Diff(p, got); err != nil || diff != "" {
		t.Errorf("read again: %v (-want +got):\n%s", err, diff)
	}
	if p.Blocks() != 100 || p.Gaps() != time.Hour+time.Microsecond {
		t.Errorf("got %d blocks and %v, want 100 and an hour and a microsecond", p.Blocks(), p.Gaps())
	}
	if text := write(t, runs()); text != "cloopfs profile 1\n"+image+"end 0\n" {
		t.Errorf("a profile of nothing is %q", text)
	}
}

func TestReadRefuses(t *testing.T) {
	const head = "cloopfs profile 1\n" + image
	long := strings.Repeat("9", 300)
	tests := []struct {
		name, text string
		want       error
	}{
		{"nothing", "", profile.ErrFormat},
		{"HTML", "<!DOCTYPE html>\n<html></html>\n", profile.ErrFormat},
		{"binary", strings.Repeat("\x00", 1000), profile.ErrFormat},
		{"a first line that is cut off", "cloopfs profile 1", profile.ErrFormat},
		{"no version", "cloopfs profile\n" + image + "end 0\n", profile.ErrFormat},
		{"carriage returns", strings.ReplaceAll(head+"end 0\n", "\n", "\r\n"), profile.ErrVersion},
		{"the next version", "cloopfs profile 2\nwhatever\n", profile.ErrVersion},
		{"no image", "cloopfs profile 1\n0 1 0\nend 1\n", profile.ErrDamaged},
		{"an image without blocks", "cloopfs profile 1\nimage 5 0 x\nend 0\n", profile.ErrDamaged},
		{"an image of a negative size", "cloopfs profile 1\nimage -5 1 x\nend 0\n", profile.ErrDamaged},
		{"too many blocks", "cloopfs profile 1\nimage 5 " + long[:19] + " x\nend 0\n", profile.ErrDamaged},
		{"no identity", "cloopfs profile 1\nimage 5 5 \nend 0\n", profile.ErrDamaged},
		{"a long identity", "cloopfs profile 1\nimage 5 5 " + long[:65] + "\nend 0\n", profile.ErrDamaged},
		{"an identity that can't be printed", "cloopfs profile 1\nimage 5 5 a\x1bb\nend 0\n", profile.ErrDamaged},
		{"cut off behind the head", head, profile.ErrDamaged},
		{"cut off between lines", head + "0 1 0\n", profile.ErrDamaged},
		{"cut off in a line", head + "0 1 0\nen", profile.ErrDamaged},
		{"cut off before the last byte", head + "0 1 0\nend 1", profile.ErrDamaged},
		{"a line is missing", head + "0 1 0\nend 2\n", profile.ErrDamaged},
		{"more behind the end", head + "end 0\nend 0\n", profile.ErrDamaged},
		{"half a line behind the end", head + "end 0\nx", profile.ErrDamaged},
		{"a long line", head + long + " 1 0\nend 1\n", profile.ErrDamaged},
		{"a long last line", head + "end " + long, profile.ErrDamaged},
		{"an empty line", head + "\nend 0\n", profile.ErrDamaged},
		{"two numbers", head + "0 1\nend 1\n", profile.ErrDamaged},
		{"four numbers", head + "0 1 0 0\nend 1\n", profile.ErrDamaged},
		{"no number", head + "0 one 0\nend 1\n", profile.ErrDamaged},
		{"a sign", head + "0 +1 0\nend 1\n", profile.ErrDamaged},
		{"a leading zero", head + "0 01 0\nend 1\n", profile.ErrDamaged},
		{"two spaces", head + "0  1 0\nend 1\n", profile.ErrDamaged},
		{"a negative block", head + "-1 1 0\nend 1\n", profile.ErrDamaged},
		{"no blocks", head + "0 0 0\nend 1\n", profile.ErrDamaged},
		{"a block that the image does not have", head + "100 1 0\nend 1\n", profile.ErrDamaged},
		{"more blocks than the image has", head + "99 2 0\nend 1\n", profile.ErrDamaged},
		{"a number that is no int64", head + "1 " + long[:30] + " 0\nend 1\n", profile.ErrDamaged},
		{"a negative gap", head + "0 1 -1\nend 1\n", profile.ErrDamaged},
		{"a gap of more than an hour", head + "0 1 3600000001\nend 1\n", profile.ErrDamaged},
		{"a run twice", head + "5 1 0\n5 1 0\nend 2\n", profile.ErrDamaged},
		{"runs that overlap", head + "50 10 0\n0 1 0\n41 10 0\nend 3\n", profile.ErrDamaged},
		{"a run in another", head + "0 100 0\n41 10 0\nend 2\n", profile.ErrDamaged},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			p, err := profile.Read(strings.NewReader(test.text))
			if !errors.Is(err, test.want) || p != nil {
				t.Errorf("got %v, %v, want the error %q", p, err, test.want)
			}
		})
	}
}

// What can't be read is no damaged profile.
func TestReadFails(t *testing.T) {
	text := "cloopfs profile 1\n" + image + "0 1 0\nend 1\n"
	why := errors.New("no more")
	for n := range len(text) + 1 {
		_, err := profile.Read(io.MultiReader(strings.NewReader(text[:n]), iotest.ErrReader(why)))
		if !errors.Is(err, why) || errors.Is(err, profile.ErrDamaged) {
			t.Fatalf("after %d bytes: got %v, want %v", n, err, why)
		}
	}
}

// maxRuns is how many runs a profile may have.
const maxRuns = 1 << 18

// A profile has so many runs, whatever its file has.
func TestReadIsBounded(t *testing.T) {
	var text bytes.Buffer
	fmt.Fprintf(&text, "cloopfs profile 1\nimage 1 %d x\n", int64(1)<<62)
	for n := range int64(maxRuns) {
		fmt.Fprintln(&text, 1<<61+2*n, 1, time.Hour.Microseconds())
	}
	head := text.Len()
	fmt.Fprintln(&text, "end", maxRuns)
	if text.Len() > profile.MaxSize {
		t.Errorf("a profile of %d bytes is larger than MaxSize", text.Len())
	}
	p, err := profile.Read(&text)
	if err != nil || len(p.Runs) != maxRuns {
		t.Fatalf("as many runs as there may be: %v", err)
	}
	var again bytes.Buffer
	if err := p.Write(&again); err != nil {
		t.Fatal(err)
	}
	again.Truncate(head)
	endless := io.MultiReader(&again, repeat("1 1 0\n"))
	if _, err := profile.Read(endless); !errors.Is(err, profile.ErrDamaged) {
		t.Errorf("more runs than there may be: %v", err)
	}
}

// repeat reads a text over and over.
type repeat string

func (r repeat) Read(p []byte) (int, error) { return copy(p, r), nil }

func TestMerge(t *testing.T) {
	a := runs([2]int64{10, 5}, [2]int64{50, 1}, [2]int64{0, 2})
	a.Runs[1].Gap = time.Second
	tests := []struct {
		name string
		list []*profile.Profile
		want *profile.Profile
	}{
		{"one", []*profile.Profile{a}, runs([2]int64{10, 5}, [2]int64{50, 1}, [2]int64{0, 2})},
		{"the same twice", []*profile.Profile{a, a}, runs([2]int64{10, 5}, [2]int64{50, 1}, [2]int64{0, 2})},
		{"with nothing", []*profile.Profile{a, runs()}, runs([2]int64{10, 5}, [2]int64{50, 1}, [2]int64{0, 2})},
		{
			"what they share comes first, in the order of the first",
			[]*profile.Profile{a, runs([2]int64{1, 1}, [2]int64{60, 1}, [2]int64{12, 2})},
			runs([2]int64{12, 2}, [2]int64{1, 1}, [2]int64{10, 2}, [2]int64{14, 1}, [2]int64{50, 1}, [2]int64{0, 1}, [2]int64{60, 1}),
		},
		{
			"then what most have",
			[]*profile.Profile{runs([2]int64{1, 1}), runs([2]int64{5, 1}, [2]int64{3, 1}), runs([2]int64{3, 1}, [2]int64{9, 1}, [2]int64{1, 1})},
			runs([2]int64{1, 1}, [2]int64{3, 1}, [2]int64{5, 1}, [2]int64{9, 1}),
		},
		{"runs that meet are one", []*profile.Profile{runs([2]int64{4, 2}, [2]int64{6, 2})}, runs([2]int64{4, 4})},
		{"runs that meet the wrong way round", []*profile.Profile{runs([2]int64{6, 2}, [2]int64{4, 2})}, runs([2]int64{6, 2}, [2]int64{4, 2})},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			got, err := profile.Merge(test.list...)
			if diff := cmp.Diff(test.want, got); err != nil || diff != "" {
				t.Errorf("%v (-want +got):\n%s", err, diff)
			}
		})
	}
}

func TestMergeRefuses(t *testing.T) {
	if _, err := profile.Merge(); err == nil {
		t.Error("nothing was merged without an error")
	}
	for _, change := range []func(*profile.Image){
		func(im *profile.Image) { im.Size++ }, func(im *profile.Image) { im.Blocks++ }, func(im *profile.Image) { im.Identity = "x" },
	} {
		other := runs()
		change(&other.Image)
		if _, err := profile.Merge(runs(), runs(), other); !errors.Is(err, profile.ErrOther) || !strings.Contains(err.Error(), "number 3") {
			t.Errorf("%+v: got %v, want the third to be another's", other.Image, err)
		}
	}
}

// Merging takes no longer for a run that claims to be long, and what comes out can be
// read again.
func TestMergeIsBounded(t *testing.T) {
	im := profile.Image{Size: 1, Blocks: 1 << 62, Identity: "x"}
	a := &profile.Profile{Image: im, Runs: []profile.Run{{First: 0, Count: 1 << 62}}}
	b := &profile.Profile{Image: im}
	for n := range int64(maxRuns) {
		b.Runs = append(b.Runs, profile.Run{First: 2 * n, Count: 1})
	}
	merged, err := profile.Merge(a, b)
	if err != nil {
		t.Fatal(err)
	}
	if n := len(merged.Runs); n != maxRuns {
		t.Errorf("got %d runs, want %d", n, maxRuns)
	}
	var text bytes.Buffer
	if err := merged.Write(&text); err != nil {
		t.Fatal(err)
	}
	if _, err := profile.Read(&text); err != nil {
		t.Error(err)
	}
}

// FuzzRead reads whatever may be in a profile's file. What is taken for a profile makes
// sense, can be written again, and takes no more memory than its file accounts for.
func FuzzRead(f *testing.F) {
	for _, s := range []string{
		"", "cloopfs profile 1\n" + image + "50 50 1\n0 1 0\n1 49 3600000000\nend 3\n", "cloopfs profile 1\n" + image + "end 0\n",
		"cloopfs profile 2\n", "cloopfs profile 1\nimage 1 4611686018427387904 x\n0 4611686018427387904 0\nend 1\n",
		"cloopfs profile 1\n" + image + "9 2 0\n10 2 0\nend 2\n", "cloopfs profile 1\r\n", strings.Repeat("x", 300),
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		p, err := profile.Read(bytes.NewReader(text))
		if err != nil {
			if p != nil || !errors.Is(err, profile.ErrFormat) && !errors.Is(err, profile.ErrVersion) && !errors.Is(err, profile.ErrDamaged) {
				t.Errorf("%q: %v with the error %v", text, p, err)
			}
			return
		}
		if again := write(t, p); again != string(text) {
			t.Errorf("%q, written again, is %q", text, again)
		}
		if most := len(text) + 8; cap(p.Runs) > most { // a run is a line of at least 6 bytes
			t.Errorf("%d bytes have become room for %d runs", len(text), cap(p.Runs))
		}
		if n := p.Blocks(); n < 0 || n > p.Image.Blocks {
			t.Errorf("%q has %d blocks of %d", text, n, p.Image.Blocks)
		}
		merged, err := profile.Merge(p, p)
		if err != nil || merged.Blocks() != p.Blocks() {
			t.Errorf("%q, merged with itself: %v", text, err)
		}
	})
}
