//go:build integration

package test

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"

	"golang.org/x/net/dns/dnsmessage"
)

// nameServer knows one name, origin.test, as long as it is told to.
type nameServer struct {
	addr net.IP
	conn net.PacketConn
	mode atomic.Int32 // a nameMode
}

// nameMode is how a name server answers.
type nameMode int32

const (
	nameKnown nameMode = iota
	noSuchName
	nameServerFailure
	noAnswer
)

// nameServers numbers those that there were: each has an address of its own, since
// resolv.conf(5) knows no ports.
var nameServers atomic.Uint32

func newNameServer(t *testing.T) *nameServer {
	t.Helper()
	s := &nameServer{addr: net.IPv4(127, 53, 0, byte(nameServers.Add(1)))}
	var err error
	if s.conn, err = net.ListenPacket("udp", net.JoinHostPort(s.addr.String(), "53")); err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		s.serve()
	}()
	t.Cleanup(func() {
		s.conn.Close()
		<-done
	})
	return s
}

// serve answers until the connection is closed.
func (s *nameServer) serve() {
	query := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(query)
		if err != nil {
			return
		}
		if mode := nameMode(s.mode.Load()); mode != noAnswer {
			if answer, err := mode.answer(query[:n]); err == nil {
				_, _ = s.conn.WriteTo(answer, from) // who asked will ask again
			}
		}
	}
}

func (mode nameMode) answer(query []byte) ([]byte, error) {
	var p dnsmessage.Parser
	asked, err := p.Start(query)
	if err != nil {
		return nil, err
	}
	q, err := p.Question()
	if err != nil {
		return nil, err
	}
	m := dnsmessage.Message{
		Header:    dnsmessage.Header{ID: asked.ID, Response: true, RecursionDesired: true, RecursionAvailable: true},
		Questions: []dnsmessage.Question{q},
	}
	switch {
	case mode == nameServerFailure:
		m.RCode = dnsmessage.RCodeServerFailure
	case mode == noSuchName, q.Name.String() != "origin.test.":
		m.RCode = dnsmessage.RCodeNameError
	case q.Type == dnsmessage.TypeA:
		m.Answers = []dnsmessage.Resource{{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Class: dnsmessage.ClassINET},
			Body:   &dnsmessage.AResource{A: [4]byte{127, 0, 0, 1}},
		}}
	}
	return m.Pack()
}

// byName serves the image by a name of the host, on a machine that asks a name server
// of its own.
func byName(t *testing.T, s *synthetic) *origin {
	o := plainly(t, s)
	o.names = newNameServer(t)
	o.url = strings.Replace(o.url, "127.0.0.1", "origin.test", 1)
	o.on = newMachine(t)
	conf := filepath.Join(t.TempDir(), "resolv.conf")
	if err := os.WriteFile(conf, fmt.Appendf(nil, "nameserver %v\n", o.names.addr), 0o644); err != nil {
		t.Fatal(err)
	}
	o.on.must(t, "mount", "--bind", conf, "/etc/resolv.conf")
	return o
}

// nameFails has the name server answer otherwise, and the image's server ask for new
// connections.
func nameFails(mode nameMode) func(*testing.T, *origin) {
	return func(t *testing.T, o *origin) {
		o.names.mode.Store(int32(mode))
		down(t, o)
		up(t, o)
	}
}
