package httpblock_test

import (
	"context"
	"io"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/httpblock"
)

// forgetful is a line on which connections are dead, without a word, once they have been
// forgotten: a router between has begun anew, or the client has another address.
type forgetful struct {
	forgotten atomic.Int64 // the connections up to this one
	made      atomic.Int64
	connect   func(ctx context.Context, network, addr string) (net.Conn, error)
}

func (f *forgetful) DialContext(ctx context.Context, network, addr string) (net.Conn, error) {
	c, err := f.connect(ctx, network, addr)
	if err != nil {
		return nil, err
	}
	ctx, cancel := context.WithCancel(context.Background())
	return &forgettable{c, f, f.made.Add(1), ctx, cancel}, nil
}

type forgettable struct {
	net.Conn
	line   *forgetful
	number int64
	closed context.Context
	close  context.CancelFunc
}

func (c *forgettable) dead() bool { return c.number <= c.line.forgotten.Load() }

func (c *forgettable) Write(p []byte) (int, error) {
	if c.dead() {
		return len(p), nil // and nobody answers
	}
	return c.Conn.Write(p)
}

func (c *forgettable) Read(p []byte) (int, error) {
	if c.dead() {
		<-c.closed.Done()
	}
	return c.Conn.Read(p)
}

func (c *forgettable) Close() error {
	c.close()
	return c.Conn.Close()
}

// Connections that were kept and are dead cost one wait, however many they are.
func TestDeadConnections(t *testing.T) {
	const readers = 8
	data := random(100_000)
	for _, began := range []bool{false, true} { // whether there is an answer that breaks off
		virtual(t, func(t *testing.T, net *network) {
			var waiting sync.WaitGroup
			waiting.Add(readers)
			together := sync.OnceFunc(waiting.Wait)
			var arrived atomic.Int64
			url := net.serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.Header.Get("Range") == "bytes=50000-50099" && arrived.Add(1) <= readers {
					waiting.Done()
					together()
				}
				content(w, r, data)
			})
			line := &forgetful{connect: net.memory.DialContext}
			s := open(t, url, httpblock.Through(httpblock.Options{Timeout: 30 * time.Second}, line.DialContext))
			var all sync.WaitGroup
			for range readers {
				all.Go(func() { readRange(t, s, data, 50_000, 100) })
			}
			all.Wait()
			first := openRange(t, s, 0, 100_000)
			if began {
				if _, err := io.ReadFull(first, make([]byte, 100)); err != nil {
					t.Fatal(err)
				}
			} else {
				first.Close()
			}
			made := line.made.Load()
			line.forgotten.Store(made)
			begin := time.Now()
			if began {
				if _, err := io.Copy(io.Discard, first); err != nil {
					t.Error(err)
				}
			} else {
				readRange(t, s, data, 1000, 100)
			}
			if took := time.Since(begin); took < 10*time.Second || took > 11*time.Second {
				t.Errorf("the first read took %v, want a third of the timeout and a pause", took)
			}
			begin = time.Now()
			readRange(t, s, data, 2000, 100)
			if took, more := time.Since(begin), line.made.Load()-made; took > 0 || more != 1 {
				t.Errorf("the next read took %v, and %d connections were made since; want no time and one", took, more)
			}
		})
	}
}
