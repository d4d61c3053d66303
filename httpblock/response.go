package httpblock

import (
	"fmt"
	"math"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// pinned is what tells one version of a file from another.
type pinned struct {
	size         int64
	etag         string
	lastModified string
	anyVersion   bool // etag and lastModified are not known yet
}

// span is the range of bytes that a response brings: [off, off+n) of size.
type span struct {
	off, n, size int64
}

// extent is the range of bytes.
func (s span) extent() blockio.Extent { return blockio.Extent{Off: s.off, Len: s.n} }

// unknown is a size that the server did not say. It is no other than any size.
const unknown = -1

// judge decides whether the response to a request for [off, off+n) may be used,
// and which part of the range it brings: a server may legally send less. pin
// is nil for the first response of all. The error wraps blockio.ErrEmpty if there is
// nothing in the file.
func judge(resp *http.Response, off, n int64, pin *pinned) (span, error) {
	if pin == nil && saysEmpty(resp) {
		return span{}, blockio.ErrEmpty
	}
	exchange := fmt.Sprintf("answered %d to bytes=%d-%d", resp.StatusCode, off, off+n-1)
	switch resp.StatusCode {
	case http.StatusPartialContent:
	case http.StatusOK:
		if pin != nil {
			if err := pin.compare(resp, pin.size); err != nil {
				return span{}, err
			}
		}
		return span{}, fmt.Errorf("%w (%s)", ErrNoRanges, exchange)
	case http.StatusRequestedRangeNotSatisfiable:
		return span{}, fmt.Errorf("%w (%s)", ErrChanged, exchange)
	default:
		return span{}, statusError(resp)
	}
	if enc := resp.Header.Get("Content-Encoding"); enc != "" && enc != "identity" {
		return span{}, fmt.Errorf("%w (Content-Encoding %q)", ErrEncoded, enc)
	}
	header := resp.Header.Get("Content-Range")
	if kind := resp.Header.Get("Content-Type"); header == "" && strings.HasPrefix(kind, "multipart/") {
		return span{}, fmt.Errorf("%w: %q to a request for one range", errProtocol, kind)
	}
	got, err := parseContentRange(header)
	if err != nil {
		return span{}, err
	}
	if got.off != off || got.n > n {
		return span{}, fmt.Errorf("%w: Content-Range %q to bytes=%d-%d", errProtocol, header, off, off+n-1)
	}
	if resp.ContentLength >= 0 && resp.ContentLength != got.n {
		return span{}, fmt.Errorf("%w: a body of %d bytes for Content-Range %q", errProtocol, resp.ContentLength, header)
	}
	if pin != nil {
		return got, pin.compare(resp, got.size)
	}
	return got, nil
}

// saysEmpty says that the response to a request for a file's first bytes is that
// there are none. No range can say so, yet some servers respond with one that ends
// before it starts.
func saysEmpty(resp *http.Response) bool {
	switch resp.StatusCode {
	case http.StatusRequestedRangeNotSatisfiable:
		return true
	case http.StatusOK:
		return resp.ContentLength == 0
	case http.StatusPartialContent:
		header := resp.Header.Get("Content-Range")
		return strings.HasPrefix(header, "bytes ") && strings.HasSuffix(header, "/0")
	}
	return false
}

// compare returns ErrChanged if resp is of another version of the file.
func (p *pinned) compare(resp *http.Response, size int64) error {
	changed := func(what, before, now string) error {
		return fmt.Errorf("%w (%s %s -> %s)", ErrChanged, what, before, now)
	}
	switch etag, modified := resp.Header.Get("ETag"), resp.Header.Get("Last-Modified"); {
	case size != p.size && size != unknown && p.size != unknown:
		return changed("size", strconv.FormatInt(p.size, 10), strconv.FormatInt(size, 10))
	case p.anyVersion:
	case etag != p.etag:
		return changed("ETag", orNone(p.etag), orNone(etag))
	case modified != p.lastModified:
		return changed("Last-Modified", orNone(p.lastModified), orNone(modified))
	}
	return nil
}

func orNone(s string) string {
	if s == "" {
		return "none"
	}
	return s
}

func statusError(resp *http.Response) error {
	return &StatusError{
		Code:       resp.StatusCode,
		Proxy:      resp.StatusCode == http.StatusProxyAuthRequired,
		RetryAfter: retryAfter(resp.Header.Get("Retry-After")),
	}
}

// parseContentRange parses "bytes FIRST-LAST/SIZE" (RFC 9110, section 14.4).
// FIRST and LAST are inclusive. SIZE may be "*".
func parseContentRange(s string) (span, error) {
	bad := fmt.Errorf("%w: Content-Range %q", errProtocol, s)
	rest, ok := strings.CutPrefix(s, "bytes ")
	if !ok {
		return span{}, bad
	}
	rng, total, ok1 := strings.Cut(rest, "/")
	first, last, ok2 := strings.Cut(rng, "-")
	if !ok1 || !ok2 {
		return span{}, bad
	}
	v := [3]int64{2: unknown}
	for i, field := range []string{first, last, total} {
		if i == 2 && field == "*" {
			break
		}
		n, err := strconv.ParseUint(field, 10, 63)
		if err != nil {
			return span{}, bad
		}
		v[i] = int64(n)
	}
	if v[0] > v[1] || v[1] == math.MaxInt64 || v[1] >= v[2] && v[2] != unknown {
		return span{}, bad
	}
	return span{off: v[0], n: v[1] - v[0] + 1, size: v[2]}, nil
}

// maxRetryAfter bounds how long a server can make us wait between requests.
const maxRetryAfter = time.Minute

// retryAfter parses the header Retry-After: seconds or a date. 0 means none.
func retryAfter(s string) time.Duration {
	var d time.Duration
	if seconds, err := strconv.ParseUint(s, 10, 31); err == nil {
		d = time.Duration(seconds) * time.Second
	} else if at, err := http.ParseTime(s); err == nil {
		d = time.Until(at)
	}
	return min(max(d, 0), maxRetryAfter)
}
