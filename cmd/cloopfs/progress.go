package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
	"golang.org/x/sys/unix"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/internal/units"
)

const (
	// barPause, jsonPause and linePause are the times between two reports: on a
	// terminal, to programs, and in a log.
	barPause  = time.Second / 4
	jsonPause = time.Second
	linePause = 10 * time.Second
)

// progress tells how far an image has been brought.
type progress struct {
	line *line.Line // nil for an image that can't be had
	at   line.Location
	out  io.Writer // for the result
	err  io.Writer // for people, meanwhile
	json *json.Encoder
	bar  *progressbar.ProgressBar // nil unless somebody watches
	b    *bringing
	meter
}

// meter tells how fast something is fetched. What is found here is not: the time
// counts from when the first bytes came.
type meter struct {
	size    int64 // of what is wanted of the image
	missing int64 // of it at first, as it seems
	begin   time.Time
	pace
}

// pace is how far it is, and how fast it goes.
type pace struct {
	done, fetched int64         // bytes of the image: here and right, and of these from the server
	rate          int64         // bytes fetched in a second; 0 if none were
	left          time.Duration // until all is here; 0 if that is not known
}

// look notes how far it is.
func (m *meter) look(now time.Time, done, fetched int64) {
	m.pace = pace{done: done, fetched: fetched}
	if fetched == 0 {
		m.begin = now
	}
	took := now.Sub(m.begin)
	if fetched == 0 || took <= 0 {
		return
	}
	rate := float64(fetched) / took.Seconds()
	left := min(m.size-done, max(0, m.missing-fetched))
	m.rate, m.left = int64(rate), time.Duration(float64(left)/rate*float64(time.Second)).Round(time.Second)
}

// String is how far it is, for people.
func (m *meter) String() string {
	s := fmt.Sprintf("%s of %s", units.FormatSize(m.done), units.FormatSize(m.size))
	if m.rate > 0 {
		s += fmt.Sprintf(", %s/s, %v left", units.FormatSize(m.rate), m.left)
	}
	return s
}

// prefetchReport is what programs are told. Its JSON names are part of the contract
// with scripts. Sizes are bytes.
type prefetchReport struct {
	Source  string `json:"source"`
	Size    int64  `json:"size"`    // of the image, or of what a profile needs of it
	Done    int64  `json:"done"`    // of it, here and right
	Fetched int64  `json:"fetched"` // from the server
	Rate    int64  `json:"rate"`    // of what is fetched now, in a second
	Left    int64  `json:"left"`    // seconds; 0 if that is not known
	// Complete says that all of that is here, and right, and kept. Ended says that this
	// is the last report.
	Complete bool   `json:"complete"`
	Ended    bool   `json:"ended"`
	Error    string `json:"error,omitempty"`
	Path     string `json:"path"` // of the file's bytes; empty if the image can't be opened
}

func newProgress(w *wanted, stdout, stderr io.Writer, asJSON bool) *progress {
	p := &progress{line: w.line, at: w.at, out: stdout, err: stderr}
	if asJSON {
		p.json = json.NewEncoder(stdout)
	}
	l := w.line
	if w.err != nil {
		return p
	}
	p.size, p.missing, p.begin = l.ImageSize(), l.ImageSize(), time.Now()
	if w.part != nil {
		p.size, p.missing = w.part.size, w.part.missing
	} else if isWholeFile(l) {
		p.missing -= l.Entry().Allocated()
	}
	if !asJSON && isTerminal(stderr) {
		// The bar's own rate and time would count what is found here.
		p.bar = progressbar.NewOptions64(p.size,
			progressbar.OptionSetWriter(stderr), progressbar.OptionSetPredictTime(false), progressbar.OptionSetElapsedTime(false),
			progressbar.OptionFullWidth(), progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(barPause/2))
	}
	return p
}

// newBar shows on a terminal how much of size bytes is done; -1: of what nobody knows.
func newBar(stderr io.Writer, size int64) *progressbar.ProgressBar {
	return progressbar.NewOptions64(size,
		progressbar.OptionSetWriter(stderr), progressbar.OptionShowBytes(true), progressbar.OptionUseIECUnits(true),
		progressbar.OptionShowTotalBytes(true), progressbar.OptionSetPredictTime(true), progressbar.OptionFullWidth(),
		progressbar.OptionClearOnFinish(), progressbar.OptionThrottle(barPause/2))
}

// watchBytes returns a function that is told how many of size bytes are done, for
// whoever watches at a terminal, and one to call in the end.
func watchBytes(stderr io.Writer, size int64) (done func(int64), end func()) {
	if !isTerminal(stderr) {
		return nil, func() {}
	}
	bar := newBar(stderr, size)
	return func(n int64) { _ = bar.Set64(n) }, func() { _ = bar.Clear() }
}

// follow reports now and then how far b is, until stop is called.
func (p *progress) follow(b *bringing) (stop func()) {
	p.b = b
	pause := linePause
	switch {
	case p.json != nil:
		pause = jsonPause
	case p.bar != nil:
		pause = barPause
	}
	done := make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		tick := time.NewTicker(barPause) // to see when the first bytes come
		defer tick.Stop()
		for told := time.Now(); ; {
			select {
			case now := <-tick.C:
				p.look(now, b.done.Load(), fetchedBlocks(p.line))
				if now.Sub(told) >= pause-barPause/2 {
					told = now
					p.report()
				}
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
		p.look(time.Now(), b.done.Load(), fetchedBlocks(p.line))
	}
}

// report says how far it is. Nobody has to listen.
func (p *progress) report() {
	switch {
	case p.json != nil:
		_ = p.json.Encode(p.state())
	case p.bar != nil:
		p.bar.Describe(shortOf(p.at) + ": " + p.meter.String())
		_ = p.bar.Set64(p.done)
	default:
		cli.Say(p.err, "%s: %s", p.at, p.meter.String())
	}
}

// shortName is how many letters of a name there is room for before a bar.
const shortName = 20

// shortOf is the last part of the SOURCE, for where there is little room.
func shortOf(at line.Location) string {
	name := []rune(cli.OneLine(path.Base(at.String())))
	if len(name) > shortName {
		return string(name[:shortName-3]) + "..."
	}
	return string(name)
}

// fetchedBlocks is how many bytes of stored blocks came from the server.
func fetchedBlocks(l *line.Line) int64 {
	stats := l.FetchStats()
	n := stats.Refetched.Bytes
	for _, class := range stats.Class {
		n += class.Bytes
	}
	return n
}

func (p *progress) state() prefetchReport {
	r := prefetchReport{Source: p.at.String(), Size: p.size, Rate: p.rate, Left: int64(p.left / time.Second)}
	if p.b != nil {
		r.Done = p.b.done.Load()
	}
	l := p.line
	if l == nil {
		return r
	}
	if p.size == 0 {
		r.Size = l.ImageSize()
	}
	if e := l.Entry(); e != nil {
		r.Path = e.Path()
	}
	_, _, r.Fetched = blockio.Fetched(l.Servers())
	return r
}

// end says how it ended.
func (p *progress) end(err error) {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
	r := p.state()
	r.Complete, r.Ended = err == nil, true
	r.Left = 0
	if errors.Is(err, context.Canceled) {
		r.Error = "interrupted"
	} else if err != nil {
		r.Error = cli.OneLine(err.Error())
	}
	switch {
	case p.json != nil:
		_ = p.json.Encode(r)
	case err == nil:
		of := units.FormatSize(r.Size)
		if whole := p.line.ImageSize(); r.Size < whole {
			of += " of " + units.FormatSize(whole)
		}
		fmt.Fprintf(p.out, "%s: %s, all here and right, %s of it fetched now\n", p.at, of, units.FormatSize(r.Fetched))
	}
}

// isTerminal says whether w is a terminal.
func isTerminal(w any) bool {
	f, ok := w.(*os.File)
	if !ok {
		return false
	}
	_, err := unix.IoctlGetTermios(int(f.Fd()), unix.TCGETS)
	return err == nil
}
