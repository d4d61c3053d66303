package main

import (
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/cli"
)

// fault is a way in which a server of an image goes wrong.
type fault struct {
	name  string
	serve http.HandlerFunc
	after int64    // requests that are answered well before
	args  []string // more of them
	says  string   // what is wrong, as a regular expression
	hint  string   // what may help, if there is a hint
}

// respond returns a handler that answers with a status, headers and a body.
func respond(code int, body string, pairs ...string) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		for i := 0; i < len(pairs); i += 2 {
			w.Header().Set(pairs[i], pairs[i+1])
		}
		w.WriteHeader(code)
		io.WriteString(w, body)
	}
}

// raw returns a handler that lets talk write to the connection, and closes it.
func raw(t *testing.T, talk func(c io.Writer)) http.HandlerFunc {
	return func(w http.ResponseWriter, _ *http.Request) {
		c, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer c.Close()
		talk(c)
	}
}

// endless writes s again and again, until the other end has had enough.
func endless(c io.Writer, s string, pause time.Duration) {
	for {
		if _, err := io.WriteString(c, s); err != nil {
			return
		}
		time.Sleep(pause)
	}
}

// ranged is the head of an answer to a request for r's range of a file of size
// bytes, moved by these numbers of bytes.
func ranged(w http.ResponseWriter, r *http.Request, size, first, last int) (n int) {
	var off, end int
	fmt.Sscanf(r.Header.Get("Range"), "bytes=%d-%d", &off, &end)
	end = min(end, size-1)
	w.Header().Set("ETag", `"a"`)
	w.Header().Set("Content-Range", fmt.Sprintf("bytes %d-%d/%d", off+first, end+last, size))
	w.WriteHeader(http.StatusPartialContent)
	return end + last - off - first + 1
}

func faults(t *testing.T, image []byte) []fault {
	const size = 50_000 // of what is claimed
	whole := func(w http.ResponseWriter, r *http.Request) {
		r.Header.Del("Range")
		content(w, r, image)
	}
	encoded := func(with string) http.HandlerFunc {
		return respond(206, strings.Repeat("x", 8192), "Content-Range", "bytes 0-8191/50000", "Content-Encoding", with)
	}
	redirect := func(to string) http.HandlerFunc { return respond(302, "", "Location", to) }
	short := []string{"--timeout", "1s"}
	const credentials = "give credentials (user:password@ in the URL, --netrc, --header or --bearer-token-file); a signed URL may have expired"
	const gaveUp, checkURL, later = "gave up after 1s: ", "check the URL", "try again; publish new images under new names"
	return []fault{
		{name: "range ignored", serve: whole, says: `server ignores Range requests \(answered 200 to bytes=0-8191\)`, hint: "download the file and mount it locally, or use a mirror that supports ranges"},
		{name: "range ignored later", after: 1, serve: whole, says: `server ignores Range requests \(answered 200 to bytes=\d+-\d+\)`, hint: "download the file and mount it locally, or use a mirror that supports ranges"},
		{name: "another file as a whole", after: 1, serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"b"`)
			whole(w, r)
		}, says: `image changed on the server \(ETag "a" -> "b"\)`, hint: later},
		{name: "another file", after: 1, serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("ETag", `"b"`)
			content(w, r, image)
		}, says: `image changed on the server \(ETag "a" -> "b"\)`, hint: later},
		{name: "another size", after: 1, serve: func(w http.ResponseWriter, r *http.Request) { content(w, r, image[:len(image)-1]) }, says: `image changed on the server \(size \d+ -> \d+\)`, hint: later},
		{name: "416 later", after: 1, serve: respond(416, "", "Content-Range", "bytes */7"), says: `image changed on the server \(answered 416 to bytes=\d+-\d+\)`, hint: later},
		{name: "wrong start", serve: func(w http.ResponseWriter, r *http.Request) { ranged(w, r, size, 1, 0) }, says: `invalid answer: Content-Range "bytes 1-8191/50000" to bytes=0-8191`},
		{name: "too long", serve: func(w http.ResponseWriter, r *http.Request) { ranged(w, r, size, 0, 1) }, says: `invalid answer: Content-Range "bytes 0-8192/50000" to bytes=0-8191`},
		{name: "wrong total", serve: func(w http.ResponseWriter, r *http.Request) { ranged(w, r, 100, 0, 7) }, says: `invalid answer: Content-Range "bytes 0-106/100"`},
		{name: "body of another length", serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "9000")
			ranged(w, r, size, 0, 0)
		}, says: `invalid answer: a body of 9000 bytes for Content-Range "bytes 0-8191/50000"`},
		{name: "no size", serve: respond(206, strings.Repeat("x", 8192), "Content-Range", "bytes 0-8191/*"), says: `invalid answer: the server does not say how large the file is`},
		{name: "multipart", serve: respond(206, "--x\r\n", "Content-Type", "multipart/byteranges; boundary=x"), says: `invalid answer: "multipart/byteranges; boundary=x" to a request for one range`},
		{name: "gzip", serve: encoded("gzip"), says: `the server sends the file encoded \(Content-Encoding "gzip"\)`, hint: "the file has to come as it is: turn compression off for it on the server"},
		{name: "deflate", serve: encoded("deflate"), says: `the server sends the file encoded \(Content-Encoding "deflate"\)`, hint: "the file has to come as it is: turn compression off for it on the server"},
		{name: "brotli", serve: encoded("br"), says: `the server sends the file encoded \(Content-Encoding "br"\)`, hint: "the file has to come as it is: turn compression off for it on the server"},
		{name: "204", serve: respond(204, ""), says: `server answered 204 No Content`},

		{name: "cut off for ever", args: short, serve: func(w http.ResponseWriter, r *http.Request) {
			w.Header().Set("Content-Length", "8192")
			ranged(w, r, size, 0, 0)
		}, says: gaveUp + `unexpected EOF`},
		{name: "closed", args: short, serve: raw(t, func(io.Writer) {}), says: gaveUp + `EOF`},
		{name: "hangs", args: short, serve: func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }, says: gaveUp + `no data arrived`},
		{name: "drips", args: short, serve: func(w http.ResponseWriter, r *http.Request) {
			ranged(w, r, size, 0, 0)
			for r.Context().Err() == nil {
				io.WriteString(w, "x")
				w.(http.Flusher).Flush()
				time.Sleep(100 * time.Millisecond)
			}
		}, says: gaveUp + `no data arrived`},
		{name: "drips a header", args: short, serve: raw(t, func(c io.Writer) {
			io.WriteString(c, "HTTP/1.1 206 Partial Content\r\n")
			endless(c, "X: y\r\n", 100*time.Millisecond)
		}), says: gaveUp + `no data arrived`},
		{name: "large header", args: short, serve: respond(206, "", "X", strings.Repeat("x", 70_000)), says: gaveUp + `.*headers exceeded 65536 bytes.*`},
		{name: "endless header", args: short, serve: raw(t, func(c io.Writer) {
			io.WriteString(c, "HTTP/1.1 206 Partial Content\r\nX: ")
			endless(c, strings.Repeat("x", 1<<16), 0)
		}), says: gaveUp + `.*headers exceeded 65536 bytes.*`},
		{name: "endless headers", args: short, serve: raw(t, func(c io.Writer) {
			io.WriteString(c, "HTTP/1.1 206 Partial Content\r\n")
			endless(c, strings.Repeat("X: y\r\n", 1000), 0)
		}), says: gaveUp + `.*headers exceeded 65536 bytes.*`},
		{name: "no HTTP", args: short, serve: raw(t, func(c io.Writer) { io.WriteString(c, "220 ready\r\n") }), says: gaveUp + `.*malformed HTTP.*`},

		{name: "redirect loop", serve: redirect("/again"), says: `redirect refused: more than 10 in a row`, hint: "give the URL of the file itself"},
		{name: "redirect to ftp", serve: redirect("ftp://h/f"), says: `redirect refused: to a URL of scheme "ftp"`, hint: "give the URL of the file itself"},
		{name: "redirect to a file", serve: redirect("file:///etc/passwd"), says: `redirect refused: to a URL without a host`, hint: "give the URL of the file itself"},
		{name: "redirect to nowhere", serve: redirect(""), says: `redirect refused: no usable Location`, hint: "give the URL of the file itself"},

		{name: "400", serve: respond(400, ""), says: `server answered 400 Bad Request`},
		{name: "401", serve: respond(401, ""), says: `server answered 401 Unauthorized`, hint: credentials},
		{name: "403", serve: respond(403, ""), says: `server answered 403 Forbidden`, hint: credentials},
		{name: "404", serve: respond(404, ""), says: `server answered 404 Not Found`, hint: checkURL},
		{name: "404 later", after: 1, serve: respond(404, ""), says: `server answered 404 Not Found`, hint: checkURL},
		{name: "410", serve: respond(410, ""), says: `server answered 410 Gone`, hint: checkURL},
		{name: "407", serve: respond(407, ""), says: `proxy answered 407 Proxy Authentication Required`, hint: "the proxy wants to know who you are: http_proxy or https_proxy=http://USER:PASSWORD@PROXY"},
		{name: "429", args: short, serve: respond(429, "", "Retry-After", "60"), says: gaveUp + `server answered 429 Too Many Requests`, hint: "try again later, or with fewer --connections"},
		{name: "500", args: short, serve: respond(500, "x"), says: gaveUp + `server answered 500 Internal Server Error`},
		{name: "503", args: short, serve: respond(503, "", "Retry-After", "1000000"), says: gaveUp + `server answered 503 Service Unavailable`},
	}
}

// Whatever goes wrong with a server: one line that says it, one with a hint if
// there is one, and exit status 4.
func TestFaults(t *testing.T) {
	_, image := smallImage()
	for _, f := range faults(t, image) {
		t.Run(f.name, func(t *testing.T) {
			t.Parallel()
			var requests atomic.Int64
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				if requests.Add(1) <= f.after {
					content(w, r, image)
					return
				}
				f.serve(w, r)
			})
			check(t, f, url, nil)
		})
	}
}

// However a server says that the file is empty, the message is that of an empty
// file of this machine.
func TestEmptyFile(t *testing.T) {
	for name, answer := range map[string]http.HandlerFunc{
		"200":                       respond(200, "", "Content-Length", "0"),
		"416":                       respond(416, "", "Content-Range", "bytes */0"),
		"206 of nothing":            respond(206, "", "Content-Range", "bytes 0--1/0", "Content-Length", "0"),
		"206 of nothing, of a byte": respond(206, "", "Content-Range", "bytes 0-0/0", "Content-Length", "0"),
	} {
		url := serve(t, answer)
		got := program(t, nil, "info", url)
		if want := (result{cli.ExitImage, "", "cloopfs: open " + url + ": the file is empty\n"}); got != want {
			t.Errorf("%s: got %+v, want %+v", name, got, want)
		}
	}
}

// check checks what the program says of the file at url.
func check(t *testing.T, f fault, url string, env []string) {
	t.Helper()
	out := filepath.Join(t.TempDir(), "out")
	got := program(t, env, slices.Concat([]string{"extract"}, f.args, []string{url, out})...)
	want := `^cloopfs: (open ` + regexp.QuoteMeta(url) + `|read block \d+): ` + f.says + `\n`
	if f.hint != "" {
		want += "cloopfs: hint: " + regexp.QuoteMeta(f.hint) + `\n`
	}
	if got.code != cli.ExitSource || got.stdout != "" || !regexp.MustCompile(want+`\z`).MatchString(got.stderr) {
		t.Errorf("got exit status %d, %q\nwant %d, %q", got.code, got.stderr, cli.ExitSource, want)
	}
}

// Faults of names, connections and TLS.
func TestConnectionFaults(t *testing.T) {
	later := time.Now().Add(time.Hour)
	good, goodPEM, _ := certificate(t, "origin.test", later)
	old, oldPEM, _ := certificate(t, "origin.test", time.Unix(1, 0))
	trust, trustOld := []string{"--cacert", writeFile(t, "ca", goodPEM)}, []string{"--cacert", writeFile(t, "ca", oldPEM)}
	secure := func(cert tls.Certificate, auth tls.ClientAuthType) string {
		return serveTLS(t, &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: auth}, respond(302, "", "Location", "http://127.0.0.1/f"))
	}
	goodURL := secure(good, tls.NoClientCert)
	closed := httptest.NewServer(nil)
	closed.Close()
	const insecure = ", or believe every server with --insecure"
	tests := []struct {
		fault
		url string
	}{
		{fault{name: "refused", args: []string{"--timeout", "1s"}, says: `gave up after 1s: dial tcp 127.0.0.1:\d+: connect: connection refused`, hint: "nobody listens there: check host and port"}, closed.URL},
		{fault{name: "unknown authority", says: `tls: failed to verify certificate: x509: certificate signed by unknown authority`, hint: "name its authority with --cacert FILE" + insecure}, goodURL},
		{fault{name: "another authority", args: trustOld, says: `tls: failed to verify certificate: x509: certificate signed by unknown authority.*`, hint: "name its authority with --cacert FILE" + insecure}, goodURL},
		{fault{name: "another host", args: trust, says: `tls: failed to verify certificate: x509: certificate is valid for origin.test, not localhost`, hint: "use the name that the certificate is for" + insecure}, strings.Replace(goodURL, "127.0.0.1", "localhost", 1)},
		{fault{name: "expired", args: trustOld, says: `tls: failed to verify certificate: x509: certificate has expired or is not yet valid: .*`, hint: "check the clock of this machine" + insecure}, secure(old, tls.NoClientCert)},
		{fault{name: "wants a certificate", args: trust, says: `remote error: tls: certificate required`, hint: "the server may want a client certificate: --cert FILE and --key FILE"}, secure(good, tls.RequireAnyClientCert)},
		{fault{name: "no TLS", says: `tls: first record does not look like a TLS handshake`, hint: "no TLS is spoken at that port: is it an http URL?"}, strings.Replace(serve(t, http.NotFound), "http", "https", 1)},
		{fault{name: "TLS", says: `server answered 400 Bad Request`}, strings.Replace(goodURL, "https", "http", 1)},
		{fault{name: "redirect to http", args: trust, says: `redirect refused: from https to http`, hint: "give the URL of the file itself"}, goodURL},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			check(t, tt.fault, tt.url, nil)
		})
	}
}
