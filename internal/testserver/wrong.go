package testserver

import (
	"compress/gzip"
	"fmt"
	"io"
	"mime/multipart"
	"net"
	"net/http"
	"net/textproto"
	"strconv"
	"strings"
	"time"
)

// Wrong is what is wrong, or unusual, with an answer that brings a range.
type Wrong int

const (
	// WrongNone is as it should be.
	WrongNone Wrong = iota
	// WrongStart says that the range starts one byte later than asked.
	WrongStart
	// WrongTotal says that the file has one byte more.
	WrongTotal
	// NoTotal does not say how large the file is: its Content-Range ends with /*.
	NoTotal
	// EarlyEnd brings the first half of the range, one byte at least, and says so.
	// That is legal, and so is NoTotal.
	EarlyEnd
	// ShortLength brings half of what its Content-Range says; its Content-Length is
	// right.
	ShortLength
	// LongLength brings more than its Content-Range says; its Content-Length is right.
	LongLength
	// LongBody sends more than Content-Range and Content-Length say.
	LongBody
	// LongUnsized sends more than its Content-Range says, and ends with its
	// connection: there is no Content-Length.
	LongUnsized
	// ResetInBody ends with a TCP reset after half of the body.
	ResetInBody
	// Drip sends one byte of the body in a second, until the client leaves.
	Drip
	// LargeHeader has a header of LargeHeaderSize bytes.
	LargeHeader
	// Gzipped sends the range compressed, and says so.
	Gzipped
	// Multipart sends the range as the one part of a multipart answer.
	Multipart
	// HTTP10 is of HTTP/1.0, and ends with its connection. It is legal.
	HTTP10
)

const (
	// LargeHeaderSize is how long the header of an answer gets that is wrong in the
	// way of LargeHeader, in bytes.
	LargeHeaderSize = 1 << 20
	// surplus is how many bytes there are more than there should be.
	surplus = 1000
	// dripTime is between the bytes of a body that drips.
	dripTime = time.Second
)

// takeWrong decides what is wrong with the answer to x. Only those that bring a range
// can be.
func (x *exchange) takeWrong() {
	ranged := x.req.Method == http.MethodGet && x.req.Header.Get("Range") != "" && x.length() > 0
	x.srv.mu.Lock()
	defer x.srv.mu.Unlock()
	if ranged && x.cfg.Wrong != WrongNone && take(&x.srv.cfg.WrongTimes) {
		x.wrong = x.cfg.Wrong
	}
	if x.wrong == EarlyEnd {
		x.req.Header.Set("Range", formatRange(x.rec.Off, max(1, x.length()/2)))
	}
}

// length is how many bytes of the file the range has.
func (x *exchange) length() int64 {
	return max(0, min(x.rec.Len, x.file.size-x.rec.Off))
}

// contentRange is the header Content-Range, with first and total moved by so much.
func (x *exchange) contentRange(first, total int64) string {
	return fmt.Sprintf("bytes %d-%d/%d", x.rec.Off+first, x.rec.Off+x.length()-1, x.file.size+total)
}

// spoilHeader makes the header wrong that http.ServeContent has made.
func (x *exchange) spoilHeader() {
	h := x.Header()
	switch x.wrong {
	case WrongStart:
		h.Set("Content-Range", x.contentRange(1, 0))
	case WrongTotal:
		h.Set("Content-Range", x.contentRange(0, 1))
	case NoTotal:
		rng, _, _ := strings.Cut(h.Get("Content-Range"), "/")
		h.Set("Content-Range", rng+"/*")
	case ShortLength:
		x.cut = x.off + x.length()/2
		h.Set("Content-Length", strconv.FormatInt(x.length()/2, 10))
	case LongLength:
		h.Set("Content-Length", strconv.FormatInt(x.length()+surplus, 10))
	case ResetInBody:
		x.cut = x.off + x.length()/2
	case LargeHeader:
		h.Set("X-Large", strings.Repeat("x", LargeHeaderSize))
	}
}

// serveWrong answers where http.ServeContent can't, and says whether it did.
func (x *exchange) serveWrong(modTime time.Time) bool {
	body := io.NewSectionReader(x.file.content, x.rec.Off, x.length())
	if !modTime.IsZero() {
		x.Header().Set("Last-Modified", modTime.Format(http.TimeFormat))
	}
	switch x.wrong {
	case Gzipped:
		x.Header().Set("Content-Encoding", "gzip")
		x.Header().Set("Content-Range", x.contentRange(0, 0))
		x.answer(http.StatusPartialContent)
		w := gzip.NewWriter(sender{x})
		_, _ = io.Copy(w, body) // the client may have left
		_ = w.Close()
	case Multipart:
		w := multipart.NewWriter(sender{x})
		x.Header().Set("Content-Type", "multipart/byteranges; boundary="+w.Boundary())
		x.answer(http.StatusPartialContent)
		if part, err := w.CreatePart(textproto.MIMEHeader{"Content-Range": {x.contentRange(0, 0)}}); err == nil {
			_, _ = io.Copy(part, body)
		}
		_ = w.Close()
	case HTTP10:
		x.sendRaw("HTTP/1.0", body)
	case LongUnsized:
		x.sendRaw("HTTP/1.1", io.MultiReader(body, strings.NewReader(strings.Repeat("x", surplus))))
	default:
		return false
	}
	return true
}

// sendRaw answers with body and the end of the connection.
func (x *exchange) sendRaw(proto string, body io.Reader) {
	x.srv.mu.Lock()
	x.rec.Status = http.StatusPartialContent
	x.srv.mu.Unlock()
	x.Header().Set("Content-Range", x.contentRange(0, 0))
	x.hijacked(func(c net.Conn) {
		_, _ = fmt.Fprintf(c, "%s 206 Partial Content\r\nConnection: close\r\n", proto) // the client may have left
		_ = x.Header().Write(c)
		_, _ = io.WriteString(c, "\r\n")
		n, _ := io.Copy(c, body)
		x.count(int(n))
	})
}

// sendSurplus sends what is more than there should be.
func (x *exchange) sendSurplus() {
	more := strings.Repeat("x", surplus)
	switch x.wrong {
	case LongLength:
		_, _ = x.send([]byte(more))
	case LongBody:
		x.flush()
		x.hijacked(func(c net.Conn) {
			n, _ := io.WriteString(c, more)
			x.count(n)
		})
	}
}

// hijacked lets f write to the connection, and closes it.
func (x *exchange) hijacked(f func(c net.Conn)) {
	c, _, err := http.NewResponseController(x.ResponseWriter).Hijack()
	if err != nil { // not a connection of its own, as with HTTP/2
		panic(http.ErrAbortHandler)
	}
	defer c.Close()
	f(c)
}

// drip sends the first of the next bytes of the body, p.
func (x *exchange) drip(_ *Config, p []byte) (int, error) {
	n, err := x.send(p[:1])
	if err != nil {
		return n, err
	}
	x.flush()
	return n, x.waitUntil(time.Now().Add(dripTime))
}

// sender is the body of an exchange.
type sender struct{ x *exchange }

func (s sender) Write(p []byte) (int, error) { return s.x.send(p) }
