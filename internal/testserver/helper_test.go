package testserver_test

import (
	"context"
	"io"
	"net/http"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// soon is how long to wait for what should happen at once, before giving up.
const soon = 30 * time.Second

func newServer(t *testing.T) *testserver.Server {
	t.Helper()
	s, err := testserver.New()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
	return s
}

// newClient returns a client with connections of its own. A new connection is
// also one on which the transport does not repeat a failed request by itself.
func newClient(t *testing.T) *http.Client {
	tr := &http.Transport{}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr}
}

// pattern returns n bytes, neighbours of which differ.
func pattern(n int) []byte {
	p := make([]byte, n)
	for i := range p {
		p[i] = byte(i + i/251)
	}
	return p
}

// start sends a request and returns as soon as the headers are there. header
// holds pairs of names and values.
func start(ctx context.Context, c *http.Client, method, url string, header ...string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, nil)
	if err != nil {
		return nil, err
	}
	for i := 0; i < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	return c.Do(req)
}

// request also reads the body; the error is that of the headers or of the body.
func request(t *testing.T, c *http.Client, method, url string, header ...string) (*http.Response, []byte, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), soon)
	defer cancel()
	resp, err := start(ctx, c, method, url, header...)
	if err != nil {
		return nil, nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return resp, body, err
}

// get makes a request that must not fail.
func get(t *testing.T, c *http.Client, url string, header ...string) (*http.Response, []byte) {
	t.Helper()
	resp, body, err := request(t, c, http.MethodGet, url, header...)
	if err != nil {
		t.Fatal(err)
	}
	return resp, body
}

// eventually waits until cond holds.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(soon); !cond(); time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("gave up waiting: %s", what)
		}
	}
}
