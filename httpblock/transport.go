package httpblock

import (
	"context"
	"net/http"
	"net/url"
	"time"
)

// transports sends requests. Two are needed where we have a client certificate:
// net/http shows it to every server that asks.
type transports struct {
	origin *url.URL
	own    *http.Transport // to the scheme, host and port of origin
	others *http.Transport
}

// newTransports returns the transports for a file at origin.
func newTransports(origin *url.URL, opt *Options, dialTimeout time.Duration) transports {
	d := newDialer(dialTimeout, opt.connect)
	t := newTransport(opt.Connections, d)
	t.TLSClientConfig = opt.TLS.Clone()
	if opt.TLS == nil || len(opt.TLS.Certificates) == 0 {
		return transports{origin, t, t}
	}
	own := t.Clone()
	t.TLSClientConfig.Certificates = nil
	// If a proxy speaks TLS, it is the server that is dialled, and not shown the
	// certificate; otherwise that is origin, however a redirect spells its name.
	if proxy, err := own.Proxy(&http.Request{URL: origin}); err == nil && proxy != nil {
		own.DialTLSContext = d.tls(t.TLSClientConfig)
	}
	return transports{origin, own, t}
}

func (t transports) roundTrip(req *http.Request) (*http.Response, error) {
	if sameOrigin(req.URL, t.origin) {
		return t.own.RoundTrip(req)
	}
	return t.others.RoundTrip(req)
}

func (t transports) closeIdle() {
	t.own.CloseIdleConnections()
	t.others.CloseIdleConnections()
}

// newTransport returns a transport that keeps up to connections HTTP/1.1
// connections to a server. HTTP/2 is off: Go puts all requests to a host on one
// TCP connection, where a reader's block would queue behind everything else.
func newTransport(connections int, d *dialer) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		OnProxyConnectResponse: judgeProxy,
		DialContext:            d.DialContext,
		TLSHandshakeTimeout:    d.timeout,
		Protocols:              protocols,
		MaxConnsPerHost:        connections,
		MaxIdleConnsPerHost:    connections,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
	}
}

// judgeProxy looks at a proxy's response to our wish for a connection.
func judgeProxy(_ context.Context, _ *url.URL, _ *http.Request, resp *http.Response) error {
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	return &StatusError{Code: resp.StatusCode, Proxy: true, RetryAfter: retryAfter(resp.Header.Get("Retry-After"))}
}
