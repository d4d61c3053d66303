package httpblock_test

import (
	"bytes"
	"context"
	"errors"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/httpblock"
)

// moving is a server whose file /f redirects to one of several paths, which can
// be changed.
type moving struct {
	requests
	target  atomic.Value // string
	handler http.HandlerFunc
}

// newMoving returns a server that redirects /f to /a; handler answers the rest.
func (n *network) newMoving(t *testing.T, handler http.HandlerFunc) (m *moving, url string) {
	t.Helper()
	m = &moving{handler: handler}
	m.target.Store("/a")
	return m, n.serve(t, func(w http.ResponseWriter, r *http.Request) {
		m.add(r)
		if r.URL.Path == "/f" {
			http.Redirect(w, r, m.target.Load().(string), http.StatusFound)
			return
		}
		m.handler(w, r)
	}) + "/f"
}

// changed returns data with a byte changed.
func changed(data []byte, off int) []byte {
	other := bytes.Clone(data)
	other[off] ^= 1
	return other
}

// Where a redirect leads to some day is compared with what was read before:
// other validators are adopted, another file is not.
func TestMovedFileIsCompared(t *testing.T) {
	const head = blockio.HeadSize
	data := random(200_000)
	tests := []struct {
		name   string
		etag   string // of the new place
		data   []byte // there
		target string
		pieces bool   // it sends less than it is asked for
		says   string // empty: it is the same file
	}{
		{name: "same file", etag: `"a"`, data: data, target: "/b"},
		{name: "other validators", etag: `"b"`, data: data, target: "/b"},
		{name: "no validators", data: data, target: "/b"},
		{name: "same path", etag: `"b"`, data: data, target: "/a?sig=2"},
		{name: "other size", etag: `"a"`, data: data[:len(data)-1], target: "/b", says: "size 200000 -> 199999"},
		{name: "other head", etag: `"a"`, data: changed(data, head-1), target: "/b", says: "other content"},
		{name: "other head, in pieces", etag: `"a"`, data: changed(data, head-1), target: "/b", pieces: true, says: "other content"},
		{name: "other start of what was read last", etag: `"a"`, data: changed(data, 50_000), target: "/b", says: "other content"},
		{name: "other end of the sample", etag: `"a"`, data: changed(data, 50_000+httpblock.SampleSize-1), target: "/b", says: "other content"},
		{name: "four reads ago", etag: `"b"`, data: changed(data, 30_000), target: "/b", says: "other content"},
		{name: "short read", etag: `"b"`, data: changed(data, 40_009), target: "/b", says: "other content"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			virtual(t, func(t *testing.T, net *network) {
				m, url := net.newMoving(t, func(w http.ResponseWriter, r *http.Request) { content(w, r, data) })
				s := net.open(t, url, httpblock.Options{Timeout: soon})
				readRange(t, s, data, 30_000, 5000)
				readRange(t, s, data, 40_000, 10)
				readRange(t, s, data, 60_000, 5000)
				readRange(t, s, data, 50_000, 5000)
				m.target.Store(tt.target)
				m.handler = func(w http.ResponseWriter, r *http.Request) {
					if r.URL.RequestURI() != tt.target {
						w.WriteHeader(http.StatusForbidden)
						return
					}
					if tt.etag != "" {
						w.Header().Set("ETag", tt.etag)
					}
					if tt.pieces {
						shorten(r, 1000)
					}
					content206(w, r, tt.data)
				}
				got, err := readAt(t.Context(), s, 1000, 150_000)
				if tt.says == "" {
					if err != nil || !bytes.Equal(got, data[150_000:151_000]) {
						t.Fatalf("got %d bytes, error %v", len(got), err)
					}
					m.take()
					readRange(t, s, data, 90_000, 1000)
					seen(t, &m.requests, strings.TrimSuffix(tt.target, "?sig=2"))
					return
				}
				if !errors.Is(err, httpblock.ErrChanged) || !strings.Contains(err.Error(), tt.says) {
					t.Errorf("got %d bytes, error %v, want %v with %q", len(got), err, httpblock.ErrChanged, tt.says)
				}
			})
		})
	}
}

// Validators are not adopted at the place that is known.
func TestSamePlaceIsPinned(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(100_000)
		m, url := net.newMoving(t, func(w http.ResponseWriter, r *http.Request) { content(w, r, data) })
		s := net.open(t, url, httpblock.Options{Timeout: soon})
		m.handler = func(w http.ResponseWriter, r *http.Request) {
			if r.Header.Get("Range") == "bytes=50000-50999" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			w.Header().Set("ETag", `"b"`)
			content206(w, r, data)
		}
		if _, err := readAt(t.Context(), s, 1000, 50_000); !errors.Is(err, httpblock.ErrChanged) || !strings.Contains(err.Error(), `ETag "a" -> "b"`) {
			t.Errorf("got error %v, want %v", err, httpblock.ErrChanged)
		}
	})
}

// Validators that were adopted are pinned: another change is one.
func TestAdoptedValidatorsArePinned(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(100_000)
		var etag atomic.Value
		etag.Store(`"a"`)
		m, url := net.newMoving(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/a" && etag.Load() != `"a"` {
				w.WriteHeader(http.StatusNotFound)
				return
			}
			w.Header().Set("ETag", etag.Load().(string))
			content206(w, r, data)
		})
		s := net.open(t, url, httpblock.Options{Timeout: soon})
		m.target.Store("/b")
		etag.Store(`"b"`)
		readRange(t, s, data, 50_000, 1000)
		if got := s.Adopted(); len(got) != 1 || got[0].Validator != `"b"` || got[0].URL.String() != url {
			t.Errorf("adopted %v, want %s with \"b\"", got, url)
		}
		etag.Store(`"c"`)
		if _, err := readAt(t.Context(), s, 1000, 50_000); !errors.Is(err, httpblock.ErrChanged) {
			t.Errorf("got error %v, want %v", err, httpblock.ErrChanged)
		}
	})
}

// The new place may send less than it is asked for.
func TestMovedToShortAnswers(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(100_000)
		m, url := net.newMoving(t, func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/a" {
				content(w, r, data)
				return
			}
			shorten(r, 1000)
			content(w, r, data)
		})
		old := m.handler
		s := net.open(t, url, httpblock.Options{Timeout: soon})
		readRange(t, s, data, 50_000, 5000)
		m.target.Store("/b")
		m.handler = func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/a" {
				w.WriteHeader(http.StatusGone)
				return
			}
			old(w, r)
		}
		readRange(t, s, data, 60_000, 5000)
		if got := len(m.take()); got != 3+2+9+5+5 { // before; refused; head; sample; range
			t.Errorf("got %d requests, want 24", got)
		}
	})
}

// A server that begins to redirect is followed, and one that ends that.
func TestRedirectBegins(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(100_000)
		var q requests
		var redirects atomic.Bool
		url := net.serve(t, func(w http.ResponseWriter, r *http.Request) {
			q.add(r)
			switch {
			case r.URL.Path == "/f" && redirects.Load():
				http.Redirect(w, r, "/g", http.StatusFound)
			case r.URL.Path == "/g" && !redirects.Load():
				w.WriteHeader(http.StatusNotFound)
			default:
				content(w, r, data)
			}
		})
		s := net.open(t, url+"/f", httpblock.Options{Timeout: soon})
		seen(t, &q, "/f")
		redirects.Store(true)
		readRange(t, s, data, 50_000, 1000)
		seen(t, &q, "/f", "/f", "/g", "/g")
		redirects.Store(false)
		readRange(t, s, data, 60_000, 1000)
		seen(t, &q, "/g", "/f", "/f", "/f") // the head, a sample, and the range
		readRange(t, s, data, 60_000, 1000)
		seen(t, &q, "/f")
	})
}

// Of many that find the file gone one asks for the way.
func TestOneAsksForTheWay(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(100_000)
		const readers = 8
		refused := make(chan struct{}, readers)
		all := make(chan struct{})
		m, url := net.newMoving(t, func(w http.ResponseWriter, r *http.Request) { content(w, r, data) })
		s := net.open(t, url, httpblock.Options{Timeout: soon})
		m.target.Store("/b")
		m.handler = func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/b" {
				content(w, r, data)
				return
			}
			refused <- struct{}{}
			<-all // so that nobody is late
			w.WriteHeader(http.StatusForbidden)
		}
		m.take()
		done := make(chan struct{})
		for range readers {
			go func() {
				defer func() { done <- struct{}{} }()
				readRange(t, s, data, 50_000, 1000)
			}()
		}
		for range readers {
			waitFor(t, "request", refused)
		}
		close(all)
		for range readers {
			<-done
		}
		got := m.take()
		asked := len(slices.DeleteFunc(slices.Clone(got), func(path string) bool { return path != "/f" }))
		if asked != 1 || len(got) != readers+1+1+readers {
			t.Errorf("got requests %q, want one of /f", got)
		}
	})
}

// Whoever waits for the way can leave, also the one that asks for it: then
// another does.
func TestWaitersLeave(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(100_000)
		asked := make(chan struct{}, 10)
		let := make(chan struct{})
		var refused atomic.Int64
		m, url := net.newMoving(t, func(w http.ResponseWriter, r *http.Request) { content(w, r, data) })
		s := net.open(t, url, httpblock.Options{Timeout: 0})
		m.target.Store("/b")
		m.handler = func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/a" {
				refused.Add(1)
				w.WriteHeader(http.StatusForbidden)
				return
			}
			asked <- struct{}{}
			select {
			case <-let:
				content(w, r, data)
			case <-r.Context().Done():
			}
		}
		read := func(ctx context.Context) <-chan error {
			result := make(chan error, 1)
			go func() {
				_, err := readAt(ctx, s, 1000, 50_000)
				result <- err
			}()
			return result
		}
		first, leave := context.WithCancel(t.Context())
		second, leaveToo := context.WithCancel(t.Context())
		one := read(first)
		waitFor(t, "search", asked)
		two, three := read(second), read(t.Context())
		synctest.Wait() // until they wait, too
		leaveToo()
		within(t, func() {
			if err := <-two; !errors.Is(err, context.Canceled) {
				t.Errorf("one that waits: got error %v", err)
			}
		})
		leave()
		within(t, func() {
			if err := <-one; !errors.Is(err, context.Canceled) {
				t.Errorf("the one that asks: got error %v", err)
			}
		})
		waitFor(t, "another search", asked)
		close(let)
		within(t, func() {
			if err := <-three; err != nil {
				t.Errorf("the last: got error %v", err)
			}
		})
		if got := refused.Load(); got != 3 {
			t.Errorf("the old place was asked %d times, want once by each", got)
		}
	})
}

// The server that redirects may be away while all is well where it led to.
func TestWayIsLost(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(100_000)
		var away, fails atomic.Bool
		url := net.serve(t, func(w http.ResponseWriter, r *http.Request) {
			switch {
			case r.URL.Path == "/f" && away.Load():
				w.WriteHeader(http.StatusBadGateway)
			case r.URL.Path == "/f":
				http.Redirect(w, r, "/a", http.StatusFound)
			case fails.CompareAndSwap(true, false):
				panic(http.ErrAbortHandler)
			default:
				content(w, r, data)
			}
		})
		s := net.open(t, url+"/f", httpblock.Options{Timeout: soon})
		away.Store(true)
		fails.Store(true)
		readRange(t, s, data, 50_000, 1000)
	})
}

// A place that is not well is given some time; not so if it asks for more.
func TestIllPlace(t *testing.T) {
	data := random(100_000)
	for name, tt := range map[string]struct {
		retryAfter string
		ill        time.Duration
		want       time.Duration // when the way is asked for; 0: not at all
	}{
		"soon well again": {ill: 4 * time.Second},
		"asks for a time": {retryAfter: "1", ill: 4 * time.Second},
		"ill for long":    {ill: soon, want: 5 * time.Second},
		"asks for much":   {retryAfter: "5", ill: soon, want: 5 * time.Second},
		"asks for more":   {retryAfter: "6", ill: soon, want: 1},
	} {
		t.Run(name, func(t *testing.T) {
			virtual(t, func(t *testing.T, net *network) {
				m, url := net.newMoving(t, func(w http.ResponseWriter, r *http.Request) { content(w, r, data) })
				s := net.open(t, url, httpblock.Options{Timeout: soon})
				begin := time.Now()
				well := m.handler
				m.handler = func(w http.ResponseWriter, r *http.Request) {
					if r.URL.Path == "/a" && time.Since(begin) < tt.ill {
						w.Header().Set("Retry-After", tt.retryAfter)
						w.WriteHeader(http.StatusServiceUnavailable)
						return
					}
					well(w, r)
				}
				m.target.Store("/b")
				m.take()
				readRange(t, s, data, 50_000, 1000)
				if got := slices.Contains(m.take(), "/f"); got != (tt.want > 0) {
					t.Errorf("the way was asked for: %v, want it after %v", got, tt.want)
				}
				// An ill place is asked every two seconds or so.
				if took := time.Since(begin); tt.want > 0 && (took < tt.want-1 || took > tt.want+3*time.Second) {
					t.Errorf("the way was asked for after %v, want %v", took, tt.want)
				}
			})
		})
	}
}

// A place that is ill now and then is well in between.
func TestPlaceRecovers(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(100_000)
		m, url := net.newMoving(t, func(w http.ResponseWriter, r *http.Request) { content(w, r, data) })
		s := net.open(t, url, httpblock.Options{Timeout: soon})
		const illTime = 5 * time.Second
		well := m.handler
		var ill atomic.Bool
		m.handler = func(w http.ResponseWriter, r *http.Request) {
			if ill.CompareAndSwap(true, false) {
				w.WriteHeader(http.StatusBadGateway)
				return
			}
			well(w, r)
		}
		m.take()
		for range 2 {
			ill.Store(true)
			readRange(t, s, data, 50_000, 1000)
			time.Sleep(illTime)
		}
		seen(t, &m.requests, "/a", "/a", "/a", "/a")
	})
}

// Bytes that were no good are no measure of what is the same file.
func TestRefetchedIsForgotten(t *testing.T) {
	virtual(t, func(t *testing.T, net *network) {
		data := random(100_000)
		bad := changed(data, 50_010)
		var q requests
		m, url := net.newMoving(t, func(w http.ResponseWriter, r *http.Request) {
			if q.add(r) == 1 {
				content(w, r, bad)
				return
			}
			content(w, r, data)
		})
		s := net.open(t, url, httpblock.Options{Timeout: soon})
		readRange(t, s, bad, 50_000, 1000)
		refetch(t, s, data, 50_000, 1000)
		m.target.Store("/b")
		m.handler = func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/a" {
				w.WriteHeader(http.StatusForbidden)
				return
			}
			content(w, r, data)
		}
		readRange(t, s, data, 60_000, 1000)
	})
}
