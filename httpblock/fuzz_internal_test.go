package httpblock

import (
	"bufio"
	"bytes"
	"net/http"
	"net/url"
	"testing"
	"time"
)

// FuzzAnswer judges any answer to a request for [off, off+n), at first and later, and
// follows where it leads to. What is accepted is of the range and the version asked for.
func FuzzAnswer(f *testing.F) {
	for _, s := range []string{
		"206 Partial Content\r\nContent-Range: bytes 100-199/1000\r\nContent-Length: 100\r\nETag: \"a\"\r\nLast-Modified: Thu, 02 Jan 2020 03:04:05 GMT\r\n",
		"206 Partial Content\r\nContent-Range: bytes 100-149/*\r\nETag: \"a\"\r\nLast-Modified: Thu, 02 Jan 2020 03:04:05 GMT\r\n",
		"206 Partial Content\r\nContent-Range: bytes 999-999/1000\r\nETag: \"a\"\r\nLast-Modified: Thu, 02 Jan 2020 03:04:05 GMT\r\n",
		"206 Partial Content\r\nContent-Range: bytes 0--1/0\r\nTransfer-Encoding: chunked\r\n",
		"206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=x\r\n",
		"206 Partial Content\r\nContent-Range: bytes 100-199/1000\r\nContent-Encoding: gzip\r\n",
		"200 OK\r\nContent-Length: 1000\r\nETag: \"b\"\r\n",
		"302 Found\r\nLocation: //user:password@other.test/f?x#y\r\n",
		"301 Moved\r\nLocation: http://[::1]:80/\r\n",
		"416 Range Not Satisfiable\r\nContent-Range: bytes */1000\r\n",
		"429 Too Many Requests\r\nRetry-After: 60\r\n",
		"503 Service Unavailable\r\nRetry-After: Fri, 31 Dec 9999 23:59:59 GMT\r\n",
	} {
		f.Add([]byte("HTTP/1.1 " + s + "\r\n"))
	}
	const off, n = 100, 100
	pin := &pinned{size: 1000, etag: `"a"`, lastModified: "Thu, 02 Jan 2020 03:04:05 GMT"}
	at := &url.URL{Scheme: "https", Host: "example.org", Path: "/f"}
	f.Fuzz(func(t *testing.T, answer []byte) {
		resp, err := http.ReadResponse(bufio.NewReader(bytes.NewReader(answer)), nil)
		if err != nil {
			return
		}
		defer resp.Body.Close()
		version := resp.Header.Get("ETag") == pin.etag && resp.Header.Get("Last-Modified") == pin.lastModified
		for _, p := range []*pinned{nil, pin, {size: pin.size, anyVersion: true}} {
			got, err := judge(resp, off, n, p)
			switch {
			case err != nil:
				if got != (span{}) && p == nil {
					t.Errorf("got %+v with error %v", got, err)
				}
			case resp.StatusCode != http.StatusPartialContent, got.off != off, got.n <= 0, got.n > n,
				got.size != unknown && got.size < off+got.n,
				resp.ContentLength >= 0 && resp.ContentLength != got.n:
				t.Errorf("accepted %+v, by pin %+v", got, p)
			case p != nil && got.size != unknown && got.size != p.size, p == pin && !version:
				t.Errorf("accepted another version: %+v", got)
			}
		}
		if got, err := judgeLast(resp, &pinned{size: unknown, anyVersion: true}); err == nil && (got.n != 1 || got.off < 0) {
			t.Errorf("%+v is the last byte", got)
		}
		if d := retryAfter(resp.Header.Get("Retry-After")); d < 0 || d > time.Minute {
			t.Errorf("told to wait for %v", d)
		}
		if to, err := redirectTarget(at, resp.Header.Get("Location")); err == nil && (to.Scheme != "https" || to.Hostname() == "" || to.User != nil || to.Fragment != "") {
			t.Errorf("led to %v", to)
		}
	})
}
