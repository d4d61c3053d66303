package httpblock_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/internal/testserver"
)

// Who sends wrong bytes is named, and not asked again.
func TestMirrorWithWrongBytes(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(1_000_000)
		a, b := net.newServer(t, data), net.newServer(t, data)
		s := net.mirrors(t, data, a.URL("f"), b.URL("f"))
		b.Set(func(c *testserver.Config) { c.RTT = 20 * time.Millisecond })
		a.Set(func(c *testserver.Config) { c.FlipTimes, c.FlipOffset = 1, 600_500 })
		e := blockio.Extent{Off: 600_000, Len: 1000}
		got, err := io.ReadAll(openRange(t, s, e.Off, e.Len))
		if err != nil || bytes.Equal(got, data[e.Off:e.End()]) {
			t.Fatalf("got the right bytes (error %v): it was to be damaged", err)
		}
		refetch(t, s, data, e.Off, e.Len)
		if n := b.Stats().Ranges; n[len(n)-1].Off != e.Off {
			t.Errorf("it was not asked for elsewhere: %v", n)
		}
		s.Blame(e)
		awaitState(t, s, 0, blockio.ServerBanned)
		before := a.Stats().Requests
		for i := range int64(50) {
			readRange(t, s, data, i*10_000, 1000)
		}
		if n := a.Stats().Requests - before; n != 0 {
			t.Errorf("asked %d times after that", n)
		}
		if st := s.Servers()[0]; st.LastError != "it has sent wrong bytes" {
			t.Errorf("named as %+v", st)
		}
		// The last one stays, whatever it sends.
		refetch(t, s, data, e.Off, e.Len)
		s.Blame(e)
		readRange(t, s, data, 0, 1000)
	})
}

// Who was left and has another file by now is banned, but not the last that may be asked:
// what fails then is the read.
func TestLeftServerHasAnotherFile(t *testing.T) {
	for _, alone := range []bool{false, true} {
		virtual(t, func(t *testing.T, net *network) {
			data := random(100_000)
			a, b := net.newServer(t, data), net.newServer(t, data)
			if alone {
				b.Close()
			}
			a.Set(func(c *testserver.Config) { c.ETag = `"a"` })
			s := net.open(t, a.URL("f"), httpblock.Options{Mirrors: []string{b.URL("f")}})
			s.Join([]blockio.Piece{{Off: 50_000, Bytes: data[50_000:54_096]}})
			time.Sleep(time.Second)
			a.Set(func(c *testserver.Config) { c.StatusTimes = 1 })
			readRange(t, s, data, 60_000, 1000)
			other := bytes.Clone(data)
			for i := range other {
				other[i] ^= 1
			}
			a.AddBytes("f", other)
			a.Set(func(c *testserver.Config) { c.StatusTimes = 1 })
			for i := range int64(30) {
				if got, err := readAt(t.Context(), s, 1000, 60_000+1000*i); err != nil || len(got) != 1000 {
					t.Errorf("got %d bytes, error %v", len(got), err)
				}
				time.Sleep(time.Second)
			}
			if got := s.Servers()[0].State; got == blockio.ServerBanned == alone {
				t.Errorf("alone is %v: it is %s", alone, got)
			}
		})
	}
}

// It is told once that a mirror can't be used, and when it can; not at the end.
func TestMirrorIsTold(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(100_000)
		a, b, c := net.newServer(t, data), net.newServer(t, data), net.newServer(t, data)
		b.Set(func(c *testserver.Config) { c.StatusTimes = -1 })
		c.Set(func(c *testserver.Config) { c.RTT = time.Hour })
		log := new(buffer)
		s := net.open(t, a.URL("f"), httpblock.Options{
			Mirrors: []string{b.URL("f"), c.URL("f")}, Logger: slog.New(slog.NewTextHandler(log, nil)),
		})
		s.Join(nil)
		check := func(want ...string) {
			t.Helper()
			var got []string
			for line := range strings.Lines(log.String()) {
				_, msg, _ := strings.Cut(line, "msg=")
				msg, _, _ = strings.Cut(msg, " error=")
				got = append(got, strings.TrimSpace(msg))
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("log (-want +got):\n%s", diff)
			}
		}
		not := `"a mirror can't be used yet" url=` + b.URL("f")
		time.Sleep(2 * time.Second)
		check(not)
		b.Set(func(c *testserver.Config) { c.StatusTimes = 0 })
		time.Sleep(3 * time.Second)
		s.Close()
		check(not, `"using a mirror" url=`+b.URL("f"))
	})
}

// A server that drips is not waited for where another can open the file; else it is.
func TestDripAtFirst(t *testing.T) {
	data := random(100_000)
	drips := func(pause time.Duration) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) { content(&dripping{w, r, 300, pause}, r, data) }
	}
	virtual(t, func(t *testing.T, net *network) {
		begin := time.Now()
		net.open(t, net.serve(t, drips(time.Second/2)), httpblock.Options{Mirrors: []string{net.newServer(t, data).URL("f")}})
		if took := time.Since(begin); took != 4*time.Second {
			t.Errorf("the mirror was asked after %v, want four times a second of silence", took)
		}
	})
	virtual(t, func(t *testing.T, net *network) {
		url := net.serve(t, drips(2*time.Second))
		begin := time.Now()
		net.open(t, url, httpblock.Options{})
		if took := time.Since(begin); took < 50*time.Second || took > time.Minute {
			t.Errorf("the only one has opened the file after %v", took)
		}
	})
}

// What a reader does between two reads is no fault of the server.
func TestSlowReaderLeavesNobody(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(4_000_000)
		a, b := net.newServer(t, data), net.newServer(t, data)
		s := net.mirrors(t, data, a.URL("f"), b.URL("f"))
		body := openRange(t, s, 100_000, 3_800_000)
		if _, err := io.ReadFull(body, make([]byte, 100_000)); err != nil {
			t.Fatal(err)
		}
		time.Sleep(1500 * time.Millisecond)
		if got, err := io.ReadAll(body); err != nil || !bytes.Equal(got, data[200_000:3_900_000]) {
			t.Errorf("got %d bytes, error %v", len(got), err)
		}
		for i, st := range s.Servers() {
			if st.State != blockio.ServerOK || st.Failed > 0 {
				t.Errorf("server %d: %+v", i, st)
			}
		}
	})
}

// One reader's end of patience, or his own, says nothing of servers that were not asked; and of
// three the last is asked in time.
func TestPatienceIsShared(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(1_000_000)
		var servers []*testserver.Server
		var urls []string
		for range 3 {
			srv := net.newServer(t, data)
			servers, urls = append(servers, srv), append(urls, srv.URL("f"))
		}
		s := net.open(t, urls[0], httpblock.Options{Mirrors: urls[1:], Timeout: 2 * time.Second})
		s.Join([]blockio.Piece{{Off: 50_000, Bytes: data[50_000:54_096]}})
		awaitState(t, s, 1, blockio.ServerOK)
		awaitState(t, s, 2, blockio.ServerOK)
		ctx, cancel := context.WithTimeout(t.Context(), 100*time.Millisecond)
		defer cancel()
		for _, srv := range servers {
			srv.Set(func(c *testserver.Config) { c.Hang = testserver.HangBeforeHeaders })
		}
		if _, err := readAt(ctx, s, 1000, 60_000); !errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("got error %v, want %v", err, context.DeadlineExceeded)
		}
		for i := range servers {
			awaitState(t, s, i, blockio.ServerOK)
		}
		servers[2].Set(func(c *testserver.Config) { c.Hang = testserver.HangNone })
		readRange(t, s, data, 70_000, 1000)
		awaitState(t, s, 2, blockio.ServerOK)

		opened := make(chan struct{})
		go func() {
			defer close(opened)
			net.open(t, urls[0], httpblock.Options{Mirrors: urls[1:], Timeout: 2 * time.Second})
		}()
		waitFor(t, "opened by the third", opened)
	})
}

// A server that wants to be left alone for a minute keeps nobody from another.
func TestRetryAfterOfOneServer(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(100_000)
		a, b := net.newServer(t, data), net.newServer(t, data)
		s := net.mirrors(t, data, a.URL("f"), b.URL("f"))
		a.Set(func(c *testserver.Config) { c.StatusTimes, c.RetryAfter = -1, "60" })
		b.Set(func(c *testserver.Config) { c.StatusTimes = 1 })
		before := a.Stats().Requests
		if d := within(t, func() { readRange(t, s, data, 60_000, 1000) }); d > 5*time.Second {
			t.Errorf("it took %v", d)
		}
		time.Sleep(2500 * time.Millisecond)
		if n := a.Stats().Requests - before; n > 3 {
			t.Errorf("asked %d times, while it wants to be left alone", n)
		}
	})
}

// Servers that are all slow to answer are waited for, once that is known.
func TestSlowServersAreWaitedFor(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(1_000_000)
		a, b := net.newServer(t, data), net.newServer(t, data)
		s := net.mirrors(t, data, a.URL("f"), b.URL("f"))
		for _, srv := range []*testserver.Server{a, b} {
			srv.Set(func(c *testserver.Config) { c.RTT = 1200 * time.Millisecond })
		}
		readRange(t, s, data, 100_000, 1000)
		before := a.Stats().Requests + b.Stats().Requests
		const reads = 3
		for i := range int64(reads) {
			readRange(t, s, data, 200_000+10_000*i, 1000)
		}
		if n := a.Stats().Requests + b.Stats().Requests - before; n > reads+3 { // and to see how a server is
			t.Errorf("%d requests for %d reads", n, reads)
		}
	})
}
