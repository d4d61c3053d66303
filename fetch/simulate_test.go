package fetch

import (
	"bufio"
	"compress/gzip"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// session is what somebody wants from an image: runs of blocks, each after a time in
// which nobody waited, or at once if that is 0.
type session struct {
	image simImage
	runs  []sessionRun
}

type sessionRun struct {
	blockio.Span
	gap time.Duration
}

// simImage is where the blocks of an image lie.
type simImage []blockio.Extent

func (im simImage) Blocks() int64 { return int64(len(im)) }

func (im simImage) Extent(_ context.Context, n int64) (blockio.Extent, error) { return im[n], nil }

// testdata holds the lengths of the stored blocks of a Debian root file system of 64 KiB
// blocks, and what was wanted of it (mount --record) by who reads 2,000 of its files,
// each tenth of a second or less: in the order of their names ("files"), in another
// ("shuffled"), and eight at a time ("files8"); and by a guest that boots ("boot").
func loadSession(t *testing.T, name string) session {
	t.Helper()
	var s session
	off := int64(0)
	lines(t, "testdata/debian.extents.gz", func(line string) {
		var n int64
		if _, err := fmt.Sscanln(line, &n); err != nil {
			t.Fatal(err)
		}
		s.image = append(s.image, blockio.Extent{Off: off, Len: n})
		off += n
	})
	lines(t, "testdata/"+name+".profile.gz", func(line string) {
		var r sessionRun
		var gap int64
		if _, err := fmt.Sscanln(line, &r.First, &r.Count, &gap); err == nil {
			r.gap = time.Duration(gap) * time.Microsecond
			s.runs = append(s.runs, r)
		} // else the head or the end
	})
	if len(s.image) == 0 || len(s.runs) == 0 {
		t.Fatal("nothing in testdata")
	}
	return s
}

// sequential is who reads an image's first quarter, in which all its data is, from
// beginning to end.
func sequential(im simImage) session {
	s := session{image: im}
	for n := int64(0); n < im.Blocks()/4; n += 2 {
		s.runs = append(s.runs, sessionRun{blockio.Span{First: n, Count: 2}, time.Nanosecond})
	}
	return s
}

func lines(t *testing.T, name string, yield func(string)) {
	t.Helper()
	f, err := os.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	z, err := gzip.NewReader(f)
	if err != nil {
		t.Fatal(err)
	}
	sc := bufio.NewScanner(z)
	for sc.Scan() {
		yield(sc.Text())
	}
	if err := sc.Err(); err != nil {
		t.Fatal(err)
	}
}

// spans are the blocks that are wanted, in order.
func (s session) spans() []blockio.Span {
	var list []blockio.Span
	for _, r := range s.runs {
		list = append(list, r.Span)
	}
	return list
}

// holes is its trace, without each fifth run.
func (s session) holes() (list []blockio.Span) {
	for i, r := range s.spans() {
		if i%5 != 0 {
			list = append(list, r)
		}
	}
	return list
}

// bytes is how many bytes are wanted.
func (s session) bytes() (n int64) {
	for _, r := range s.runs {
		n += s.image[r.First+r.Count-1].End() - s.image[r.First].Off
	}
	return n
}

// local is how long the session takes where all blocks are at hand.
func (s session) local() (d time.Duration) {
	for _, r := range s.runs {
		d += r.gap + time.Duration(r.Count)*simDecode
	}
	return d
}

// simDecode is how long it takes to decode a block, and simPause how long one of
// several readers comes after the other.
const (
	simDecode = 400 * time.Microsecond
	simPause  = time.Microsecond
)

// simStore keeps everything. Its bytes are zeros, too.
type simStore struct {
	mu   sync.Mutex
	have map[int64]bool
}

func (s *simStore) Have(n int64, _ blockio.Extent) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.have[n]
}

func (s *simStore) Get(n int64, e blockio.Extent, _ []byte) bool { return s.Have(n, e) }

func (s *simStore) Put(n int64, _ blockio.Extent, _ []byte) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.have[n] = true
}

func (s *simStore) Forget(int64, blockio.Extent) {}

func (s *simStore) Claim(blockio.Extent, blockio.Class) (release func(), ok bool) {
	return func() {}, true
}

// newSim returns a Scheduler for an image at the end of a line.
func newSim(l *simLine, im simImage, ahead bool) *Scheduler {
	return New(l, im, Options{Trip: l.Trip, Ahead: ahead, Store: &simStore{have: make(map[int64]bool)}})
}

// outcome is what came of a session.
type outcome struct {
	took     time.Duration
	requests int
	bytes    int64
}

// simulate is a session over a line; trace may be nil.
func (s session) simulate(t *testing.T, l *simLine, ahead bool, trace []blockio.Span) (out outcome) {
	synctest.Test(t, func(t *testing.T) {
		*l = *newSimLine(l.rtt, l.rate*8/1e6) // in the bubble
		f := newSim(l, s.image, ahead)
		defer f.Close()
		if trace != nil {
			f.Replay(trace)
		}
		begin := time.Now()
		var readers sync.WaitGroup
		for _, r := range s.runs {
			if r.gap > 0 {
				readers.Wait()
				time.Sleep(r.gap)
			}
			time.Sleep(simPause)
			readers.Go(func() {
				decode := func(int64, []byte) error {
					time.Sleep(simDecode)
					return nil
				}
				if err := f.ReadRun(t.Context(), blockio.Demand, r.First, r.Count, decode); err != nil {
					t.Error(err)
				}
			})
		}
		readers.Wait()
		out.took = time.Since(begin)
		out.requests, out.bytes = l.sent()
	})
	return out
}

// simLines are the lines of the benchmarks.
var simLines = []struct {
	name string
	rtt  time.Duration
	mbit float64
}{
	{"metro", 10 * time.Millisecond, 200},
	{"wan", 50 * time.Millisecond, 50},
	{"far", 150 * time.Millisecond, 20},
}

// What the policy makes of the recorded sessions, on all lines: the time beside that of
// fetching the whole image first, or beside the least possible. The bounds are the
// figures that it gave, and a twentieth.
func TestSimulate(t *testing.T) {
	files, shuffled, eight := loadSession(t, "files"), loadSession(t, "shuffled"), loadSession(t, "files8")
	for _, c := range []struct {
		name     string
		session  session
		ahead    bool
		trace    []blockio.Span
		download [3]float64 // at most so much of the time of who fetches the whole image first
		limit    [3]float64 // at most so many times what the line needs for what is wanted; 0: any
		surplus  float64    // at most so many times the bytes that are wanted
	}{
		{"files, nothing ahead", files, false, nil, [3]float64{2.35, 3.15, 3.8}, [3]float64{}, 1.001},
		{"files", files, true, nil, [3]float64{.59, .7, .74}, [3]float64{}, 1.75},
		{"files, trace", files, true, files.spans(), [3]float64{.4, .45, .48}, [3]float64{1.1, 1.07, 1.07}, 1.001},
		{"files, trace with holes", files, true, files.holes(), [3]float64{.52, .59, .64}, [3]float64{}, 1.6},
		{"shuffled", shuffled, true, nil, [3]float64{.67, .75, .78}, [3]float64{}, 1.9},
		{"shuffled, trace", shuffled, true, shuffled.spans(), [3]float64{.4, .45, .48}, [3]float64{1.1, 1.07, 1.07}, 1.001},
		{"eight readers", eight, true, nil, [3]float64{.61, .7, .73}, [3]float64{}, 1.75},
		{"eight readers, trace", eight, true, eight.spans(), [3]float64{.4, .45, .48}, [3]float64{1.1, 1.07, 1.07}, 1.001},
		{"sequential", sequential(files.image), true, nil, [3]float64{.78, .96, 1.02}, [3]float64{1.08, 1.07, 1.07}, 1.01},
	} {
		for i, line := range simLines {
			t.Run(c.name+"/"+line.name, func(t *testing.T) {
				l := newSimLine(line.rtt, line.mbit)
				image := float64(c.session.image[len(c.session.image)-1].End())
				wanted := float64(c.session.bytes())
				out := c.session.simulate(t, l, c.ahead, c.trace)
				download := out.took.Seconds() / (l.takes(image) + 2*l.rtt + c.session.local()).Seconds()
				limit := out.took.Seconds() / l.takes(wanted).Seconds()
				surplus := float64(out.bytes) / wanted
				t.Logf("%.2f s, %.2f of a download, %.2f of the limit; %d requests, %.1f MB, %.2f of what is wanted",
					out.took.Seconds(), download, limit, out.requests, float64(out.bytes)/1e6, surplus)
				if download > c.download[i] || c.limit[i] > 0 && limit > c.limit[i] || surplus > c.surplus {
					t.Errorf("got %.3f of a download, %.3f of the limit, %.3f of the bytes, want at most %.2f, %.2f, %.3f",
						download, limit, surplus, c.download[i], c.limit[i], c.surplus)
				}
			})
		}
	}
}

// By how much longer a guest boots than from a local disk, with nothing brought ahead,
// without a trace, with one, and with holes in it. The bounds are seconds.
func TestSimulateBoot(t *testing.T) {
	boot := loadSession(t, "boot")
	for i, most := range [][3]float64{{1, .4, .2}, {5.3, 3.3, 1.2}, {15.5, 12.5, 6.2}} {
		line := simLines[i]
		adds := func(ahead bool, trace []blockio.Span) float64 {
			l := newSimLine(line.rtt, line.mbit)
			return (boot.simulate(t, l, ahead, trace).took - boot.local()).Seconds()
		}
		nothing, without := adds(false, nil), adds(true, nil)
		holes, trace := adds(true, boot.holes()), adds(true, boot.spans())
		t.Logf("%s: %.2f s, %.2f without a trace, %.2f with holes in it, %.2f with a trace", line.name, nothing, without, holes, trace)
		if without > most[0] || holes > most[1] || trace > most[2] {
			t.Errorf("%s: more than %v", line.name, most)
		}
	}
}

// A trace of what nobody wants costs next to nothing, and so does one of everything, in
// whatever order.
func TestSimulateHostileTrace(t *testing.T) {
	s := loadSession(t, "files")
	wanted := make(map[int64]bool)
	for _, r := range s.runs {
		for n := r.First; n < r.First+r.Count; n++ {
			wanted[n] = true
		}
	}
	var others []blockio.Span
	for n := range s.image.Blocks() {
		if !wanted[n] {
			others = append(others, blockio.Span{First: n, Count: 1})
		}
	}
	all := []blockio.Span{{First: 0, Count: s.image.Blocks()}}
	var reversed []blockio.Span
	for n := s.image.Blocks() - 1; n >= 0; n-- {
		reversed = append(reversed, blockio.Span{First: n, Count: 1})
	}
	shuffled := slices.Clone(reversed)
	rand.New(rand.NewPCG(3, 4)).Shuffle(len(shuffled), func(i, j int) { shuffled[i], shuffled[j] = shuffled[j], shuffled[i] })
	for _, line := range simLines {
		for _, ahead := range []bool{false, true} {
			l := newSimLine(line.rtt, line.mbit)
			without := s.simulate(t, l, ahead, nil).took
			for name, trace := range map[string][]blockio.Span{"others": others, "all": all, "reversed": reversed, "shuffled": shuffled} {
				with := s.simulate(t, l, ahead, trace).took
				t.Logf("%s, %v: %.2f s without, %.2f with %s", line.name, ahead, without.Seconds(), with.Seconds(), name)
				if with.Seconds() > 1.12*without.Seconds() {
					t.Errorf("%s, %v: %v without a trace, %v with %s", line.name, ahead, without, with, name)
				}
			}
		}
	}
}

// While the line is full of what nobody waits for, a reader waits for as much as is on
// its way: the median no more than one round trip longer than on an idle line, one of
// a hundred three.
func TestSimulateLatency(t *testing.T) {
	s := loadSession(t, "files")
	for _, line := range simLines {
		for _, load := range []string{"nothing", "trace", "fill", "speculation"} {
			t.Run(line.name+"/"+load, func(t *testing.T) {
				l := newSimLine(line.rtt, line.mbit)
				waits := s.latencies(t, l, load)
				p50, p99 := waits[len(waits)/2].Seconds()/l.rtt.Seconds(), waits[len(waits)*99/100].Seconds()/l.rtt.Seconds()
				t.Logf("p50 %.2f, p99 %.2f round trips", p50, p99)
				if p50 > 2.02 || p99 > 4 {
					t.Errorf("p50 %.2f, p99 %.2f round trips, want at most 2.02 and 4", p50, p99)
				}
			})
		}
	}
}

// latencies are those of single reads of blocks that are not here, in order, less what
// the bytes of the block take.
func (s session) latencies(t *testing.T, l *simLine, load string) (waits []time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		*l = *newSimLine(l.rtt, l.rate*8/1e6)
		ahead := false
		if load == "speculation" {
			ahead = true
		}
		f := newSim(l, s.image, ahead)
		ctx, cancel := context.WithCancel(t.Context())
		defer f.Close()
		defer cancel()
		var rest, asked []blockio.Span // every seventh block is asked for
		for n, e := range s.image {
			span := blockio.Span{First: int64(n), Count: 1}
			switch {
			case e.Len < 10_000:
			case n%7 == 0:
				asked = append(asked, span)
			default:
				rest = append(rest, span)
			}
		}
		switch load {
		case "trace":
			f.Replay(rest)
		case "fill":
			go func() { _ = f.ReadRun(ctx, blockio.Fill, 0, s.image.Blocks(), nil) }()
		}
		time.Sleep(2 * time.Second) // the line is full
		rnd := rand.New(rand.NewPCG(1, 2))
		for _, i := range rnd.Perm(len(asked))[:100] {
			n := asked[i].First
			if f.opt.Store.Have(n, s.image[n]) {
				continue
			}
			begin := time.Now()
			if err := f.ReadRun(ctx, blockio.Demand, n, 1, func(int64, []byte) error { return nil }); err != nil {
				t.Error(err)
			}
			waits = append(waits, time.Since(begin)-l.takes(float64(s.image[n].Len)))
			time.Sleep(20 * time.Millisecond)
		}
	})
	slices.Sort(waits)
	return waits
}

// Where readers themselves fill the line, it is theirs: sixteen who read here and there
// take little longer because of what lies near their reads. (Less would be brought for one
// reader, too, if what they wait for counted more.)
func TestSimulateCrowd(t *testing.T) {
	s := loadSession(t, "files")
	for _, line := range simLines {
		without, with := s.crowd(t, line.rtt, line.mbit, false), s.crowd(t, line.rtt, line.mbit, true)
		t.Logf("%s: %.2f s, with speculation %.2f", line.name, without.Seconds(), with.Seconds())
		if with > without*5/4 {
			t.Errorf("%s: %v, with speculation %v", line.name, without, with)
		}
	}
}

// crowd is how long sixteen readers take for sixty of the larger blocks each.
func (s session) crowd(t *testing.T, rtt time.Duration, mbit float64, ahead bool) (took time.Duration) {
	synctest.Test(t, func(t *testing.T) {
		f := newSim(newSimLine(rtt, mbit), s.image, ahead)
		defer f.Close()
		var blocks []int64
		for n, e := range s.image {
			if e.Len >= 10_000 {
				blocks = append(blocks, int64(n))
			}
		}
		begin := time.Now()
		var readers sync.WaitGroup
		for i := range 16 {
			time.Sleep(simPause)
			rnd := rand.New(rand.NewPCG(1, uint64(i)))
			readers.Go(func() {
				for range 60 {
					n := blocks[rnd.IntN(len(blocks))]
					if err := f.ReadRun(t.Context(), blockio.Demand, n, 1, func(int64, []byte) error { return nil }); err != nil {
						t.Error(err)
					}
				}
			})
		}
		readers.Wait()
		took = time.Since(begin)
	})
	return took
}

// Filling waits for the trace, also where the window for readers has more room than the
// trace may use.
func TestSimulateFillAndTrace(t *testing.T) {
	for _, line := range simLines {
		synctest.Test(t, func(t *testing.T) {
			image := make(simImage, 10_000)
			for n := range image {
				image[n] = blockio.Extent{Off: int64(n) * 20_000, Len: 20_000}
			}
			f := newSim(newSimLine(line.rtt, line.mbit), image, true)
			ctx, cancel := context.WithCancel(t.Context())
			defer f.Close()
			defer cancel()
			half := image.Blocks() / 2
			f.Replay([]blockio.Span{{First: 0, Count: half}})
			time.Sleep(time.Millisecond)
			go func() { _ = f.ReadRun(ctx, blockio.Fill, half, half, nil) }()
			for f.Stats().Class[blockio.Trace].Bytes < half*20_000*9/10 {
				time.Sleep(10 * time.Millisecond)
			}
			if n := f.Stats().Class[blockio.Fill].Bytes; n > 0 {
				t.Errorf("%s: %d bytes were filled meanwhile", line.name, n)
			}
		})
	}
}
