//go:build integration

package test

import (
	"bytes"
	"crypto/tls"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// redirectTo redirects the image.
func redirectTo(location string) func(*testing.T, *origin) {
	return func(_ *testing.T, o *origin) {
		o.srv.AddBytes("moved", o.s.image)
		o.srv.AddRedirect("disk.cloop", location)
	}
}

// gone takes a file away.
func gone(name string) func(*testing.T, *origin) {
	return func(_ *testing.T, o *origin) { o.srv.AddStatus(name, http.StatusGone) }
}

// signed serves the image where a redirect leads to, which is signed, as it were.
func signed(t *testing.T, s *synthetic) *origin {
	o := plainly(t, s)
	o.url = o.srv.URL("latest")
	o.srv.AddRedirect("latest", "/signed-1")
	o.srv.AddBytes("signed-1", s.image)
	return o
}

// expire has the signed place answer with a status. The redirect leads to location now.
func expire(status int, location string) func(*testing.T, *origin) {
	return func(_ *testing.T, o *origin) {
		o.srv.AddBytes("signed-2", o.s.image)
		o.srv.AddRedirect("latest", location)
		o.srv.AddStatus("signed-1", status)
	}
}

func renew(_ *testing.T, o *origin) {
	o.srv.AddBytes("signed-1", o.s.image)
}

// listen serves h at addr, by TLS if cfg is not nil.
func listen(t *testing.T, addr string, cfg *tls.Config, h http.Handler) *httptest.Server {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	ts := &httptest.Server{Listener: l, TLS: cfg, Config: &http.Server{Handler: h, ErrorLog: log.New(io.Discard, "", 0)}}
	if cfg != nil {
		ts.StartTLS()
	} else {
		ts.Start()
	}
	t.Cleanup(ts.Close)
	return ts
}

// witness notes the headers of the requests to a server, which sets a cookie.
type witness struct {
	http.Handler

	// mu guards the field below.
	mu   sync.Mutex
	seen []http.Header
}

func (w *witness) ServeHTTP(rw http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	w.seen = append(w.seen, r.Header.Clone())
	w.mu.Unlock()
	rw.Header().Set("Set-Cookie", "cookie=geheim3")
	w.Handler.ServeHTTP(rw, r)
}

func (w *witness) take() []http.Header {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.seen
}

// elsewhere is a place that redirects lead to.
type elsewhere struct {
	url       string
	own, away *witness // of the image's server, and of that place
	stop      func()
}

// withElsewhere serves the image to those who know secrets, and at addr to all.
func withElsewhere(addr string) func(t *testing.T, s *synthetic) *origin {
	return func(t *testing.T, s *synthetic) *origin {
		o := plainly(t, s)
		o.srv.AddBytes("moved", s.image)
		own, away := &witness{Handler: o.srv}, &witness{Handler: o.srv}
		here, there := listen(t, "127.0.0.1:0", nil, own), listen(t, addr, nil, away)
		o.url = strings.Replace(here.URL, "http://", "http://user:geheim1@", 1) + "/disk.cloop?key=geheim2"
		o.flags = []string{"--header", "X-Secret: geheim4"}
		o.elsewhere = &elsewhere{there.URL + "/moved", own, away, there.Close}
		return o
	}
}

func redirectElsewhere(_ *testing.T, o *origin) {
	o.srv.AddRedirect("disk.cloop", o.elsewhere.url)
}

func nowhereElse(_ *testing.T, o *origin) { o.elsewhere.stop() }

// checkSecrets checks that the image's server was told the secrets, and the other none.
func checkSecrets(t *testing.T, o *origin) {
	own, away := o.elsewhere.own.take(), o.elsewhere.away.take()
	if len(own) == 0 || len(away) == 0 {
		t.Fatalf("%d requests to the server, %d elsewhere; want some", len(own), len(away))
	}
	for _, h := range own {
		if !strings.HasPrefix(h.Get("Authorization"), "Basic ") || h.Get("X-Secret") != "geheim4" {
			t.Errorf("the server was asked with %v, want the secrets", h)
		}
	}
	for _, h := range away {
		var text bytes.Buffer
		_ = h.Write(&text) // never fails
		if strings.Contains(text.String(), "geheim") || h.Get("Authorization")+h.Get("Cookie")+h.Get("Referer") != "" {
			t.Errorf("another server was asked with %v, want no secret", h)
		}
	}
}

// front is a server that speaks TLS for another.
type front struct {
	certs map[string]*tls.Certificate
	shown atomic.Pointer[tls.Certificate]
	drop  func() // its connections
}

// securely serves the image by HTTPS, and elsewhere by HTTP.
func securely(t *testing.T, s *synthetic) *origin {
	o := plainly(t, s)
	f := &front{certs: make(map[string]*tls.Certificate)}
	trusted := filepath.Join(t.TempDir(), "trusted")
	var pems []byte
	for _, c := range []struct {
		kind, host string
		until      time.Time
	}{
		{"good", "localhost", time.Now().Add(time.Hour)},
		{"expired", "localhost", time.Unix(1, 0)},
		{"other", "other.test", time.Now().Add(time.Hour)},
	} {
		cert, pem, _, err := testserver.Certificate(c.host, c.until)
		if err != nil {
			t.Fatal(err)
		}
		f.certs[c.kind] = &cert
		pems = append(pems, pem...)
	}
	if err := os.WriteFile(trusted, pems, 0o600); err != nil {
		t.Fatal(err)
	}
	f.shown.Store(f.certs["good"])
	ts := listen(t, "127.0.0.1:0", &tls.Config{
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return f.shown.Load(), nil },
	}, o.srv)
	f.drop = ts.CloseClientConnections
	o.front = f
	o.srv.AddBytes("moved", s.image)
	o.elsewhere = &elsewhere{url: o.srv.URL("moved")}
	o.url = strings.Replace(ts.URL, "127.0.0.1", "localhost", 1) + "/disk.cloop"
	o.flags = []string{"--cacert", trusted}
	return o
}

// showCertificate has the server show another certificate.
func showCertificate(kind string) func(*testing.T, *origin) {
	return func(_ *testing.T, o *origin) {
		o.front.shown.Store(o.front.certs[kind])
		o.front.drop()
	}
}
