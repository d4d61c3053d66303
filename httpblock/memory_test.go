package httpblock_test

import (
	"fmt"
	"io"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/httpblock"
)

// Whatever a server sends without end, what is kept of it is bounded, and the
// connection is closed soon.
func TestEndlessAnswersAreBounded(t *testing.T) {
	const (
		most  = 4 << 20 // allocated by the client and the server of the test
		sent  = 64 << 20
		piece = 64 << 10
	)
	data := random(100_000)
	endless := func(c io.Writer, p []byte, total *atomic.Int64) {
		for {
			n, err := c.Write(p)
			if total.Add(int64(n)) > sent || err != nil {
				return
			}
		}
	}
	large := strings.Repeat("x", piece)
	tests := []struct {
		name  string
		head  string
		body  string
		works bool
	}{
		{name: "header", head: "HTTP/1.1 206 Partial Content\r\nX: ", body: large},
		{name: "headers", head: "HTTP/1.1 206 Partial Content\r\n", body: strings.Repeat("X: y\r\n", piece/6)},
		{name: "status line", head: "HTTP/1.1 206 ", body: large},
		{name: "interim answers", body: strings.Repeat("HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n", piece/36)},
		{name: "body of a 200", head: "HTTP/1.1 200 OK\r\nETag: \"a\"\r\n\r\n", body: large},
		{name: "body of a 404", head: "HTTP/1.1 404 Not Found\r\n\r\n", body: large},
		{name: "body of a redirect", head: "HTTP/1.1 302 Found\r\nLocation: /x\r\n\r\n", body: large},
		{name: "body of a 503", head: "HTTP/1.1 503 Service Unavailable\r\n\r\n", body: large},
		{name: "body", head: fmt.Sprintf("HTTP/1.1 206 Partial Content\r\nETag: \"a\"\r\nContent-Range: bytes 50000-50999/%d\r\n\r\n", len(data)), body: large, works: true},
		{name: "chunks", head: fmt.Sprintf("HTTP/1.1 206 Partial Content\r\nETag: \"a\"\r\nContent-Range: bytes 50000-50999/%d\r\nTransfer-Encoding: chunked\r\n\r\n", len(data)), body: fmt.Sprintf("%x\r\n%s\r\n", piece, large), works: true},
		{name: "chunk extensions", head: fmt.Sprintf("HTTP/1.1 206 Partial Content\r\nETag: \"a\"\r\nContent-Range: bytes 50000-50999/%d\r\nTransfer-Encoding: chunked\r\n\r\n5;", len(data)), body: large},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			var q requests
			var total atomic.Int64
			body := []byte(tt.body)
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if q.add(r) == 0 {
					content(w, r, data)
					return
				}
				c, _, err := http.NewResponseController(w).Hijack()
				if err != nil {
					t.Error(err)
					return
				}
				defer c.Close()
				io.WriteString(c, tt.head)
				endless(c, body, &total)
			})
			s := open(t, url, httpblock.Options{Timeout: soon})
			httpblock.SetTimeout(s, 200*time.Millisecond)
			var before, after runtime.MemStats
			runtime.ReadMemStats(&before)
			got, err := readAt(t.Context(), s, 1000, 50_000)
			runtime.ReadMemStats(&after)
			if (err == nil) != tt.works || tt.works && len(got) != 1000 {
				t.Errorf("got %d bytes, error %v", len(got), err)
			}
			if n := after.TotalAlloc - before.TotalAlloc; n > most {
				t.Errorf("allocated %d bytes, want at most %d", n, most)
			}
			if n := total.Load(); n > sent {
				t.Errorf("the server could send %d bytes, want an end before", n)
			}
		})
	}
}
