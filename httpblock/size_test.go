package httpblock_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/cloopfs/cloopfs/httpblock"
)

// sizeless answers a request with its range of data, of a file whose size it
// does not know: nothing but the Content-Range says what comes. last is the
// answer to a request for the last byte.
func sizeless(w http.ResponseWriter, r *http.Request, data []byte, last func(http.ResponseWriter)) {
	var off, end int
	w.Header().Set("ETag", `"a"`)
	if r.Header.Get("Range") == "bytes=-1" {
		last(w)
		return
	}
	if _, err := fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &off, &end); err != nil {
		w.WriteHeader(http.StatusBadRequest)
		return
	}
	end = min(end, len(data)-1)
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/*", off, end))
	w.WriteHeader(http.StatusPartialContent)
	w.(http.Flusher).Flush() // chunked: without a length
	w.Write(data[off : end+1])
}

// A server that does not know the size of the file says it by where the last
// byte lies.
func TestUnknownSize(t *testing.T) {
	answer := func(code int, pairs ...string) func(http.ResponseWriter) {
		return func(w http.ResponseWriter) {
			for i := 0; i < len(pairs); i += 2 {
				w.Header().Set(pairs[i], pairs[i+1])
			}
			w.WriteHeader(code)
			w.Write([]byte("x"))
		}
	}
	tests := []struct {
		name string
		size int
		last func(http.ResponseWriter)
		says string // empty: it works
	}{
		{name: "with the total", size: 100_000, last: answer(206, "Content-Range", "bytes 99999-99999/100000")},
		{name: "without the total", size: 100_000, last: answer(206, "Content-Range", "bytes 99999-99999/*")},
		{name: "one byte", size: 1, last: answer(206, "Content-Range", "bytes 0-0/*")},
		{name: "smaller than the head", size: 5000, last: answer(206, "Content-Range", "bytes 4999-4999/*")},
		{name: "contradiction", size: 100_000, last: answer(206, "Content-Range", "bytes 99999-99999/100001"), says: "does not say how large"},
		{name: "taken for the first two", size: 100_000, last: answer(206, "Content-Range", "bytes 0-1/*"), says: "does not say how large"},
		{name: "taken for the second", size: 100_000, last: answer(206, "Content-Range", "bytes 1-1/*"), says: "does not say how large"},
		{name: "no Content-Range", size: 100_000, last: answer(206), says: "does not say how large"},
		{name: "whole file", size: 100_000, last: answer(200), says: "does not say how large"},
		{name: "416", size: 100_000, last: answer(416), says: "does not say how large"},
		{name: "403", size: 100_000, last: answer(403), says: "server answered 403"},
		{name: "another file", size: 100_000, last: answer(206, "Content-Range", "bytes 99999-99999/*", "ETag", `"b"`), says: `changed on the server (ETag "a" -> "b")`},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			data := random(tt.size)
			var q requests
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				q.add(r)
				sizeless(w, r, data, tt.last)
			})
			s, err := httpblock.Open(t.Context(), url, httpblock.Options{Timeout: soon})
			if got := len(q.take()); got != 2 {
				t.Errorf("got %d requests, want 2", got)
			}
			if tt.says != "" {
				if err == nil || !strings.Contains(err.Error(), tt.says) || strings.Contains(err.Error(), "gave up") {
					t.Errorf("got error %v, want %q at once", err, tt.says)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			defer s.Close()
			if s.Size() != int64(tt.size) {
				t.Errorf("got size %d, want %d", s.Size(), tt.size)
			}
			readRange(t, s, data, int64(tt.size/2), int64(tt.size-tt.size/2))
			readRange(t, s, data, 0, int64(tt.size))
		})
	}
}

// Also a server that sometimes knows the size must not change it.
func TestSizeIsKnownLater(t *testing.T) {
	data := random(100_000)
	var q requests
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if q.add(r) < 3 {
			sizeless(w, r, data, func(w http.ResponseWriter) {
				w.Header().Set("Content-Range", "bytes 99999-99999/*")
				w.WriteHeader(http.StatusPartialContent)
			})
			return
		}
		content(w, r, data[:99_000])
	})
	s := open(t, url, httpblock.Options{Timeout: soon})
	readRange(t, s, data, 50_000, 1000)
	if _, err := readAt(t.Context(), s, 1000, 60_000); !errors.Is(err, httpblock.ErrChanged) {
		t.Errorf("got error %v, want %v", err, httpblock.ErrChanged)
	}
}
