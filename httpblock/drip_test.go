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
		requests int64
	}{
		{"a few bytes at a time", 2, stall / 20, 0, 2},
		{"after refusals", 2, stall / 20, 3, 5},
		{"in the last moment", 300, stall / 2, 0, 1},
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
					case n == tt.refused+1:
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
