package httpblock

import (
	"context"
	"crypto/tls"
	"net"
	"slices"
	"sync"
	"time"

	"github.com/hashicorp/golang-lru/v2/simplelru"
)

const (
	// lookupTime is how long a name that is known is looked up again before the
	// addresses it had are used: well within the patience with an attempt.
	lookupTime = 500 * time.Millisecond
	// headStart is what an address gets before the next one of the same name is
	// tried, too (RFC 8305, section 5).
	headStart = 250 * time.Millisecond
	// maxNames bounds how many names are remembered: a server can redirect to any. Those that
	// were not used for the longest time are forgotten.
	maxNames = 64
)

// dialer connects to servers, and remembers where it found them: a name that can't be
// looked up any more, or not soon, has the addresses that it had last. In an outage those
// who answer for names are as far away as the rest, and the files that say who they are
// may lie on the disk that is read through us. It is safe for concurrent use.
type dialer struct {
	timeout time.Duration // of a connection, with the look-up
	lookup  func(ctx context.Context, host string) ([]net.IPAddr, error)
	connect connectFunc

	// mu guards the fields below.
	mu    sync.Mutex
	names *simplelru.LRU[string, *name]
	first string // of them: all others were learnt from it, and it is never forgotten
}

// connectFunc connects to an address and port.
type connectFunc func(ctx context.Context, network, addr string) (net.Conn, error)

// name is what is known of a name. It is guarded by dialer.mu.
type name struct {
	addrs []net.IPAddr  // that were found last, never none
	since time.Time     // when the last look-up began
	found chan struct{} // closed at the end of a look-up, nil if none is under way
}

// newDialer returns a dialer that gives up after timeout, and connects by connect; by
// net.Dialer if that is nil.
func newDialer(timeout time.Duration, connect connectFunc) *dialer {
	if connect == nil {
		d := net.Dialer{KeepAlive: 15 * time.Second}
		connect = d.DialContext
	}
	names, err := simplelru.NewLRU[string, *name](maxNames, nil)
	if err != nil {
		panic("httpblock: internal error: " + err.Error()) // only for a size below 1
	}
	return &dialer{timeout: timeout, lookup: net.DefaultResolver.LookupIPAddr, connect: connect, names: names}
}

// DialContext connects to addr, which is a name or an address, and a port.
func (d *dialer) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	ctx, cancel := context.WithTimeout(ctx, d.timeout)
	defer cancel()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, err
	}
	if net.ParseIP(host) != nil {
		return d.connect(ctx, network, addr)
	}
	found, err := d.addresses(ctx, host)
	if err != nil {
		return nil, &net.OpError{Op: "dial", Net: network, Err: err}
	}
	var addrs []string
	for _, a := range alternate(found) {
		addrs = append(addrs, net.JoinHostPort(a.String(), port))
	}
	return d.connectAny(ctx, network, addrs)
}

// tls returns a function that connects as DialContext does, and speaks TLS.
func (d *dialer) tls(cfg *tls.Config) connectFunc {
	return func(ctx context.Context, network, addr string) (net.Conn, error) {
		ctx, cancel := context.WithTimeout(ctx, d.timeout)
		defer cancel()
		c, err := d.DialContext(ctx, network, addr)
		if err != nil {
			return nil, err
		}
		cfg := cfg.Clone()
		if cfg.ServerName == "" {
			cfg.ServerName, _, _ = net.SplitHostPort(addr) // it has a port: it was dialled
		}
		secure := tls.Client(c, cfg)
		if err := secure.HandshakeContext(ctx); err != nil {
			c.Close()
			return nil, err
		}
		return secure, nil
	}
}

// addresses returns those that host has. If it is known it does not take long, and
// does not fail.
func (d *dialer) addresses(ctx context.Context, host string) ([]net.IPAddr, error) {
	d.mu.Lock()
	n, known := d.names.Get(host)
	if !known {
		d.mu.Unlock()
		addrs, err := d.lookup(ctx, host)
		if err == nil {
			d.remember(host, addrs)
		}
		return addrs, err
	}
	if n.found == nil {
		n.since, n.found = time.Now(), make(chan struct{})
		go d.refresh(n, host)
	}
	found, late := n.found, time.NewTimer(time.Until(n.since.Add(lookupTime)))
	d.mu.Unlock()
	defer late.Stop()
	select {
	case <-found:
	case <-late.C:
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	return n.addrs, nil
}

// refresh looks up a name that is known. Nobody cancels that, and there is one at a
// time: it may be stuck in a file, and then each would hold a thread.
func (d *dialer) refresh(n *name, host string) {
	addrs, err := d.lookup(context.Background(), host)
	d.mu.Lock()
	defer d.mu.Unlock()
	if err == nil && len(addrs) > 0 {
		n.addrs = addrs
	}
	close(n.found)
	n.found = nil
}

func (d *dialer) remember(host string, addrs []net.IPAddr) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(addrs) == 0 || d.names.Contains(host) {
		return
	}
	if d.names.Len() == 0 {
		d.first = host
	}
	d.names.Get(d.first) // as if it were used: its connections are kept, and it is not dialled
	d.names.Add(host, &name{addrs: addrs})
}

// connectAny connects to that of addrs which answers first. Each has a head start
// over the next, unless it fails.
func (d *dialer) connectAny(ctx context.Context, network string, addrs []string) (net.Conn, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	type outcome struct {
		conn net.Conn
		err  error
	}
	outcomes := make(chan outcome, len(addrs))
	turn := time.NewTimer(0)
	defer turn.Stop()
	var first error
	for begun, ended := 0, 0; ended < len(addrs); {
		select {
		case <-turn.C:
			addr := addrs[begun]
			go func() {
				c, err := d.connect(ctx, network, addr)
				outcomes <- outcome{c, err}
			}()
			if begun++; begun < len(addrs) {
				turn.Reset(headStart)
			}
		case o := <-outcomes:
			ended++
			if o.err == nil {
				go func() { // the others end soon, and may have connected
					for range begun - ended {
						if late := <-outcomes; late.err == nil {
							late.conn.Close()
						}
					}
				}()
				return o.conn, nil
			}
			if first == nil {
				first = o.err
			}
			if begun < len(addrs) {
				turn.Reset(0)
			}
		}
	}
	return nil, first
}

// alternate returns addrs so that IPv4 and IPv6 take turns, as far as there are both.
// The first stays the first.
func alternate(addrs []net.IPAddr) []net.IPAddr {
	v4 := func(a net.IPAddr) bool { return a.IP.To4() != nil }
	var same, other []net.IPAddr
	for _, a := range addrs {
		if v4(a) == v4(addrs[0]) {
			same = append(same, a)
		} else {
			other = append(other, a)
		}
	}
	turns := make([]net.IPAddr, 0, len(addrs))
	for i := range min(len(same), len(other)) {
		turns = append(turns, same[i], other[i])
	}
	return slices.Concat(turns, same[len(turns)/2:], other[len(turns)/2:])
}
