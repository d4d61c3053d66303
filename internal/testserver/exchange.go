package testserver

import (
	"bytes"
	"errors"
	"net/http"
	"time"
)

// errCut ends a body early.
var errCut = errors.New("response cut short")

// exchange is one request and the writer of its response, through which
// http.ServeContent writes: it paces, counts, cuts and damages the body.
type exchange struct {
	http.ResponseWriter
	srv    *Server
	req    *http.Request // with the Range header that is followed, if any
	file   *file         // nil: there is no such file
	rec    *Range        // guarded by srv.mu; Off and Len do not change
	window *window       // of the connection

	// Decided when the request was received.
	cfg    Config
	reset  bool
	status int // 0: the file's
	wrong  Wrong
	hang   <-chan struct{} // nil: it does not hang; else closed when it no longer does

	due    time.Time // simulated time: when what has been sent should have left
	begun  bool      // something of the body has been in the line's queue
	queued []piece   // of the body, that are in it now

	// Decided when the response begins. Offsets are those of the file.
	off  int64 // of the next byte of the body to be sent or queued
	cut  int64 // where the body ends early; MaxInt64: it does not
	flip int64 // of the byte to damage; -1: none
}

// answer sends a response without a body.
func (x *exchange) answer(code int) {
	x.srv.mu.Lock()
	x.rec.Status = code
	x.srv.mu.Unlock()
	x.ResponseWriter.WriteHeader(code)
}

// WriteHeader begins the response that http.ServeContent has chosen.
func (x *exchange) WriteHeader(code int) {
	if x.cfg.IgnoreRange {
		x.Header().Del("Accept-Ranges")
	}
	if x.req.Method == http.MethodGet {
		x.decideFaults(code)
		x.spoilHeader()
	}
	x.answer(code)
	if x.cfg.paced() {
		x.flush()
	}
}

// decideFaults decides on the faults of the body of a response.
func (x *exchange) decideFaults(code int) {
	length := x.file.size
	switch code {
	case http.StatusOK:
	case http.StatusPartialContent:
		x.off = x.rec.Off
		length = min(x.rec.Len, x.file.size-x.off)
	default:
		return
	}
	if length == 0 {
		return
	}
	x.srv.mu.Lock()
	defer x.srv.mu.Unlock()
	cfg := &x.srv.cfg
	if x.hang != nil || take(&cfg.Truncate) {
		x.cut = x.off + length/2
	}
	if x.off <= cfg.FlipOffset && cfg.FlipOffset < x.off+length && take(&cfg.FlipTimes) {
		x.flip = cfg.FlipOffset
	}
}

// Write sends bytes of the body, or puts them in the line's queue.
func (x *exchange) Write(p []byte) (int, error) {
	done := 0
	for done < len(p) {
		if x.off >= x.cut {
			return done, errCut
		}
		rest := p[done:]
		rest = rest[:min(int64(len(rest)), x.cut-x.off)]
		put := x.sendPaced
		cfg := x.srv.config()
		switch {
		case x.wrong == Drip:
			put = x.drip
		case cfg.queues():
			put = x.enqueue
		}
		n, err := put(&cfg, rest)
		done += n
		x.off += int64(n)
		if err != nil {
			return done, err
		}
	}
	return done, nil
}

// sendPaced sends some of the next bytes of the body, p, when they may leave, and
// returns how many.
func (x *exchange) sendPaced(cfg *Config, p []byte) (int, error) {
	if err := x.drain(); err != nil {
		return 0, err
	}
	n := len(p)
	if cfg.paced() {
		var err error
		if n, err = x.pace(cfg, n); err != nil {
			return 0, err
		}
	}
	n, err := x.send(x.damage(p[:n]))
	if err == nil && cfg.paced() {
		x.flush()
		x.window.sent(time.Now())
	}
	return n, err
}

// damage returns the next bytes of the body, p, as they are, or a copy with one
// bit flipped.
func (x *exchange) damage(p []byte) []byte {
	if i := x.flip - x.off; i >= 0 && i < int64(len(p)) {
		p = bytes.Clone(p)
		p[i] ^= 1
	}
	return p
}

// send sends p.
func (x *exchange) send(p []byte) (int, error) {
	x.count(len(p))
	n, err := x.ResponseWriter.Write(p)
	if n < len(p) {
		x.count(n - len(p))
	}
	return n, err
}

// count adds to the bytes sent.
func (x *exchange) count(n int) {
	x.srv.mu.Lock()
	defer x.srv.mu.Unlock()
	x.rec.Sent += int64(n)
}

func (x *exchange) flush() {
	_ = http.NewResponseController(x.ResponseWriter).Flush()
}
