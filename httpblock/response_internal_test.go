package httpblock

import (
	"errors"
	"math"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
)

// header makes a header of pairs of names and values.
func header(pairs ...string) http.Header {
	h := make(http.Header)
	for i := 0; i < len(pairs); i += 2 {
		h.Set(pairs[i], pairs[i+1])
	}
	return h
}

func TestJudge(t *testing.T) {
	const date, later = "Thu, 02 Jan 2020 03:04:05 GMT", "Fri, 03 Jan 2020 03:04:05 GMT"
	pin := &pinned{size: 1000, etag: `"a"`, lastModified: date}
	same := []string{"ETag", `"a"`, "Last-Modified", date}
	tests := []struct {
		name   string
		first  bool // the first answer of all: nothing is pinned yet
		pin    *pinned
		status int // 206 if 0
		header []string
		length int64 // Content-Length; 0: what Content-Range says, as asked
		want   span
		err    error  // is wrapped
		code   int    // of a StatusError
		says   string // part of the message
	}{
		// The range asked for is always bytes=100-199.
		{name: "as asked", header: append([]string{"Content-Range", "bytes 100-199/1000"}, same...), want: span{100, 100, 1000}},
		{name: "first", first: true, header: []string{"Content-Range", "bytes 100-199/777"}, want: span{100, 100, 777}},
		{name: "shorter", header: append([]string{"Content-Range", "bytes 100-149/1000"}, same...), length: 50, want: span{100, 50, 1000}},
		{name: "to the end", first: true, header: []string{"Content-Range", "bytes 100-149/150"}, length: 50, want: span{100, 50, 150}},
		{name: "length unknown", header: append([]string{"Content-Range", "bytes 100-199/1000"}, same...), length: -1, want: span{100, 100, 1000}},
		{name: "identity", header: append([]string{"Content-Range", "bytes 100-199/1000", "Content-Encoding", "identity"}, same...), want: span{100, 100, 1000}},
		{name: "no validators at all", pin: &pinned{size: 1000}, header: []string{"Content-Range", "bytes 100-199/1000"}, want: span{100, 100, 1000}},

		{name: "unknown total", header: append([]string{"Content-Range", "bytes 100-199/*"}, same...), want: span{100, 100, unknown}},
		{name: "unknown total at first", first: true, header: []string{"Content-Range", "bytes 100-199/*"}, want: span{100, 100, unknown}},
		{name: "unknown total, other ETag", header: []string{"Content-Range", "bytes 100-199/*", "ETag", `"b"`, "Last-Modified", date}, err: ErrChanged},
		{name: "unknown total, chunked", header: append([]string{"Content-Range", "bytes 100-199/*"}, same...), length: -1, want: span{100, 100, unknown}},

		{name: "starts before", header: append([]string{"Content-Range", "bytes 99-198/1000"}, same...), err: errProtocol, says: `"bytes 99-198/1000" to bytes=100-199`},
		{name: "starts after", header: append([]string{"Content-Range", "bytes 101-199/1000"}, same...), length: 99, err: errProtocol},
		{name: "longer than asked", header: append([]string{"Content-Range", "bytes 100-200/1000"}, same...), length: 101, err: errProtocol},
		{name: "whole file", header: append([]string{"Content-Range", "bytes 0-999/1000"}, same...), length: 1000, err: errProtocol},
		{name: "no Content-Range", header: same, err: errProtocol},
		{name: "multipart", header: append([]string{"Content-Type", "multipart/byteranges; boundary=x"}, same...), err: errProtocol, says: "to a request for one range"},
		{name: "gzip", header: append([]string{"Content-Range", "bytes 100-199/1000", "Content-Encoding", "gzip"}, same...), err: ErrEncoded, says: `encoded (Content-Encoding "gzip")`},
		{name: "length too small", header: append([]string{"Content-Range", "bytes 100-199/1000"}, same...), length: 99, err: errProtocol, says: "a body of 99 bytes"},
		{name: "length too large", header: append([]string{"Content-Range", "bytes 100-199/1000"}, same...), length: 101, err: errProtocol},

		{name: "other size", header: append([]string{"Content-Range", "bytes 100-199/1001"}, same...), err: ErrChanged, says: "size 1000 -> 1001"},
		{name: "other ETag", header: []string{"Content-Range", "bytes 100-199/1000", "ETag", `"b"`, "Last-Modified", date}, err: ErrChanged, says: `ETag "a" -> "b"`},
		{name: "weak ETag", header: []string{"Content-Range", "bytes 100-199/1000", "ETag", `W/"a"`, "Last-Modified", date}, err: ErrChanged},
		{name: "ETag gone", header: []string{"Content-Range", "bytes 100-199/1000", "Last-Modified", date}, err: ErrChanged, says: `ETag "a" -> none`},
		{name: "ETag appeared", pin: &pinned{size: 1000}, header: []string{"Content-Range", "bytes 100-199/1000", "ETag", `"a"`}, err: ErrChanged, says: `ETag none -> "a"`},
		{name: "other date", header: []string{"Content-Range", "bytes 100-199/1000", "ETag", `"a"`, "Last-Modified", later}, err: ErrChanged, says: "Last-Modified " + date + " -> " + later},
		{name: "date gone", header: []string{"Content-Range", "bytes 100-199/1000", "ETag", `"a"`}, err: ErrChanged},

		{name: "200 at first", first: true, status: 200, header: same, length: 1000, err: ErrNoRanges, says: "answered 200 to bytes=100-199"},
		{name: "200 of the same file", status: 200, header: same, length: 1000, err: ErrNoRanges},
		{name: "200 of another file", status: 200, header: []string{"ETag", `"b"`, "Last-Modified", date}, length: 1000, err: ErrChanged},
		{name: "200 of another date", status: 200, header: []string{"ETag", `"a"`, "Last-Modified", later}, length: 1000, err: ErrChanged},
		{name: "416 at first", first: true, status: 416, header: []string{"Content-Range", "bytes */0"}, err: blockio.ErrEmpty, says: "the file is empty"},
		{name: "416 later", status: 416, header: []string{"Content-Range", "bytes */50"}, err: ErrChanged, says: "answered 416 to bytes=100-199"},

		{name: "404", status: 404, code: 404, says: "server answered 404 Not Found"},
		{name: "404 at first", first: true, status: 404, code: 404},
		{name: "503", status: 503, header: []string{"Retry-After", "7"}, code: 503},
		{name: "204", status: 204, code: 204},
		{name: "304", status: 304, code: 304},
		{name: "not registered", status: 599, code: 599, says: "server answered 599"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			p := pin
			switch {
			case tt.first:
				p = nil
			case tt.pin != nil:
				p = tt.pin
			}
			resp := &http.Response{StatusCode: tt.status, Header: header(tt.header...), ContentLength: tt.length}
			if resp.StatusCode == 0 {
				resp.StatusCode = http.StatusPartialContent
			}
			if resp.ContentLength == 0 {
				resp.ContentLength = 100
			}
			got, err := judge(resp, 100, 100, p)
			var status *StatusError
			switch {
			case tt.code != 0:
				if !errors.As(err, &status) || status.Code != tt.code {
					t.Fatalf("got error %v, want a StatusError of %d", err, tt.code)
				}
			case tt.err != nil:
				if !errors.Is(err, tt.err) {
					t.Fatalf("got error %v, want %v", err, tt.err)
				}
			case err != nil:
				t.Fatalf("got error %v, want none", err)
			case got != tt.want:
				t.Errorf("got %+v, want %+v", got, tt.want)
			}
			if tt.says != "" && !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got message %q, want %q in it", err, tt.says)
			}
		})
	}
}

func TestJudgeRetryAfter(t *testing.T) {
	for _, code := range []int{429, 503} {
		resp := &http.Response{StatusCode: code, Header: header("Retry-After", "7")}
		_, err := judge(resp, 0, 1, nil)
		want := &StatusError{Code: code, RetryAfter: 7 * time.Second}
		if diff := cmp.Diff(error(want), err); diff != "" {
			t.Errorf("%d: error (-want +got):\n%s", code, diff)
		}
	}
}

func TestParseContentRange(t *testing.T) {
	const huge = "9223372036854775807" // 2^63-1
	tests := []struct {
		in   string
		want span // zero: an error
	}{
		{"bytes 0-0/1", span{0, 1, 1}},
		{"bytes 0-99/100", span{0, 100, 100}},
		{"bytes 10-19/100", span{10, 10, 100}},
		{"bytes 099-099/0100", span{99, 1, 100}},
		{"bytes 0-9223372036854775806/" + huge, span{0, math.MaxInt64, math.MaxInt64}},
		{"bytes 0-0/*", span{0, 1, unknown}},
		{"bytes 7-9/*", span{7, 3, unknown}},
		{"bytes 0-9223372036854775806/*", span{0, math.MaxInt64, unknown}},
		{"bytes 0-" + huge + "/*", span{}},
		{"bytes 2-1/*", span{}},
		{"bytes 0-1/**", span{}},
		{"bytes *-1/2", span{}},
		{"bytes 0-*/2", span{}},
		{"", span{}},
		{"bytes", span{}},
		{"bytes ", span{}},
		{"bytes 0", span{}},
		{"bytes 0-1", span{}},
		{"bytes 0/1", span{}},
		{"bytes -/", span{}},
		{"bytes 0-1/", span{}},
		{"bytes 0-/2", span{}},
		{"bytes -1/2", span{}},
		{"bytes */2", span{}},
		{"bytes */*", span{}},
		{"bytes=0-1/2", span{}},
		{"bytes: 0-1/2", span{}},
		{"lines 0-1/2", span{}},
		{"bytes  0-1/2", span{}},
		{"bytes 0 - 1 / 2", span{}},
		{"bytes 0-1/2 ", span{}},
		{"bytes 0-1/2/3", span{}},
		{"bytes 0-1-1/2", span{}},
		{"bytes 0-1/2,4-5/6", span{}},
		{"bytes 1-0/2", span{}}, // reversed
		{"bytes 0-2/2", span{}}, // ends behind the end
		{"bytes 2-2/2", span{}}, // starts there
		{"bytes +0-1/2", span{}},
		{"bytes 0-+1/2", span{}},
		{"bytes 0x0-0x1/2", span{}},
		{"bytes 0-1_0/20", span{}},
		{"bytes 0-" + huge + "/" + huge, span{}},
		{"bytes 0-1/9223372036854775808", span{}},
		{"bytes 18446744073709551616-18446744073709551617/18446744073709551618", span{}},
	}
	for _, tt := range tests {
		got, err := parseContentRange(tt.in)
		if got != tt.want || (err == nil) != (tt.want.n > 0) {
			t.Errorf("parseContentRange(%q): got %+v, error %v, want %+v", tt.in, got, err, tt.want)
		}
		if err != nil && (!errors.Is(err, errProtocol) || !strings.Contains(err.Error(), strconv.Quote(tt.in))) {
			t.Errorf("parseContentRange(%q): got error %v, want errProtocol with the header in it", tt.in, err)
		}
	}
}

// FuzzContentRange checks that no header makes the parser panic, and that what
// it accepts is a range of bytes that exist.
func FuzzContentRange(f *testing.F) {
	for _, s := range []string{
		"bytes 0-99/100", "bytes 0-0/1", "bytes */100", "bytes 0-1/*", "bytes 5-4/10", "bytes 0-10/10", "lines 1-2/3",
		"bytes 0-9223372036854775806/9223372036854775807", "bytes 9223372036854775807-9223372036854775807/9223372036854775807",
		"bytes 0-18446744073709551615/18446744073709551616", "bytes -1-1/2", "bytes 0-1/2/3", "bytes ", "",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		got, err := parseContentRange(s)
		if err != nil {
			if got != (span{}) {
				t.Errorf("got %+v with error %v", got, err)
			}
			return
		}
		// The sum is compared so that it can't overflow.
		size := got.size
		if size == unknown {
			size = math.MaxInt64
		}
		if got.off < 0 || got.n <= 0 || got.off > size-got.n {
			t.Errorf("got %+v, which is no range of the file", got)
		}
		resp := &http.Response{StatusCode: 206, Header: header("Content-Range", s), ContentLength: -1}
		if judged, err := judge(resp, got.off, got.n, nil); err != nil || judged != got {
			t.Errorf("judge: got %+v, error %v, want %+v", judged, err, got)
		}
	})
}

func TestRetryAfter(t *testing.T) {
	in := func(d time.Duration) string { return time.Now().Add(d).UTC().Format(http.TimeFormat) }
	tests := []struct {
		name, in string
		min, max time.Duration
	}{
		{"none", "", 0, 0},
		{"zero", "0", 0, 0},
		{"seconds", "7", 7 * time.Second, 7 * time.Second},
		{"a minute", "60", time.Minute, time.Minute},
		{"more", "61", time.Minute, time.Minute},
		{"huge", "2147483647", time.Minute, time.Minute},
		{"negative", "-5", 0, 0},
		{"fraction", "1.5", 0, 0},
		{"unit", "5s", 0, 0},
		{"space", " 5", 0, 0},
		{"garbage", "soon", 0, 0},
		{"date", in(30 * time.Second), 25 * time.Second, 30 * time.Second},
		{"date in the past", in(-time.Hour), 0, 0},
		{"date far away", "Fri, 31 Dec 9999 23:59:59 GMT", time.Minute, time.Minute},
		{"no date", "Fri, 32 Dec 2020 23:59:59 GMT", 0, 0},
	}
	for _, tt := range tests {
		if got := retryAfter(tt.in); got < tt.min || got > tt.max {
			t.Errorf("%s: retryAfter(%q): got %v, want %v to %v", tt.name, tt.in, got, tt.min, tt.max)
		}
	}
}
