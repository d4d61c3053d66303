//go:build integration

package test

import (
	"io"
	"net"
	"net/url"
	"sync"
	"testing"
)

// relay is a way to a server that can be cut.
type relay struct {
	url  string // of the file, this way
	addr string // of the relay
	to   string

	// mu guards the fields below.
	mu     sync.Mutex
	listen net.Listener
	conns  map[net.Conn]bool
}

// newRelay makes a way to the file at rawURL, until the test's end.
func newRelay(t *testing.T, rawURL string) *relay {
	t.Helper()
	u, err := url.Parse(rawURL)
	if err != nil {
		t.Fatal(err)
	}
	r := &relay{addr: "127.0.0.1:0", to: u.Host, conns: make(map[net.Conn]bool)}
	r.resume(t)
	r.addr = r.listen.Addr().String()
	u.Host = r.addr
	r.url = u.String()
	t.Cleanup(r.stop)
	return r
}

// resume takes connections, again.
func (r *relay) resume(t *testing.T) {
	t.Helper()
	l, err := net.Listen("tcp", r.addr)
	if err != nil {
		t.Fatal(err)
	}
	r.mu.Lock()
	r.listen = l
	r.mu.Unlock()
	go func() {
		for {
			from, err := l.Accept()
			if err != nil {
				return
			}
			to, err := net.Dial("tcp", r.to)
			if err != nil {
				from.Close()
				continue
			}
			r.mu.Lock()
			r.conns[from], r.conns[to] = true, true
			r.mu.Unlock()
			go r.pass(to, from)
			go r.pass(from, to)
		}
	}()
}

// pass passes on what comes, and one end's end.
func (r *relay) pass(to, from net.Conn) {
	_, _ = io.Copy(to, from)
	to.Close()
	from.Close()
	r.mu.Lock()
	defer r.mu.Unlock()
	delete(r.conns, from)
}

// cut breaks all connections.
func (r *relay) cut() {
	r.mu.Lock()
	defer r.mu.Unlock()
	for conn := range r.conns {
		conn.Close()
	}
}

// stop refuses connections, and breaks all there are.
func (r *relay) stop() {
	r.mu.Lock()
	r.listen.Close()
	r.mu.Unlock()
	r.cut()
}
