package testserver

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"sync"
	"syscall"
)

// Network is a network in memory. Its servers have no sockets, so that they and their
// clients can live in a bubble of testing/synctest, where time is virtual. A connection has
// no buffers, and can't be reset: what would be a reset is an end. The zero value is ready.
type Network struct {
	// mu guards the field below.
	mu    sync.Mutex
	hosts []*memoryListener
}

// New starts a server at an address of its own.
func (n *Network) New() *Server {
	s := newServer()
	l := n.listen()
	s.addr = l.addr
	s.serve(l)
	return s
}

// Serve starts a server for h, and returns its URL and what ends it: that waits for h.
func (n *Network) Serve(h http.Handler) (url string, end func()) {
	l := n.listen()
	var active sync.WaitGroup
	s := &http.Server{Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		active.Add(1)
		defer active.Done()
		h.ServeHTTP(w, r)
	})}
	active.Go(func() { _ = s.Serve(l) })
	return "http://" + l.addr, func() {
		_ = s.Close()
		active.Wait()
	}
}

func (n *Network) listen() *memoryListener {
	n.mu.Lock()
	defer n.mu.Unlock()
	l := &memoryListener{
		addr:  fmt.Sprintf("192.0.2.%d:80", len(n.hosts)+1), // RFC 5737: of nobody
		conns: make(chan net.Conn), done: make(chan struct{}),
	}
	n.hosts = append(n.hosts, l)
	return l
}

// DialContext connects to one of the servers.
func (n *Network) DialContext(ctx context.Context, _, addr string) (net.Conn, error) {
	n.mu.Lock()
	hosts := n.hosts
	n.mu.Unlock()
	for _, l := range hosts {
		if l.addr == addr {
			return l.connect(ctx)
		}
	}
	return nil, errRefused
}

var errRefused = &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED}

// memoryListener is a server's end of a Network.
type memoryListener struct {
	addr  string // host:port
	conns chan net.Conn
	close sync.Once
	done  chan struct{} // closed by Close
}

func (l *memoryListener) connect(ctx context.Context) (net.Conn, error) {
	ours, theirs := net.Pipe()
	select {
	case l.conns <- theirs:
		return ours, nil
	case <-l.done:
		return nil, errRefused
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

func (l *memoryListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.done:
		return nil, net.ErrClosed
	}
}

func (l *memoryListener) Close() error {
	l.close.Do(func() { close(l.done) })
	return nil
}

// Addr is no address that could be dialled otherwise.
func (l *memoryListener) Addr() net.Addr { return &net.UnixAddr{Name: l.addr} }
