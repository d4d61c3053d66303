package httpblock_test

import (
	"bytes"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/httpblock"
)

// An answer that drips is given up, and the rest asked for again; one that is only slow
// is read to its end.
func TestDrip(t *testing.T) {
	const stall = 200 * time.Millisecond
	tests := []struct {
		name     string
		bytes    int // of each piece
		pause    time.Duration
		refused  int64 // requests before it
		silent   int64 // likewise, after these
		requests int64
	}{
		{"a few bytes at a time", 2, stall / 20, 0, 0, 2},
		{"after refusals", 2, stall / 20, 3, 0, 5},
		{"after silence", 10, stall / 20, 0, 1, 3},
		{"in the last moment", 300, stall / 2, 0, 0, 1},
	}
	data := random(20_000)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T, net *network) {
				var requests atomic.Int64
				url := net.serve(t, func(w http.ResponseWriter, r *http.Request) {
					switch n := requests.Add(1) - 1; { // the first is that of Open
					case n > 0 && n <= tt.refused:
						w.WriteHeader(http.StatusServiceUnavailable)
					case n > 0 && n <= tt.refused+tt.silent:
						hang(r)
					case n == tt.refused+tt.silent+1:
						content(&dripping{w, r, tt.bytes, tt.pause}, r, data)
					default:
						content(w, r, data)
					}
				})
				s := net.open(t, url, httpblock.Options{Timeout: soon})
				httpblock.SetStall(s, stall)
				within(t, func() { readRange(t, s, data, 10_000, 2000) })
				if got := requests.Load() - 1; got != tt.requests {
					t.Errorf("got %d requests, want %d", got, tt.requests)
				}
			})
		})
	}
}

// A body that begins late is waited for longer each time, as late headers are.
func TestLateBody(t *testing.T) {
	const stall = 200 * time.Millisecond
	data := random(20_000)
	virtual(t, func(t *testing.T, net *network) {
		var requests atomic.Int64
		url := net.serve(t, func(w http.ResponseWriter, r *http.Request) {
			if requests.Add(1) > 1 {
				w = &late{w, 3 * stall}
			}
			content(w, r, data)
		})
		s := net.open(t, url, httpblock.Options{Timeout: soon})
		httpblock.SetStall(s, stall)
		requests.Store(1)
		within(t, func() { readRange(t, s, data, 10_000, 2000) })
		if got := requests.Load() - 1; got != 3 {
			t.Errorf("got %d requests, want 3: for %v, twice that, and four times", got, stall)
		}
	})
}

// late sends a body late.
type late struct {
	http.ResponseWriter
	by time.Duration
}

func (l *late) Write(p []byte) (int, error) {
	l.ResponseWriter.(http.Flusher).Flush()
	time.Sleep(l.by)
	return l.ResponseWriter.Write(p)
}

// An answer that brings far less than others have is given up, where the next may bring more;
// not for ever where that is as slow, and not where nothing better was seen.
func TestCrawl(t *testing.T) {
	const size = 200_000
	tests := []struct {
		name     string
		warm     bool          // other answers were fast
		idle     time.Duration // since then
		crawling int64         // answers, before those that are fast again
		requests int64
	}{
		{"one answer", true, 0, 1, 2},
		{"all answers", true, 0, 100, 3},
		{"long ago", true, 11 * time.Second, 1, 1},
		{"nothing known", false, 0, 1, 1},
	}
	data := random(size)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T, net *network) {
				var crawling, requests atomic.Int64
				url := net.serve(t, func(w http.ResponseWriter, r *http.Request) {
					requests.Add(1)
					d := &dripping{w, r, 16 << 10, 10 * time.Millisecond}
					if crawling.Add(-1) >= 0 {
						d.bytes, d.pause = 100, time.Second/2
					}
					content(d, r, data)
				})
				s := net.open(t, url, httpblock.Options{Timeout: 30 * time.Second})
				httpblock.SetStall(s, 2*time.Second)
				if tt.warm {
					readRange(t, s, data, 0, size/2)
				}
				time.Sleep(tt.idle)
				crawling.Store(tt.crawling)
				requests.Store(0)
				readRange(t, s, data, size/2, 10_000)
				if got := requests.Load(); got != tt.requests {
					t.Errorf("got %d requests, want %d", got, tt.requests)
				}
			})
		})
	}
}

// dripping sends a body in small pieces, until the client leaves.
type dripping struct {
	http.ResponseWriter
	req   *http.Request
	bytes int
	pause time.Duration
}

func (d *dripping) Write(p []byte) (int, error) {
	from := bytes.NewReader(p)
	for from.Len() > 0 && d.req.Context().Err() == nil {
		piece := make([]byte, min(d.bytes, from.Len()))
		_, _ = from.Read(piece) // never fails
		if _, err := d.ResponseWriter.Write(piece); err != nil {
			return 0, err
		}
		d.ResponseWriter.(http.Flusher).Flush()
		time.Sleep(d.pause)
	}
	return len(p) - from.Len(), nil
}
