package testserver_test

import (
	"bytes"
	"errors"
	"net/http"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/internal/testserver"
)

// In memory a server is what it is on a port, and its time can be virtual.
func TestNetwork(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		content := pattern(1_000_000)
		var n testserver.Network
		s := n.New()
		defer s.Close()
		s.AddBytes("f", content)
		s.Set(func(c *testserver.Config) { c.RTT, c.Rate = time.Second, 250_000 })
		tr := &http.Transport{DialContext: n.DialContext}
		defer tr.CloseIdleConnections()
		begin := time.Now()
		if _, body := get(t, &http.Client{Transport: tr}, s.URL("f")); !bytes.Equal(body, content) {
			t.Errorf("got %d bytes that are not the file's", len(body))
		}
		// Two round trips, and four seconds but for what may be caught up with.
		if took := time.Since(begin).Round(100 * time.Millisecond); took != 6*time.Second {
			t.Errorf("took %v", took)
		}
		other, end := n.Serve(http.NotFoundHandler())
		if resp, _ := get(t, &http.Client{Transport: tr}, other); resp.StatusCode != http.StatusNotFound {
			t.Errorf("the other answered %s", resp.Status)
		}
		end()
		tr.CloseIdleConnections()
		for _, url := range []string{other, "http://192.0.2.9:80"} {
			if _, _, err := request(t, &http.Client{Transport: tr}, http.MethodGet, url); !errors.Is(err, syscall.ECONNREFUSED) {
				t.Errorf("got error %v, want %v", err, syscall.ECONNREFUSED)
			}
		}
	})
}
