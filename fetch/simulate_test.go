package fetch

import (
	"bufio"
	"cmp"
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// simLine is a line of which only time is real: its narrow end is a queue that all
// responses share, of as many bytes as are under way on a full line.
type simLine struct {
	rtt    time.Duration
	rate   float64 // bytes per second
	buffer float64 // bytes

	turn chan struct{} // held by who puts a piece into the queue

	mu       sync.Mutex
	free     time.Time // when what is in the queue has left
	idle     int       // connections that nobody uses
	requests int
	bytes    int64
}

var simLines = map[string]struct {
	rtt  time.Duration
	mbit float64
}{
	"metro": {10 * time.Millisecond, 200},
	"wan":   {50 * time.Millisecond, 50},
	"far":   {150 * time.Millisecond, 20},
}

func newSimLine(name string) *simLine {
	l := &simLine{rtt: simLines[name].rtt, rate: simLines[name].mbit * 1e6 / 8, turn: make(chan struct{}, 1)}
	l.buffer = l.rate * l.rtt.Seconds()
	return l
}

const simPiece = 32 << 10

type simBody struct {
	line      *simLine
	off, left int64
	pieces    chan simPiece2
	cur       simPiece2
	fresh     bool
}

type simPiece2 struct {
	n  int64
	at time.Time
}

func (l *simLine) OpenRange(_ context.Context, r blockio.Range) (io.ReadCloser, error) {
	return &simBody{line: l, off: r.Off, left: r.Len}, nil
}

func (l *simLine) Size() int64 { return 1 << 40 }

func (b *simBody) Read(p []byte) (int, error) {
	if b.pieces == nil {
		b.pieces = make(chan simPiece2, 256)
		go b.line.serve(b.off, b.left, b.pieces)
	}
	if b.left == 0 {
		return 0, io.EOF
	}
	if b.cur.n == 0 {
		b.cur = <-b.pieces
		time.Sleep(time.Until(b.cur.at))
	}
	n := min(int64(len(p)), b.cur.n)
	b.cur.n -= n
	b.left -= n
	if b.left == 0 {
		b.line.mu.Lock()
		b.line.idle++
		b.line.mu.Unlock()
	}
	return int(n), nil
}

func (b *simBody) Close() error { return nil }

func (l *simLine) serve(off, n int64, pieces chan<- simPiece2) {
	time.Sleep(time.Duration(uint32(off)*2654435761>>16) * time.Nanosecond) // no two requests at once
	l.mu.Lock()
	l.requests++
	l.bytes += n
	trips := time.Duration(1)
	if l.idle > 0 {
		l.idle--
	} else {
		trips++
	}
	l.mu.Unlock()
	time.Sleep(trips * l.rtt)
	for n > 0 {
		k := min(n, simPiece)
		l.turn <- struct{}{}
		l.mu.Lock()
		if now := time.Now(); l.free.Before(now) {
			l.free = now
		}
		over := time.Until(l.free).Seconds()*l.rate + float64(k) - l.buffer
		l.mu.Unlock()
		if over > 0 {
			time.Sleep(time.Duration(over / l.rate * 1e9))
		}
		l.mu.Lock()
		if now := time.Now(); l.free.Before(now) {
			l.free = now
		}
		l.free = l.free.Add(time.Duration(float64(k) / l.rate * 1e9))
		at := l.free
		l.mu.Unlock()
		<-l.turn
		pieces <- simPiece2{k, at}
		n -= k
	}
}

// simImage is where the blocks of an image lie.
type simImage []blockio.Extent

func (im simImage) Blocks() int64 { return int64(len(im)) }

func (im simImage) Extent(_ context.Context, n int64) (blockio.Extent, error) { return im[n], nil }

// simStore keeps everything.
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
func (s *simStore) Claim(blockio.Extent, blockio.Class) (func(), bool) {
	return func() {}, true
}

type simRun struct {
	first, count int64
	gap          time.Duration
}

func loadSim(t *testing.T, extents, profile string) (simImage, []simRun) {
	t.Helper()
	open := func(name string) *bufio.Reader {
		f, err := os.Open(name)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		z, err := gzip.NewReader(f)
		if err != nil {
			t.Fatal(err)
		}
		return bufio.NewReader(z)
	}
	var im simImage
	off := int64(0)
	for r := open(extents); ; {
		var n int64
		if _, err := fmt.Fscanln(r, &n); err != nil {
			break
		}
		im = append(im, blockio.Extent{Off: off, Len: n})
		off += n
	}
	r := open(profile)
	r.ReadString('\n')
	r.ReadString('\n')
	var runs []simRun
	for {
		var a, b, c int64
		if _, err := fmt.Fscanln(r, &a, &b, &c); err != nil {
			break
		}
		runs = append(runs, simRun{a, b, time.Duration(c) * time.Microsecond})
	}
	return im, runs
}

const simDecode = 400 * time.Microsecond

type simResult struct {
	took     time.Duration
	requests int
	bytes    int64
	needed   int64
	stats    Stats
}

// simulate replays what a session wanted.
func simulate(t *testing.T, line string, im simImage, runs []simRun, opt Options, trace []simRun) (res simResult) {
	synctest.Test(t, func(t *testing.T) {
		l := newSimLine(line)
		opt.Store = &simStore{have: make(map[int64]bool)}
		s := New(l, im, opt)
		if trace != nil {
			var spans []blockio.Span
			for _, r := range trace {
				spans = append(spans, blockio.Span{First: r.first, Count: r.count})
			}
			s.Replay(spans)
		}
		begin := time.Now()
		var wg sync.WaitGroup
		for _, r := range runs {
			if r.gap > 0 {
				wg.Wait()
				time.Sleep(r.gap)
			}
			time.Sleep(time.Microsecond)
			wg.Go(func() {
				err := s.ReadRun(t.Context(), blockio.Demand, r.first, r.count, func(n int64, _ []byte) error {
					time.Sleep(simDecode)
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			})
			for n := r.first; n < r.first+r.count; n++ {
				res.needed += im[n].Len
			}
		}
		wg.Wait()
		res.took = time.Since(begin)
		l.mu.Lock()
		res.requests, res.bytes = l.requests, l.bytes
		l.mu.Unlock()
		res.stats = s.Stats()
		s.Close()
		time.Sleep(time.Hour)
	})
	return res
}

func TestSimulate(t *testing.T) {
	for _, w := range strings.Split(cmp.Or(os.Getenv("W"), "files,shuffled,files8"), ",") {
		im, runs := loadSim(t, "testdata/debian.extents.gz", "testdata/"+w+".profile.gz")
		total := im[len(im)-1].End()
		for _, line := range strings.Split(cmp.Or(os.Getenv("L"), "metro,wan,far"), ",") {
			l := newSimLine(line)
			download := time.Duration(float64(total)/l.rate*1e9) + 2*l.rtt
			for _, c := range []struct {
				name  string
				opt   Options
				trace []simRun
			}{
				{"off", Options{Ahead: Sequential}, nil},
				{"speculate", Options{Ahead: Neighbours}, nil},
				{"trace", Options{Ahead: Neighbours}, runs},
			} {
				if m := os.Getenv("M"); m != "" && !strings.Contains(m, c.name) {
					continue
				}
				r := simulate(t, line, im, runs, c.opt, c.trace)
				limit := time.Duration(float64(r.needed) / l.rate * 1e9)
				cls := ""
				for k, n := range []string{"D", "R", "T", "S"} {
					x := r.stats.Class[k]
					cls += fmt.Sprintf(" %s %d %.1f/%.1f", n, x.Requests, float64(x.Used)/1e6, float64(x.Bytes)/1e6)
				}
				t.Logf("%-8s %-5s %-9s %6.2f s  %.2f of download %.2f of limit  %5d requests %6.1f MB (needed %.1f)%s", w, line, c.name, r.took.Seconds(),
					r.took.Seconds()/download.Seconds(), r.took.Seconds()/limit.Seconds(), r.requests, float64(r.bytes)/1e6, float64(r.needed)/1e6, cls)
			}
		}
	}
}
