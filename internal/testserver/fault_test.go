package testserver_test

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"syscall"
	"testing"

	"github.com/cloopfs/cloopfs/internal/testserver"
	"github.com/google/go-cmp/cmp"
)

func TestFlip(t *testing.T) {
	content := pattern(100_000)
	flipped := bytes.Clone(content)
	flipped[50_000] ^= 1
	s := newServer(t)
	s.AddBytes("f", content)
	s.Set(func(c *testserver.Config) { c.FlipOffset, c.FlipTimes = 50_000, 2 })
	c := newClient(t)
	steps := []struct {
		name, rng string
		want      []byte
	}{
		{"before it", "bytes=0-49999", content[:50_000]},
		{"after it", "bytes=50001-", content[50_001:]},
		{"around it", "bytes=40000-59999", flipped[40_000:60_000]},
		{"whole file", "", flipped},
		{"no more", "", content},
	}
	for _, step := range steps { // on one server, in this order
		if _, body := get(t, c, s.URL("f"), "Range", step.rng); !bytes.Equal(body, step.want) {
			t.Errorf("%s: got a wrong body", step.name)
		}
	}
	if content[50_000] == flipped[50_000] {
		t.Error("the file itself was changed")
	}
}

func TestTruncate(t *testing.T) {
	content := pattern(100_000)
	for _, cfg := range []testserver.Config{{}, {Rate: 100_000_000}, {Rate: 100_000_000, Buffer: 30_000}} {
		s := newServer(t)
		s.AddBytes("f", content)
		cfg.Truncate = 1
		s.Set(func(c *testserver.Config) { *c = cfg })
		c := newClient(t)
		// Has no body, so is not counted.
		if resp, _, err := request(t, c, http.MethodHead, s.URL("f")); err != nil || resp.StatusCode != 200 {
			t.Fatalf("HEAD: got error %v", err)
		}
		resp, body, err := request(t, c, http.MethodGet, s.URL("f"), "Range", "bytes=20000-59999")
		if !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Errorf("got error %v, want an unexpected EOF", err)
		}
		if resp.ContentLength != 40_000 || !bytes.Equal(body, content[20_000:40_000]) {
			t.Errorf("got %d bytes of %d, want 20000 of 40000", len(body), resp.ContentLength)
		}
		if _, body := get(t, c, s.URL("f")); !bytes.Equal(body, content) {
			t.Error("the next response is cut as well")
		}
		want := testserver.Stats{Requests: 3, Bytes: 120_000, Conns: 2, Ranges: []testserver.Range{
			{Name: "f", Len: -1, Status: 200},
			{Name: "f", Off: 20_000, Len: 40_000, Status: 206, Sent: 20_000},
			{Name: "f", Len: -1, Status: 200, Sent: 100_000},
		}}
		if diff := cmp.Diff(want, s.Stats()); diff != "" {
			t.Errorf("stats (-want +got):\n%s", diff)
		}
	}
}

func TestReset(t *testing.T) {
	s := newServer(t)
	s.AddBytes("f", pattern(10))
	s.Set(func(c *testserver.Config) { c.Reset = 2 })
	c := newClient(t)
	for i := range 2 {
		if _, _, err := request(t, c, http.MethodGet, s.URL("f")); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("request %d: got error %v, want a connection reset", i, err)
		}
	}
	get(t, c, s.URL("f"))
	if got := s.Stats(); got.Requests != 3 || got.Ranges[0].Status != 0 || got.Ranges[2].Status != 200 {
		t.Errorf("got %+v, want 3 requests, 2 without an answer", got)
	}
}

func TestStatus(t *testing.T) {
	tests := []struct {
		name       string
		cfg        testserver.Config
		want       []int // of three requests
		retryAfter string
	}{
		{name: "once", cfg: testserver.Config{StatusTimes: 1, Status: 500}, want: []int{500, 200, 200}},
		{name: "Retry-After", cfg: testserver.Config{StatusTimes: 2, Status: 429, RetryAfter: "7"}, want: []int{429, 429, 200}, retryAfter: "7"},
		{name: "503 is the default", cfg: testserver.Config{StatusTimes: 1}, want: []int{503, 200, 200}},
		{name: "negative is for ever", cfg: testserver.Config{StatusTimes: -1}, want: []int{503, 503, 503}},
		{name: "no times", cfg: testserver.Config{Status: 500, RetryAfter: "7"}, want: []int{200, 200, 200}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newServer(t)
			s.AddBytes("f", pattern(10))
			s.Set(func(c *testserver.Config) { *c = tt.cfg })
			c := newClient(t)
			for i, want := range tt.want {
				resp, _ := get(t, c, s.URL("f"))
				if resp.StatusCode != want {
					t.Errorf("request %d: got status %d, want %d", i, resp.StatusCode, want)
				}
				retryAfter := tt.retryAfter
				if want == 200 {
					retryAfter = ""
				}
				if got := resp.Header.Get("Retry-After"); got != retryAfter {
					t.Errorf("request %d: got Retry-After %q, want %q", i, got, retryAfter)
				}
			}
		})
	}
}

func TestIgnoreRange(t *testing.T) {
	content := pattern(100)
	s := newServer(t)
	s.AddBytes("f", content)
	s.Set(func(c *testserver.Config) { c.IgnoreRange = true })
	resp, body := get(t, newClient(t), s.URL("f"), "Range", "bytes=10-19")
	if resp.StatusCode != 200 || !bytes.Equal(body, content) {
		t.Errorf("got %s with %d bytes, want 200 with all", resp.Status, len(body))
	}
	if got := resp.Header.Get("Accept-Ranges"); got != "" {
		t.Errorf("got Accept-Ranges %q, want none", got)
	}
	want := []testserver.Range{{Name: "f", Off: 10, Len: 10, Status: 200, Sent: 100}}
	if diff := cmp.Diff(want, s.Stats().Ranges); diff != "" {
		t.Errorf("ranges (-want +got):\n%s", diff)
	}
}

func TestValidators(t *testing.T) {
	s := newServer(t)
	s.AddBytes("f", pattern(100))
	c := newClient(t)
	plain, _ := get(t, c, s.URL("f"))
	own, date := plain.Header.Get("ETag"), plain.Header.Get("Last-Modified")
	tests := []struct {
		name       string
		cfg        testserver.Config
		etag, date string
	}{
		{"ETag", testserver.Config{ETag: `"other"`}, `"other"`, date},
		{"NoETag", testserver.Config{NoETag: true, ETag: `"other"`}, "", date},
		{"NoLastModified", testserver.Config{NoLastModified: true}, own, ""},
	}
	for _, tt := range tests {
		s.Set(func(c *testserver.Config) { *c = tt.cfg })
		resp, _ := get(t, c, s.URL("f"), "Range", "bytes=1-2")
		if got := resp.Header.Get("ETag"); got != tt.etag {
			t.Errorf("%s: got ETag %q, want %q", tt.name, got, tt.etag)
		}
		if got := resp.Header.Get("Last-Modified"); got != tt.date {
			t.Errorf("%s: got Last-Modified %q, want %q", tt.name, got, tt.date)
		}
	}
}
