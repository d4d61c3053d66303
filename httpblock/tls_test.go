package httpblock_test

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/internal/testserver"
)

// certificate is testserver.Certificate for a test.
func certificate(t *testing.T, name string, until time.Time) tls.Certificate {
	t.Helper()
	cert, _, _, err := testserver.Certificate(name, until)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// trusting returns a pool of these certificates.
func trusting(certs ...tls.Certificate) *x509.CertPool {
	pool := x509.NewCertPool()
	for _, c := range certs {
		pool.AddCert(c.Leaf)
	}
	return pool
}

var later = time.Now().Add(time.Hour)

// serveTLS returns the URL of an https server for h.
func serveTLS(t *testing.T, cfg *tls.Config, h http.HandlerFunc) string {
	t.Helper()
	s := httptest.NewUnstartedServer(h)
	s.TLS, s.Config.ErrorLog = cfg, discard
	s.StartTLS()
	t.Cleanup(s.Close)
	return s.URL
}

func TestTrust(t *testing.T) {
	good, old, other := certificate(t, "good", later), certificate(t, "old", time.Unix(1, 0)), certificate(t, "other", later)
	tests := []struct {
		name string
		cert tls.Certificate
		host string // in place of 127.0.0.1
		tls  *tls.Config
		says string // empty: it is trusted
	}{
		{name: "by the system", cert: good, says: "unknown authority"},
		{name: "ours", cert: good, tls: &tls.Config{RootCAs: trusting(good)}},
		{name: "another", cert: good, tls: &tls.Config{RootCAs: trusting(other)}, says: "unknown authority"},
		{name: "expired", cert: old, tls: &tls.Config{RootCAs: trusting(old)}, says: "expired"},
		{name: "of another host", cert: good, host: "localhost", tls: &tls.Config{RootCAs: trusting(good)}, says: "valid for good, not localhost"},
		{name: "unchecked", cert: good, tls: &tls.Config{InsecureSkipVerify: true}},
		{name: "expired, unchecked", cert: old, host: "localhost", tls: &tls.Config{InsecureSkipVerify: true}},
	}
	data := random(100_000)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			url := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{tt.cert}}, func(w http.ResponseWriter, r *http.Request) { content(w, r, data) })
			if tt.host != "" {
				url = strings.Replace(url, "127.0.0.1", tt.host, 1)
			}
			// It holds where the server sends us, too.
			from := serve(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, url, http.StatusFound) })
			for _, url := range []string{url, from} {
				s, err := httpblock.Open(t.Context(), url, httpblock.Options{Timeout: soon, TLS: tt.tls})
				var cert *tls.CertificateVerificationError
				switch {
				case err == nil && tt.says == "":
					readRange(t, s, data, 50_000, 1000)
					s.Close()
				case err == nil:
					s.Close()
					t.Error("got no error")
				case tt.says == "" || !strings.Contains(err.Error(), tt.says) || !errors.As(err, &cert):
					t.Errorf("got error %v, want %q", err, tt.says)
				}
			}
		})
	}
}

// The client certificate is shown to the server of the URL, and to no other
// that asks for one.
func TestClientCertificate(t *testing.T) {
	server, client := certificate(t, "server", later), certificate(t, "client", later)
	data := random(100_000)
	asking := &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequestClientCert}
	names := make(chan string, 10)
	handler := func(target *atomic.Pointer[string]) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			name := ""
			for _, c := range r.TLS.PeerCertificates {
				name += c.Subject.CommonName
			}
			names <- name
			if to := target.Load(); to != nil {
				http.Redirect(w, r, *to, http.StatusFound)
				return
			}
			content(w, r, data)
		}
	}
	var nowhere, target atomic.Pointer[string]
	other := serveTLS(t, asking.Clone(), handler(&nowhere))
	url := serveTLS(t, asking.Clone(), handler(&target))
	opt := httpblock.Options{Timeout: soon, TLS: &tls.Config{RootCAs: trusting(server), Certificates: []tls.Certificate{client}}}
	expect := func(want ...string) {
		t.Helper()
		for _, w := range want {
			if got := <-names; got != w {
				t.Errorf("got a client certificate of %q, want %q", got, w)
			}
		}
	}
	s := open(t, url, opt)
	readRange(t, s, data, 50_000, 1000)
	expect("client", "client")
	target.Store(&other)
	s = open(t, url, opt)
	readRange(t, s, data, 50_000, 1000)
	expect("client", "", "")

	opt.Mirrors = []string{other}
	target.Store(nil)
	s = open(t, url, opt)
	s.Join(nil)
	awaitState(t, s, 1, blockio.ServerOK)
	expect("client", "") // once for its first bytes, which are all that is compared
	select {
	case <-names:
		t.Error("its first bytes are read twice")
	default:
	}
}

// It is the same server however its name is written.
func TestClientCertificateByAnotherSpelling(t *testing.T) {
	server, client := certificate(t, "localhost", later), certificate(t, "client", later)
	data := random(100_000)
	for _, tt := range []struct{ name, host, redirect string }{
		{"lower case", "localhost", ""},
		{"upper case", "LOCALHOST", ""},
		{"another case in a redirect", "LocalHost", "localhost"},
		{"not ASCII", "ｌocalhost", ""}, // it means localhost
		{"not ASCII in a redirect", "ｌocalhost", "ＬOCALHOST"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var target string
			url := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAnyClientCert}, func(w http.ResponseWriter, r *http.Request) {
				if tt.redirect != "" && r.URL.Path != "/f" {
					w.Header()["Location"] = []string{target}
					w.Header().Set("Connection", "close") // the next one has to be made anew
					w.WriteHeader(http.StatusFound)
					return
				}
				content(w, r, data)
			})
			target = strings.Replace(url, "127.0.0.1", tt.redirect, 1) + "/f"
			s := open(t, strings.Replace(url, "127.0.0.1", tt.host, 1), httpblock.Options{
				Timeout: soon, TLS: &tls.Config{RootCAs: trusting(server), Certificates: []tls.Certificate{client}},
			})
			readRange(t, s, data, 50_000, 1000)
		})
	}
}

// A server that insists on a client certificate, and one that speaks no TLS,
// turn us away at once.
func TestHandshakeFails(t *testing.T) {
	server := certificate(t, "server", later)
	strict := serveTLS(t, &tls.Config{Certificates: []tls.Certificate{server}, ClientAuth: tls.RequireAnyClientCert}, http.NotFound)
	plain := strings.Replace(serve(t, http.NotFound), "http", "https", 1)
	for url, says := range map[string]string{strict: "certificate required", plain: "not look like a TLS handshake"} {
		_, err := httpblock.Open(t.Context(), url, httpblock.Options{Timeout: soon, TLS: &tls.Config{RootCAs: trusting(server)}})
		if err == nil || !strings.Contains(err.Error(), says) || strings.Contains(err.Error(), "gave up") {
			t.Errorf("got error %v, want %q at once", err, says)
		}
	}
}
