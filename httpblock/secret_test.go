package httpblock_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/httpblock"
)

// buffer is a log that may be written to from several goroutines.
type buffer struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.buf.String()
}

// Whatever goes wrong, neither the error nor the log shows the password or the
// values of a query, be it ours or that of a redirect.
func TestSecretsAreNotShown(t *testing.T) {
	data := random(100_000)
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	headers := func(code int, pairs ...string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			for i := 0; i < len(pairs); i += 2 {
				w.Header().Set(pairs[i], pairs[i+1])
			}
			w.WriteHeader(code)
		}
	}
	hijack := func(answer string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			c, _, err := http.NewResponseController(w).Hijack()
			if err != nil {
				t.Error(err)
				return
			}
			io.WriteString(c, answer)
			c.Close()
		}
	}
	tests := map[string]http.HandlerFunc{
		"401":       status(401),
		"404":       status(404),
		"503":       status(503),
		"304":       status(304),
		"416":       status(416),
		"no ranges": func(w http.ResponseWriter, r *http.Request) { w.Write(data) },
		"changed": func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"b"`)
			content206(w, r, data[1:])
		},
		"invalid Content-Range": headers(206, "Content-Range", "bytes"),
		"gzip":                  headers(206, "Content-Encoding", "gzip"),
		"hang":                  func(_ http.ResponseWriter, r *http.Request) { hang(r) },
		"no answer":             hijack(""),
		"garbage":               hijack("garbage\r\n\r\n"),
		"invalid status":        hijack("HTTP/1.1 abc\r\n\r\n"),
		"invalid header":        hijack("HTTP/1.1 206 OK\r\nbad header\r\n\r\n"),
		"invalid length":        hijack("HTTP/1.1 206 OK\r\nContent-Length: x\r\n\r\n"),
		"headers too long":      headers(206, "X", strings.Repeat("x", 100_000)),
		"redirect loop": func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, r.URL.RequestURI(), http.StatusFound)
		},
		"redirect to ftp":     headers(302, "Location", "ftp://u:SECRET@h/f?a=SECRET"),
		"redirect to nowhere": headers(302, "Location", ""),
		"redirect to no URL":  headers(302, "Location", "http://u:SECRET@h/%zz?a=SECRET"),
		"redirect to no port": headers(302, "Location", "http://h:SECRET/f"),
		"redirect to no host": headers(302, "Location", "http:///f?a=SECRET"),
		"redirect, refused":   headers(302, "Location", "http://u:SECRET@127.0.0.1:1/f?a=SECRET"),
	}
	// The URL has all that must not be shown.
	secret := func(url string) string {
		return strings.Replace(url, "http://", "http://user:SECRET@", 1) + "/f?token=SECRET&x=SECRET#SECRET"
	}
	check := func(t *testing.T, err error, log *buffer) {
		t.Helper()
		switch text := log.String(); {
		case err == nil:
			t.Error("got no error")
		case strings.Contains(err.Error(), "SECRET"):
			t.Errorf("got error %q, which shows a secret", err)
		case strings.Contains(text, "SECRET"):
			t.Errorf("got log %q, which shows a secret", text)
		}
	}
	options := func() (httpblock.Options, *buffer) {
		log := new(buffer)
		logger := slog.New(slog.NewTextHandler(log, &slog.HandlerOptions{Level: slog.LevelDebug}))
		return httpblock.Options{Timeout: 200 * time.Millisecond, Logger: logger}, log
	}
	for name, handler := range tests {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, net *network) {
				if name != "changed" {
					opt, log := options()
					opt.Timeout = 100 * time.Millisecond
					_, err := httpblock.Open(t.Context(), secret(net.serve(t, handler)), net.through(opt))
					check(t, err, log)
				}
				opt, log := options()
				var q requests
				url := net.serve(t, func(w http.ResponseWriter, r *http.Request) {
					if q.add(r) == 0 {
						content(w, r, data)
						return
					}
					handler(w, r)
				})
				opt.Timeout = soon // Open is not to fail, however slow the machine is
				s := net.open(t, secret(url), opt)
				httpblock.SetTimeout(s, 100*time.Millisecond)
				_, err := readAt(t.Context(), s, 1000, 50_000)
				check(t, err, log)
			})
		})
	}
	t.Run("refused", func(t *testing.T) {
		srv := httptest.NewServer(http.NotFoundHandler())
		srv.Close()
		opt, log := options()
		_, err := httpblock.Open(t.Context(), secret(srv.URL), opt)
		check(t, err, log)
		if !strings.Contains(log.String(), "/f?token&x") {
			t.Errorf("got log %q, want the URL as it may be shown", log)
		}
	})
	t.Run("plain HTTP where TLS is spoken", func(t *testing.T) {
		srv := httptest.NewServer(http.NotFoundHandler())
		defer srv.Close()
		opt, log := options()
		_, err := httpblock.Open(t.Context(), strings.Replace(secret(srv.URL), "http", "https", 1), opt)
		check(t, err, log)
	})
	t.Run("cancelled", func(t *testing.T) {
		opt, log := options()
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		_, err := httpblock.Open(ctx, secret("http://127.0.0.1:1"), opt)
		check(t, err, log)
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want %v", err, context.Canceled)
		}
	})
}

// A password that was not escaped makes a URL that is none: the error must not
// quote the place.
func TestSecretsOfBrokenURLsAreNotShown(t *testing.T) {
	for _, url := range []string{
		"http://user:SECRET/x@127.0.0.1:1/f",
		"http://user:SECRET?x@127.0.0.1:1/f",
		"http://user:SECRET#x@127.0.0.1:1/f",
		"http://user:SECRET%@127.0.0.1:1/f",
		"http://user:%SECRET@127.0.0.1:1/f",
		"http://user:SECRET x@127.0.0.1:1/f",
		"http://user:SECRET\n@127.0.0.1:1/f",
		"http://user:[SECRET@127.0.0.1:1/f",
		"http://user:SECRET@127.0.0.1:port/f?a=SECRET",
		"http://user:SECRET@127.0.0.1/%zz?a=SECRET",
		"1http://user:SECRET@127.0.0.1/f",
		"://user:SECRET@127.0.0.1/f",
		"user:SECRET@127.0.0.1/f",
	} {
		s, err := httpblock.Open(t.Context(), url, httpblock.Options{Timeout: 200 * time.Millisecond})
		if err == nil {
			s.Close()
			t.Errorf("%q: got no error", url)
		} else if strings.Contains(err.Error(), "SECRET") || strings.Contains(err.Error(), "%SE") {
			t.Errorf("%q: got error %q, which shows a secret", url, err)
		}
	}
}
