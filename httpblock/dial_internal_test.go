package httpblock

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// network is names and hosts that behave as a test wants. Its zero value knows no name,
// and reaches no host.
type network struct {
	// mu guards the fields below.
	mu       sync.Mutex
	names    map[string]string        // addresses, separated by spaces; "hang": there is no answer
	hosts    map[string]time.Duration // by address, how long it takes to connect; negative: to be refused
	lookups  int                      // so far
	hanging  int                      // look-ups under way
	tried    []string                 // addresses
	open     int                      // connections
	slowness time.Duration            // of look-ups
}

var errRefused = errors.New("refused")

func (n *network) dialer() *dialer {
	d := newDialer(10*time.Second, n.connect)
	d.lookup = n.lookup
	return d
}

func (n *network) set(change func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	change()
}

func (n *network) lookup(ctx context.Context, host string) ([]net.IPAddr, error) {
	var answer string
	var slowness time.Duration
	n.set(func() {
		n.lookups++
		answer, slowness = n.names[host], n.slowness
		n.hanging++
	})
	defer n.set(func() { n.hanging-- })
	if answer == "hang" {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	time.Sleep(slowness)
	if answer == "" {
		return nil, &net.DNSError{Err: "no such host", Name: host, IsNotFound: true}
	}
	var addrs []net.IPAddr
	for s := range strings.FieldsSeq(answer) {
		addrs = append(addrs, net.IPAddr{IP: net.ParseIP(s)})
	}
	return addrs, nil
}

type fakeConn struct {
	net.Conn
	addr  string
	close func()
}

func (c fakeConn) Close() error {
	c.close()
	return nil
}

func (n *network) connect(ctx context.Context, _, addr string) (net.Conn, error) {
	var delay time.Duration
	var there bool
	n.set(func() {
		n.tried = append(n.tried, addr)
		delay, there = n.hosts[addr]
	})
	if !there {
		return nil, errRefused
	}
	time.Sleep(max(delay, -delay)) // also when nobody waits any more
	if delay < 0 {
		return nil, errRefused
	}
	n.set(func() { n.open++ })
	return fakeConn{addr: addr, close: func() { n.set(func() { n.open-- }) }}, nil
}

// dial connects to h:80 and returns where that led, and after how long.
func (n *network) dial(t *testing.T, d *dialer) (addr string, took time.Duration, err error) {
	t.Helper()
	begin := time.Now()
	c, err := d.DialContext(t.Context(), "tcp", "h:80")
	took = time.Since(begin)
	if err == nil {
		addr = c.(fakeConn).addr
		c.Close()
	}
	return addr, took, err
}

// A name that was looked up once is connected to whatever becomes of it.
func TestPinnedAddress(t *testing.T) {
	tests := []struct {
		name   string
		answer string // from the second time on
		want   string
		took   time.Duration
	}{
		{"as before", "10.0.0.1", "10.0.0.1:80", 0},
		{"moved", "10.0.0.2", "10.0.0.2:80", 0},
		{"without an address", " ", "10.0.0.1:80", 0},
		{"not known any more", "", "10.0.0.1:80", 0},
		{"no answer", "hang", "10.0.0.1:80", lookupTime},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{
					names: map[string]string{"h": "10.0.0.1"},
					hosts: map[string]time.Duration{"10.0.0.1:80": 0, "10.0.0.2:80": 0},
				}
				d := n.dialer()
				ctx, cancel := context.WithCancel(context.Background())
				d.lookup = func(c context.Context, host string) ([]net.IPAddr, error) {
					if c.Done() == nil { // of nobody's in particular
						c = ctx
					}
					return n.lookup(c, host)
				}
				defer cancel()
				if got, _, err := n.dial(t, d); got != "10.0.0.1:80" {
					t.Fatalf("at first: got %q, error %v", got, err)
				}
				n.set(func() { n.names["h"] = tt.answer })
				got, took, err := n.dial(t, d)
				if got != tt.want || took != tt.took {
					t.Errorf("got %q after %v, error %v; want %q after %v", got, took, err, tt.want, tt.took)
				}
				// One look-up that is stuck is enough, and waited for once.
				for range 3 {
					if _, took, err := n.dial(t, d); took != 0 || err != nil {
						t.Errorf("later: took %v, error %v; want neither", took, err)
					}
				}
				synctest.Wait()
				if want := map[bool]int{true: 1}[tt.answer == "hang"]; n.hanging != want {
					t.Errorf("%d look-ups hang, want %d", n.hanging, want)
				}
				cancel()
				synctest.Wait()
			})
		})
	}
}

// What is found too late for one connection is there for the next.
func TestLateAddress(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := &network{
			names: map[string]string{"h": "10.0.0.1"},
			hosts: map[string]time.Duration{"10.0.0.1:80": 0, "10.0.0.2:80": 0},
		}
		d := n.dialer()
		n.dial(t, d)
		n.set(func() { n.names["h"], n.slowness = "10.0.0.2", time.Second })
		if got, took, err := n.dial(t, d); got != "10.0.0.1:80" || took != lookupTime {
			t.Errorf("meanwhile: got %q after %v, error %v", got, took, err)
		}
		time.Sleep(time.Second)
		n.set(func() { n.names["h"] = "hang" })
		d.lookup = func(context.Context, string) ([]net.IPAddr, error) { return nil, errRefused }
		if got, _, err := n.dial(t, d); got != "10.0.0.2:80" {
			t.Errorf("later: got %q, error %v", got, err)
		}
		n.set(func() { n.names["h"], n.slowness = "10.0.0.1", 0 })
		d.lookup = n.lookup
		if got, _, err := n.dial(t, d); got != "10.0.0.1:80" {
			t.Errorf("at last: got %q, error %v", got, err)
		}
	})
}

// A name that was never found is an error as net's own.
func TestUnknownName(t *testing.T) {
	n := new(network)
	_, _, err := n.dial(t, n.dialer())
	if got, want := err.Error(), "dial tcp: lookup h: no such host"; got != want {
		t.Errorf("got error %q, want %q", got, want)
	}
	if !permanent(err, true) || permanent(err, false) {
		t.Error("it has to be for good at first, and an outage later")
	}
}

// A server can redirect to any number of names. Those used last are remembered, and the
// first, which leads to them.
func TestNamesAreBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n := new(network)
		d := n.dialer()
		host := func(i int) string { return strings.Repeat("h", i+1) }
		for i := range 2 * maxNames {
			n.set(func() { n.names = map[string]string{host(i): "10.0.0.1"} }) // no other is found
			for _, i := range []int{i, min(i, 1)} {                            // the second all the time
				if addrs, err := d.addresses(t.Context(), host(i)); err != nil || len(addrs) != 1 {
					t.Fatalf("got %v, error %v", addrs, err)
				}
			}
		}
		n.set(func() { n.names = nil })
		for i := range 2 * maxNames {
			_, err := d.addresses(t.Context(), host(i))
			if known := err == nil; known != (i < 2 || i >= maxNames+2) {
				t.Errorf("name %d of %d is remembered: %v", i, 2*maxNames, known)
			}
		}
	})
}

// Of several addresses one that answers is enough, and soon.
func TestConnectAny(t *testing.T) {
	const never = time.Minute
	tests := []struct {
		name  string
		addrs string
		hosts map[string]time.Duration
		want  string
		took  time.Duration
		tried []string
	}{
		{"the first answers", "10.0.0.1 10.0.0.2", map[string]time.Duration{"10.0.0.1:80": 0}, "10.0.0.1:80", 0, []string{"10.0.0.1:80"}},
		{"the first refuses", "10.0.0.1 10.0.0.2", map[string]time.Duration{"10.0.0.2:80": 0}, "10.0.0.2:80", 0, []string{"10.0.0.1:80", "10.0.0.2:80"}},
		{
			"the first hangs", "10.0.0.1 10.0.0.2",
			map[string]time.Duration{"10.0.0.1:80": never, "10.0.0.2:80": 0},
			"10.0.0.2:80", headStart,
			[]string{"10.0.0.1:80", "10.0.0.2:80"},
		},
		{
			"the first is slow", "10.0.0.1 10.0.0.2",
			map[string]time.Duration{"10.0.0.1:80": headStart + 10, "10.0.0.2:80": 20},
			"10.0.0.1:80", headStart + 10,
			[]string{"10.0.0.1:80", "10.0.0.2:80"},
		},
		{"the only one is slow", "10.0.0.1", map[string]time.Duration{"10.0.0.1:80": 2 * headStart}, "10.0.0.1:80", 2 * headStart, []string{"10.0.0.1:80"}},
		{
			"the first is slow, the second refuses", "10.0.0.1 10.0.0.2",
			map[string]time.Duration{"10.0.0.1:80": 2 * headStart},
			"10.0.0.1:80", 2 * headStart,
			[]string{"10.0.0.1:80", "10.0.0.2:80"},
		},
		{
			"the first refuses late", "10.0.0.1 10.0.0.2",
			map[string]time.Duration{"10.0.0.1:80": -2 * headStart, "10.0.0.2:80": 0},
			"10.0.0.2:80", headStart,
			[]string{"10.0.0.1:80", "10.0.0.2:80"},
		},
		{
			"families take turns", "fd00::1 fd00::2 fd00::3 10.0.0.1 10.0.0.2",
			map[string]time.Duration{},
			"", 0,
			[]string{"[fd00::1]:80", "10.0.0.1:80", "[fd00::2]:80", "10.0.0.2:80", "[fd00::3]:80"},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				n := &network{names: map[string]string{"h": tt.addrs}, hosts: tt.hosts}
				got, took, err := n.dial(t, n.dialer())
				if got != tt.want || took != tt.took || (err == nil) != (tt.want != "") {
					t.Errorf("got %q after %v, error %v; want %q after %v", got, took, err, tt.want, tt.took)
				}
				if err != nil && !errors.Is(err, errRefused) {
					t.Errorf("got error %v, want that of the first address", err)
				}
				if diff := cmp.Diff(tt.tried, n.tried); diff != "" {
					t.Errorf("tried (-want +got):\n%s", diff)
				}
				time.Sleep(never)
				synctest.Wait()
				if n.open != 0 {
					t.Errorf("%d connections of losers are open", n.open)
				}
			})
		})
	}
}

// A pinned address has to prove that it has the name.
func TestPinnedAddressIsVerified(t *testing.T) {
	certificate := func(name string) *tls.Certificate {
		cert, _, _, err := testserver.Certificate(name, time.Now().Add(time.Hour))
		if err != nil {
			t.Fatal(err)
		}
		return &cert
	}
	good, other := certificate("good.test"), certificate("other.test")
	var shown atomic.Pointer[tls.Certificate]
	ts := httptest.NewUnstartedServer(http.NotFoundHandler())
	ts.Config.ErrorLog = log.New(io.Discard, "", 0)
	ts.TLS = &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return shown.Load(), nil }}
	ts.StartTLS()
	defer ts.Close()
	_, port, err := net.SplitHostPort(ts.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	trust := &tls.Config{RootCAs: x509.NewCertPool()}
	trust.RootCAs.AddCert(good.Leaf)
	trust.RootCAs.AddCert(other.Leaf)

	for _, own := range []bool{false, true} { // whether DialTLSContext is ours
		n := &network{names: map[string]string{"good.test": "127.0.0.1"}}
		d := newDialer(soon, func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			n.set(func() { n.open++ })
			return fakeConn{c, addr, sync.OnceFunc(func() {
				n.set(func() { n.open-- })
				c.Close()
			})}, nil
		})
		d.lookup = n.lookup
		tr := newTransport(1, d)
		tr.TLSClientConfig = trust
		if own {
			tr.DialTLSContext = d.tls(trust)
		}
		steps := []struct {
			name   string
			cert   *tls.Certificate
			lookup string
			trust  bool
		}{
			{"as it should be", good, "127.0.0.1", true},
			{"the name is gone", good, "", true},
			{"another answers there", other, "", false},
		}
		for _, step := range steps { // in this order
			shown.Store(step.cert)
			n.set(func() { n.names["good.test"] = step.lookup })
			tr.CloseIdleConnections()
			resp, err := (&http.Client{Transport: tr}).Get("https://good.test:" + port)
			if err == nil {
				resp.Body.Close()
			}
			if step.trust != (err == nil) || err != nil && !errors.As(err, new(*tls.CertificateVerificationError)) {
				t.Errorf("%s: got error %v", step.name, err)
			}
		}
		tr.CloseIdleConnections()
		open := 1
		for end := time.Now().Add(soon); open > 0 && time.Now().Before(end); time.Sleep(time.Millisecond) {
			n.set(func() { open = n.open })
		}
		if open > 0 {
			t.Errorf("%d connections stay open", open)
		}
	}
}

const soon = 30 * time.Second
