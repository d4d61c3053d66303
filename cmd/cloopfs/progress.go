package main

import (
	"encoding/json"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/schollz/progressbar/v3"
)

const (
	// barPause and linePause are the times between two reports: on a terminal
	// and to programs, and in a log.
	barPause  = time.Second / 4
	jsonPause = time.Second
	linePause = 10 * time.Second
)

// progress tells how far an image has been brought.
type progress struct {
	line  *line
	out   io.Writer // for the result
	err   io.Writer // for people, meanwhile
	json  *json.Encoder
	bar   *progressbar.ProgressBar // nil unless somebody watches
	begin time.Time
	b     *bringing
}

// prefetchReport is what programs are told. Its JSON names are part of the contract
// with scripts. Sizes are bytes.
type prefetchReport struct {
	Source  string `json:"source"`
	Size    int64  `json:"size"`    // of the image
	Done    int64  `json:"done"`    // of it, here and right
	Fetched int64  `json:"fetched"` // from the server
	// Complete says that all is here, and right, and kept. Ended says that this
	// is the last report.
	Complete bool   `json:"complete"`
	Ended    bool   `json:"ended"`
	Error    string `json:"error,omitempty"`
	Path     string `json:"path"` // of the file's bytes
}

func newProgress(l *line, stdout, stderr io.Writer, asJSON bool) *progress {
	p := &progress{line: l, out: stdout, err: stderr, begin: time.Now()}
	switch {
	case asJSON:
		p.json = json.NewEncoder(stdout)
	case isTerminal(stderr):
		p.bar = newBar(stderr, l.source.Size())
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
		tick := time.NewTicker(pause)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				p.report()
			case <-done:
				return
			}
		}
	})
	return func() {
		close(done)
		wg.Wait()
	}
}

// report says how far it is. Nobody has to listen.
func (p *progress) report() {
	switch {
	case p.json != nil:
		_ = p.json.Encode(p.state())
	case p.bar != nil:
		_ = p.bar.Set64(p.b.done.Load())
	default:
		say(p.err, "%s", p)
	}
}

// String is how far it is, for people.
func (p *progress) String() string {
	done, size := p.b.done.Load(), p.line.source.Size()
	took := time.Since(p.begin)
	s := fmt.Sprintf("%s: %d %% of %s", p.line.at, done*100/max(1, size), formatSize(size))
	if done == 0 {
		return s
	}
	left := time.Duration(float64(took) * float64(size-done) / float64(done))
	return s + fmt.Sprintf(", %s/s, %v left", formatSize(int64(float64(done)/took.Seconds())), left.Round(time.Second))
}

func (p *progress) state() prefetchReport {
	r := prefetchReport{Source: p.line.at.String(), Size: p.line.source.Size(), Path: p.line.file.cached.entry.Path()}
	if p.b != nil {
		r.Done = p.b.done.Load()
	}
	if h := p.line.file.http; h != nil {
		r.Fetched = h.Stats().Bytes
	}
	return r
}

// end says how it ended.
func (p *progress) end(err error) {
	if p.bar != nil {
		_ = p.bar.Clear()
	}
	r := p.state()
	r.Complete, r.Ended = err == nil, true
	if err != nil {
		r.Error = oneLine(err.Error())
	}
	switch {
	case p.json != nil:
		_ = p.json.Encode(r)
	case err == nil:
		fmt.Fprintf(p.out, "%s: %s, all here and right, %s of it fetched now\n", p.line.at, formatSize(r.Size), formatSize(r.Fetched))
	}
}
