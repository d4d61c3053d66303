package testserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"sync"
	"syscall"
	"time"
)

// lastModified is the date of files given as bytes.
var lastModified = time.Date(2020, time.January, 2, 3, 4, 5, 0, time.UTC)

// Server serves files on a port of 127.0.0.1. Make one with New; call Close when
// done. It is also an [http.Handler], for use behind another server.
type Server struct {
	addr   string         // host:port
	active sync.WaitGroup // the accept loop and the handlers of http
	close  sync.Once
	done   chan struct{} // closed by Close: all waits end
	line   line

	// mu guards the fields below. Nothing sleeps or does I/O while holding it.
	mu     sync.Mutex
	closed bool
	http   *http.Server // nil: there is no port, or it is down
	cfg    Config
	unhang chan struct{} // closed and replaced each time Hang is set to HangNone
	files  map[string]*file
	opened []*os.File // to be closed by Close
	tally  *tally
}

// file is a file that is served. It does not change.
type file struct {
	content  io.ReaderAt
	size     int64 // bytes
	etag     string
	modTime  time.Time
	location string // not empty: a redirect to that URL
	status   int    // not 0: all that there is
}

// New starts a server at a free port.
func New() (*Server, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	s := newServer()
	s.addr = l.Addr().String()
	s.serve(l)
	return s, nil
}

// serve serves what comes to l, until Down or Close.
func (s *Server) serve(l net.Listener) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || s.http != nil {
		_ = l.Close()
		return
	}
	own := &http.Server{Handler: http.HandlerFunc(s.serveOwn), ConnContext: s.ConnContext}
	s.http = own
	s.active.Go(func() { _ = own.Serve(l) })
}

// Down ends all connections to the server's port, and has it refuse others until Up.
func (s *Server) Down() {
	s.mu.Lock()
	own := s.http
	s.http = nil
	s.mu.Unlock()
	if own != nil {
		_ = own.Close() // also ends writes to clients that do not read
	}
}

// Up ends what Down began. Nothing changes if the server is not down.
func (s *Server) Up() error {
	s.mu.Lock()
	down := !s.closed && s.http == nil
	s.mu.Unlock()
	if !down {
		return nil
	}
	// A process that is just being started may still have the old listener.
	for deadline := time.Now().Add(inUse); ; time.Sleep(inUse / 1000) {
		l, err := net.Listen("tcp", s.addr)
		switch {
		case err == nil:
			s.serve(l)
			return nil
		case !errors.Is(err, syscall.EADDRINUSE) || time.Now().After(deadline):
			return err
		}
	}
}

// inUse is how long the server's port may be in use before that is an error.
const inUse = 5 * time.Second

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
		s.Down()
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

// AddStatus answers requests for name with a status (200 to 999) and no body.
func (s *Server) AddStatus(name string, code int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.files[name] = &file{status: code}
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
