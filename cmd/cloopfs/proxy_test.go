package main

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"encoding/base64"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httputil"
	"net/url"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/cli"
)

// heads collects what requests say before their body, as it was sent.
type heads struct {
	// mu guards the field below.
	mu   sync.Mutex
	text bytes.Buffer
}

func (h *heads) add(head string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.text.WriteString(head)
}

func (h *heads) take() string {
	h.mu.Lock()
	defer h.mu.Unlock()
	defer h.text.Reset()
	return h.text.String()
}

// rawServer is a server without net/http: it keeps every head as it came, and
// answers with its range of data. It returns its address. cfg is nil for plain
// HTTP.
func rawServer(t *testing.T, cfg *tls.Config, h *heads, data []byte) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	addr := l.Addr().String()
	if cfg != nil {
		l = tls.NewListener(l, cfg)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go answerRaw(c, h, data)
		}
	}()
	return addr
}

// answerRaw answers the requests that come over c.
func answerRaw(c net.Conn, h *heads, data []byte) {
	defer c.Close()
	for r := bufio.NewReader(c); ; {
		var head strings.Builder
		for !strings.HasSuffix(head.String(), "\r\n\r\n") {
			line, err := r.ReadString('\n')
			if err != nil {
				return
			}
			head.WriteString(line)
		}
		h.add(head.String())
		_, rng, _ := strings.Cut(head.String(), "\r\nRange: ")
		var off, end int
		if _, err := fmt.Sscanf(rng, "bytes=%d-%d", &off, &end); err != nil {
			return
		}
		end = min(end, len(data)-1)
		fmt.Fprintf(c, "HTTP/1.1 206 Partial Content\r\nETag: \"a\"\r\nSet-Cookie: c=SECRET\r\nContent-Range: bytes %d-%d/%d\r\nContent-Length: %d\r\n\r\n", off, end, len(data), end-off+1)
		c.Write(data[off : end+1])
	}
}

// asking is the configuration of a server that asks for a client certificate, and
// says in h that it got one.
func asking(c tls.Certificate, h *heads) *tls.Config {
	return &tls.Config{
		Certificates: []tls.Certificate{c},
		ClientAuth:   tls.RequestClientCert,
		VerifyConnection: func(s tls.ConnectionState) error {
			if len(s.PeerCertificates) > 0 {
				h.add("SECRET certificate")
			}
			return nil
		},
	}
}

// sendingOn returns the URL of a server that redirects to target.
func sendingOn(t *testing.T, cfg *tls.Config, h *heads, target string) string {
	t.Helper()
	handler := func(w http.ResponseWriter, r *http.Request) {
		head, _ := httputil.DumpRequest(r, false)
		h.add(string(head))
		w.Header().Set("Set-Cookie", "c=SECRET")
		http.Redirect(w, r, target, http.StatusFound)
	}
	if cfg == nil {
		return serve(t, handler)
	}
	return serveTLS(t, cfg, handler)
}

// serveProxy returns the URL of a proxy, with its password. It carries to these
// hosts, at any port, whose addresses are given.
func serveProxy(t *testing.T, cfg *tls.Config, h *heads, hosts map[string]string) string {
	t.Helper()
	front := httptest.NewUnstartedServer(&proxy{heads: h, hosts: hosts})
	if front.TLS = cfg; cfg != nil {
		front.StartTLS()
	} else {
		front.Start()
	}
	t.Cleanup(front.Close)
	return strings.Replace(front.URL, "://", "://pu:pSECRET@", 1)
}

// proxy is a proxy that wants a password. It knows the hosts of the tests.
type proxy struct {
	heads *heads
	hosts map[string]string // to address
}

func (p *proxy) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	head, _ := httputil.DumpRequest(r, false)
	p.heads.add(string(head))
	if r.Header.Get("Proxy-Authorization") != "Basic "+base64.StdEncoding.EncodeToString([]byte("pu:pSECRET")) {
		w.WriteHeader(http.StatusProxyAuthRequired)
		return
	}
	host, _, _ := strings.Cut(r.Host, ":")
	addr, ok := p.hosts[host]
	switch {
	case !ok:
		w.WriteHeader(http.StatusBadGateway)
	case r.Method != http.MethodConnect:
		(&httputil.ReverseProxy{Rewrite: func(pr *httputil.ProxyRequest) {
			pr.Out.URL = &url.URL{Scheme: "http", Host: addr, Path: pr.In.URL.Path, RawQuery: pr.In.URL.RawQuery}
			pr.Out.Host = pr.In.Host
		}}).ServeHTTP(w, r)
	default:
		tunnel(w, addr)
	}
}

// tunnel joins the client of w with addr.
func tunnel(w http.ResponseWriter, addr string) {
	to, err := net.Dial("tcp", addr)
	if err != nil {
		w.WriteHeader(http.StatusBadGateway)
		return
	}
	defer to.Close()
	w.WriteHeader(http.StatusOK)
	from, buffered, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer from.Close()
	go func() {
		io.Copy(to, buffered)
		to.Close()
	}()
	io.Copy(from, to)
}

// What tells a server who we are arrives there, and at no other: neither where
// it redirects to, nor at a proxy that only carries what it can't read. What is
// the proxy's does not arrive at the servers.
func TestSecretsStayAtTheirServer(t *testing.T) {
	_, image := smallImage()
	later := time.Now().Add(time.Hour)
	cert, certPEM, _ := certificate(t, "origin.test", later)
	other, otherPEM, _ := certificate(t, "other.test", later)
	proxyCert, proxyPEM, _ := certificate(t, "proxy", later)
	_, clientPEM, clientKey := certificate(t, "client", later)
	cas := writeFile(t, "cas", slices.Concat(certPEM, otherPEM, proxyPEM))
	both := writeFile(t, "client", slices.Concat(clientPEM, clientKey))
	identities := []struct {
		name, user string
		env, args  []string
		arrives    string
	}{
		{name: "URL", user: "u:SECRET@", arrives: "\r\nAuthorization: Basic dTpTRUNSRVQ=\r\n"},
		{name: "token", args: []string{"--bearer-token-file", writeFile(t, "token", []byte("SECRET\n"))}, arrives: "\r\nAuthorization: Bearer SECRET\r\n"},
		{name: "header", args: []string{"--header", "X-Key: SECRET", "--header", "Cookie: a=SECRET"}, arrives: "\r\nX-Key: SECRET\r\n"},
		{name: "Authorization", args: []string{"--header", "Authorization: SECRET"}, arrives: "\r\nAuthorization: SECRET\r\n"},
		{name: "netrc", env: []string{"NETRC=" + writeFile(t, "netrc", []byte("default login u password SECRET\n"))}, args: []string{"--netrc"}, arrives: "\r\nAuthorization: Basic dTpTRUNSRVQ=\r\n"},
		{name: "certificate", args: []string{"--cert", both}, arrives: "SECRET certificate"},
	}
	for _, way := range []string{"http", "https", "http by proxy", "https by proxy", "https by https proxy"} {
		for _, id := range identities {
			if id.name == "certificate" && strings.HasPrefix(way, "http ") || way == "http" && id.name == "certificate" {
				continue // there is no TLS
			}
			t.Run(way+"/"+id.name, func(t *testing.T) {
				scheme, proxied, byProxy := strings.Cut(way, " by ")
				var first, second, between heads
				var firstTLS, secondTLS *tls.Config
				if scheme == "https" {
					firstTLS, secondTLS = asking(cert, &first), asking(other, &second)
				}
				otherAddr := rawServer(t, secondTLS, &second, image)
				target := scheme + "://other.test/f"
				if !byProxy {
					target = scheme + "://" + otherAddr + "/f"
				}
				source := sendingOn(t, firstTLS, &first, target)
				env := id.env
				if byProxy {
					hosts := map[string]string{"origin.test": strings.TrimPrefix(source, scheme+"://"), "other.test": otherAddr}
					var cfg *tls.Config
					if proxied == "https proxy" {
						cfg = asking(proxyCert, &between)
					}
					env = append(slices.Clone(env), scheme+"_proxy="+serveProxy(t, cfg, &between, hosts))
					source = scheme + "://origin.test"
				}
				url := strings.Replace(source, "://", "://"+id.user, 1) + "/f?sig=SECRET"
				got := program(t, env, slices.Concat([]string{"verify", "--timeout=10s", "--cacert", cas}, id.args, []string{url})...)
				if got.code != 0 {
					t.Fatalf("got %+v", got)
				}
				if byProxy {
					checkProxy(t, between.take(), scheme)
				}
				if text := first.take(); !strings.Contains(text, id.arrives) || strings.Contains(text, "Proxy-") {
					t.Errorf("SOURCE's server got %q, want %q", text, id.arrives)
				}
				text := second.take()
				if n := strings.Count(text, "GET "); n < 2 {
					t.Errorf("the other server got %d requests, want more", n)
				}
				for _, bad := range []string{"SECRET", "dTpTRUNSRVQ=", "Authorization", "Cookie", "Referer", "X-Key", "Proxy-"} {
					if strings.Contains(text, bad) {
						t.Errorf("the other server got %q in %q", bad, text)
					}
				}
			})
		}
	}
}

// checkProxy checks what a proxy has heard on the way to SOURCE and, after a
// redirect, to another server.
func checkProxy(t *testing.T, text, scheme string) {
	t.Helper()
	requests := strings.SplitAfter(text, "\r\n\r\n")
	if len(requests) < 3 || !strings.Contains(text, "origin.test") || !strings.Contains(text, "other.test") {
		t.Errorf("the proxy got %q, want requests to both servers", text)
	}
	for _, head := range requests {
		head = strings.Replace(head, "/f?sig=SECRET", "/f?", 1)
		if scheme == "http" && strings.Contains(head, "origin.test") {
			continue // it has to carry that as it is
		}
		for _, bad := range []string{"SECRET", "\r\nAuthorization", "dTpTRUNSRVQ=", "Cookie", "Referer", "X-Key"} {
			if strings.Contains(head, bad) {
				t.Errorf("the proxy got %q in %q", bad, head)
			}
		}
	}
}

// What is wrong with a proxy is said, without its password.
func TestProxyFaults(t *testing.T) {
	front := httptest.NewServer(&proxy{heads: new(heads)})
	t.Cleanup(front.Close)
	closed := httptest.NewServer(nil)
	closed.Close()
	with := func(url, user string) string { return strings.Replace(url, "://", "://"+user, 1) }
	const see = "see http_proxy, https_proxy and no_proxy"
	const who = "the proxy wants to know who you are: http_proxy or https_proxy=http://USER:PASSWORD@PROXY"
	tests := []struct {
		fault
		proxy string
	}{
		{fault{name: "wrong password", says: `proxy answered 407 Proxy Authentication Required`, hint: who}, with(front.URL, "pu:SECRET@")},
		{fault{name: "no password", says: `proxy answered 407 Proxy Authentication Required`, hint: who}, front.URL},
		{fault{name: "refused", says: `gave up after 1s: proxyconnect tcp: dial tcp 127.0.0.1:\d+: connect: connection refused`, hint: see}, with(closed.URL, "pu:SECRET@")},
		{fault{name: "no TLS", says: `proxyconnect tcp: tls: first record does not look like a TLS handshake`, hint: see}, strings.Replace(with(front.URL, "pu:SECRET@"), "http", "https", 1)},
	}
	for _, tt := range tests {
		for _, scheme := range []string{"http", "https"} {
			t.Run(tt.name+"/"+scheme, func(t *testing.T) {
				t.Parallel()
				f := tt.fault
				f.args = []string{"--timeout=1s"}
				check(t, f, scheme+"://origin.test/f", []string{scheme + "_proxy=" + tt.proxy})
			})
		}
	}
	unreachable := fault{name: "unreachable", args: []string{"--timeout=1s"}, says: "gave up after 1s: proxy answered 502 Bad Gateway", hint: see}
	check(t, unreachable, "https://origin.test/f", []string{"https_proxy=" + with(front.URL, "pu:pSECRET@")})
	for _, bad := range []string{"http://pu:SECRET@%zz", "http://pu:SECRET/x@127.0.0.1:1", "pu:SECRET@127.0.0.1:1", "ftp://pu:SECRET@127.0.0.1:1", "socks5://pu:SECRET@127.0.0.1:1"} {
		got := program(t, []string{"http_proxy=" + bad}, "verify", "--timeout=300ms", "http://127.0.0.2.invalid/f")
		if got.code != cli.ExitSource || strings.Contains(got.stderr, "SECRET") {
			t.Errorf("%s: got %+v, want exit status %d and no secret", bad, got, cli.ExitSource)
		}
	}
}
