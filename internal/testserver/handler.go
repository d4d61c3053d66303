package testserver

import (
	"cmp"
	"crypto/tls"
	"io"
	"math"
	"net"
	"net/http"
	"strings"
	"time"
)

// ServeHTTP answers a request for the file named by the URL's path.
func (s *Server) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	x := s.receive(w, r)
	if err := x.waitUntil(x.due); err != nil {
		panic(http.ErrAbortHandler)
	}
	switch {
	case x.reset:
		sendReset(w)
	case x.hang != nil && x.cfg.Hang == HangBeforeHeaders:
		x.hangUp()
	case x.status != 0:
		if x.cfg.RetryAfter != "" {
			w.Header().Set("Retry-After", x.cfg.RetryAfter)
		}
		x.answer(x.status)
	case r.Method != http.MethodGet && r.Method != http.MethodHead:
		w.Header().Set("Allow", "GET, HEAD")
		x.answer(http.StatusMethodNotAllowed)
	case x.file == nil && x.rec.Name == "":
		x.list()
	case x.file == nil:
		x.answer(http.StatusNotFound)
	case x.file.location != "":
		w.Header().Set("Location", x.file.location)
		x.answer(http.StatusFound)
	case x.file.status != 0:
		x.answer(x.file.status)
	default:
		x.serveFile()
	}
}

// receive records a request and decides what becomes of it.
func (s *Server) receive(w http.ResponseWriter, r *http.Request) *exchange {
	now := time.Now()
	c, ok := r.Context().Value(connKey{}).(*conn)
	if !ok {
		c = new(conn)
	}
	x := &exchange{
		ResponseWriter: w,
		srv:            s,
		req:            r.Clone(r.Context()), // its Range header may change
		rec:            &Range{Name: strings.TrimPrefix(r.URL.Path, "/"), Len: -1},
		window:         &c.window,
		cut:            math.MaxInt64,
		flip:           -1,
	}

	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally.ranges = append(s.tally.ranges, x.rec)
	x.cfg = s.cfg
	x.due = later(now, c.ready).Add(s.cfg.RTT)

	var size int64
	if x.file = s.files[x.rec.Name]; x.file != nil {
		size = x.file.size
	}
	x.req.Header.Del("Range")
	if off, length, ok := parseRange(r.Header.Get("Range"), size); ok {
		x.rec.Off, x.rec.Len = off, length
		if !s.cfg.IgnoreRange {
			x.req.Header.Set("Range", formatRange(off, length))
		}
	}

	if s.cfg.hangs(x.rec.Off) {
		x.hang = s.unhang
	}
	if x.reset = take(&s.cfg.Reset); !x.reset && take(&s.cfg.StatusTimes) {
		x.status = cmp.Or(s.cfg.Status, http.StatusServiceUnavailable)
	}
	return x
}

// serveFile answers with the file, or its range.
func (x *exchange) serveFile() {
	h := x.Header()
	h.Set("Content-Type", "application/octet-stream")
	if !x.cfg.NoETag {
		h.Set("ETag", cmp.Or(x.cfg.ETag, x.file.etag))
	}
	modTime := x.file.modTime
	switch {
	case x.cfg.NoLastModified:
		modTime = time.Time{}
	case !x.cfg.LastModified.IsZero():
		modTime = x.cfg.LastModified
	}
	x.takeWrong()
	if x.serveWrong(modTime) {
		return
	}
	http.ServeContent(x, x.req, "", modTime, io.NewSectionReader(x.file.content, 0, x.file.size))
	// If that fails, the response ends early and its connection with it.
	if err := x.drain(); err != nil || x.off < x.cut {
		x.sendSurplus()
		return
	}
	x.flush()
	switch {
	case x.hang != nil:
		x.hangUp()
	case x.wrong == ResetInBody:
		sendReset(x.ResponseWriter)
		return
	}
	panic(http.ErrAbortHandler)
}

// hangUp waits for the end of the hang and closes the connection.
func (x *exchange) hangUp() {
	select {
	case <-x.hang:
	case <-x.req.Context().Done():
	case <-x.srv.done:
	}
	panic(http.ErrAbortHandler)
}

// sendReset closes the request's connection so that the client gets a TCP reset.
func sendReset(w http.ResponseWriter) {
	c, _, err := http.NewResponseController(w).Hijack()
	if err != nil { // not a connection of its own, as with HTTP/2
		panic(http.ErrAbortHandler)
	}
	if t, ok := c.(*tls.Conn); ok {
		c = t.NetConn() // without the farewell of TLS
	}
	if t, ok := c.(*net.TCPConn); ok {
		_ = t.SetLinger(0)
	}
	_ = c.Close()
}
