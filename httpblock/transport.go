package httpblock

import (
	"net"
	"net/http"
	"time"
)

// newTransport returns a transport that keeps up to connections HTTP/1.1
// connections to a server. HTTP/2 is off: Go puts all requests to a host on one
// TCP connection, where a reader's block would queue behind everything else.
func newTransport(connections int, dialTimeout time.Duration) *http.Transport {
	protocols := new(http.Protocols)
	protocols.SetHTTP1(true)
	dialer := &net.Dialer{Timeout: dialTimeout, KeepAlive: 15 * time.Second}
	return &http.Transport{
		Proxy:                  http.ProxyFromEnvironment,
		DialContext:            dialer.DialContext,
		TLSHandshakeTimeout:    dialTimeout,
		Protocols:              protocols,
		MaxConnsPerHost:        connections,
		MaxIdleConnsPerHost:    connections,
		IdleConnTimeout:        90 * time.Second,
		MaxResponseHeaderBytes: 64 << 10,
		DisableCompression:     true,
	}
}
