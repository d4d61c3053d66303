package testserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"time"
)

// lastModified is the date of files given as bytes.
var lastModified = time.Date(2020, time.January, 2, 3, 4, 5, 0, time.UTC)

// Server serves files on a port of 127.0.0.1. Make one with New; call Close when
// done. It is also an [http.Handler], for use behind another server.
type Server struct {
	addr   string // host:port
	http   *http.Server
	active sync.WaitGroup // the accept loop and the handlers of http
	close  sync.Once
	done   chan struct{} // closed by Close: all waits end
	line   line

	// mu guards the fields below. Nothing sleeps or does I/O while holding it.
	mu     sync.Mutex
	closed bool
	cfg    Config
	unhang chan struct{} // closed and replaced each time Hang is set to HangNone
	files  map[string]*file
	opened []*os.File // to be closed by Close
	tally  *tally
}

// file is a file that is served. It does not change.
type file struct {
	content io.ReaderAt
	size    int64 // bytes
	etag    string
	modTime time.Time
	// location makes the file a redirect to that URL.
	location string
}

// New starts a server at a free port.
func New() (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := newServer()
	s.addr = l.Addr().String()
	s.http = &http.Server{Handler: http.HandlerFunc(s.serveOwn), ConnContext: s.ConnContext}
	s.active.Go(func() { _ = s.http.Serve(l) }) // until Close
	return s, nil
}

// newServer is a Server without a port.
func newServer() *Server {
	return &Server{
		done:   make(chan struct{}),
		unhang: make(chan struct{}),
		files:  make(map[string]*file),
		tally:  new(tally),
	}
}

// Close ends all requests, those that hang too, and frees the port. It waits for
// the handlers of its own port; when the Server is used as a handler behind
// another server, its requests there end soon after.
func (s *Server) Close() {
	s.close.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		close(s.done)
		_ = s.http.Close() // also ends writes to clients that do not read
		s.active.Wait()
		for _, f := range s.opened {
			_ = f.Close()
		}
	})
}

// serveOwn is ServeHTTP for the server's own port, whose requests Close waits for.
func (s *Server) serveOwn(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	closed := s.closed
	if !closed {
		s.active.Add(1)
	}
	s.mu.Unlock()
	if closed {
		panic(http.ErrAbortHandler)
	}
	defer s.active.Done()
	s.ServeHTTP(w, r)
}

// AddBytes serves content under name, in place of any file of that name from
// before. The ETag is derived from the content, Last-Modified is always the
// same. content is not copied and must not be changed afterwards; to serve
// something else, add it again.
func (s *Server) AddBytes(name string, content []byte) {
	sum := sha256.Sum256(content)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = &file{
		content: bytes.NewReader(content),
		size:    int64(len(content)),
		etag:    fmt.Sprintf(`"%x-%x"`, len(content), sum[:8]),
		modTime: lastModified,
	}
}

// AddRedirect answers requests for name with 302 Found and the given Location.
func (s *Server) AddRedirect(name, location string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = &file{location: location}
}

// AddFile serves the regular file at path under name, in place of any file of
// that name from before. The ETag is derived from its size and time of change.
// The file stays open until Close and must not be changed until then.
func (s *Server) AddFile(name, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	fi, err := f.Stat()
	if err == nil && !fi.Mode().IsRegular() {
		err = fmt.Errorf("serve %s: not a regular file", path)
	}
	if err != nil {
		_ = f.Close()
		return err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		_ = f.Close()
		return http.ErrServerClosed
	}
	s.opened = append(s.opened, f)
	s.files[name] = &file{
		content: f,
		size:    fi.Size(),
		etag:    fmt.Sprintf(`"%x-%x"`, fi.Size(), fi.ModTime().UnixNano()),
		modTime: fi.ModTime(),
	}
	return nil
}

// URL returns the address of the file called name, which need not exist.
func (s *Server) URL(name string) string {
	u := url.URL{Scheme: "http", Host: s.addr, Path: "/" + name}
	return u.String()
}

// Set changes the settings at once. change gets those in force, with faults
// counted down as far as they have happened; it must not call the Server.
func (s *Server) Set(change func(*Config)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	change(&s.cfg)
	if s.cfg.Hang == HangNone {
		close(s.unhang)
		s.unhang = make(chan struct{})
	}
}

func (s *Server) config() Config {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.cfg
}

// conn is what the server knows of a connection.
type conn struct {
	ready  time.Time // when its handshake is over
	window window
}

type connKey struct{}

// ConnContext counts a new connection and marks its requests. Set it as
// [http.Server].ConnContext where the Server is used as a handler behind another
// server: without it connections are not counted, have no RTT of their own, and
// slow start begins again with each response.
func (s *Server) ConnContext(ctx context.Context, _ net.Conn) context.Context {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.tally.conns++
	return context.WithValue(ctx, connKey{}, &conn{ready: time.Now().Add(s.cfg.RTT)})
}
