package line

import (
	"bytes"
	"context"
	"io"
	"log/slog"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/cloop/clooptest"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/units"
	"github.com/cloopfs/cloopfs/profile"
)

// profiledServer serves an image with answer as what lies beside it, and opens lines
// to it.
type profiledServer struct {
	url    string
	image  []byte
	answer http.HandlerFunc
	asked  int // for the profile
	opt    Options
}

func newProfiledServer(t *testing.T) *profiledServer {
	s := &profiledServer{image: clooptest.Build(bytes.Repeat([]byte("disk "), 200_000), 65536)}
	s.url = serve(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("ETag", `"x"`)
		if strings.HasSuffix(r.URL.Path, ".profile") {
			s.asked++
			s.answer(w, r)
			return
		}
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.image))
	}) + "/image"
	s.opt = Options{Connections: 1, Format: formatAuto, Timeout: units.Duration(time.Second)}
	s.opt.Cache = CacheOptions{Dir: cli.Name(t.TempDir() + "/cache"), Size: 1 << 30}
	return s
}

// beside is the URL of the profile that lies beside the image.
const beside = ""

// replay mounts the image, as far as its profile goes, and returns what is logged.
func (s *profiledServer) replay(t *testing.T, from string) string {
	t.Helper()
	l, err := Open(t.Context(), Location{URL: s.url}, s.opt, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var logged strings.Builder
	l.ReplayRemote(t.Context(), from, s.opt, slog.New(slog.NewTextHandler(&logged, nil)))
	return logged.String()
}

// profile is one of the image, or of another.
func (s *profiledServer) profile(t *testing.T, identity string) []byte {
	t.Helper()
	l, err := Open(t.Context(), Location{URL: s.url}, s.opt, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	p := profile.Profile{Runs: []profile.Run{{First: 3, Count: 2}}}
	if p.Image, err = l.profiled(t.Context()); err != nil {
		t.Fatal(err)
	}
	if identity != "" {
		p.Image.Identity = identity
	}
	var out bytes.Buffer
	if err := p.Write(&out); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// What a server has said of a profile beside an image is remembered, and told once; what
// it could not say is asked again.
func TestProfileBeside(t *testing.T) {
	content := func(p []byte) http.HandlerFunc {
		return func(w http.ResponseWriter, r *http.Request) {
			http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(p))
		}
	}
	status := func(code int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(code) }
	}
	html := "<!DOCTYPE html><p>Not here."
	const used, unused = "fetching what the profile says", "the profile is not used"
	tests := []struct {
		name        string
		answer      func(s *profiledServer) http.HandlerFunc
		first, then string // in the log; empty: nothing is
		asked       int    // by three mounts
	}{
		{"there", func(s *profiledServer) http.HandlerFunc { return content(s.profile(t, "")) }, used, used, 1},
		{"of another image", func(s *profiledServer) http.HandlerFunc { return content(s.profile(t, "x")) }, unused, unused, 1},
		{"404", func(*profiledServer) http.HandlerFunc { return status(404) }, "", "", 1},
		{"403", func(*profiledServer) http.HandlerFunc { return status(403) }, "", "", 1},
		{"garbage", func(*profiledServer) http.HandlerFunc { return content([]byte("garbage")) }, unused, "", 1},
		{"cut off", func(s *profiledServer) http.HandlerFunc { return content(s.profile(t, "")[:50]) }, unused, "", 1},
		{"too large", func(*profiledServer) http.HandlerFunc { return content(make([]byte, profile.MaxSize+1)) }, unused, "", 1},
		{"a page", func(*profiledServer) http.HandlerFunc {
			return func(w http.ResponseWriter, _ *http.Request) { _, _ = io.WriteString(w, html) }
		}, unused, "", 1},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			s := newProfiledServer(t)
			s.answer = test.answer(s)
			for i, want := range []string{test.first, test.then, test.then} {
				got := s.replay(t, beside)
				if want == "" && got != "" || !strings.Contains(got, want) || strings.Count(got, "\n") > 1 {
					t.Errorf("mount %d logs %q, want one line with %q", i+1, got, want)
				}
			}
			if s.asked != test.asked {
				t.Errorf("the server was asked %d times, want %d", s.asked, test.asked)
			}
		})
	}
	t.Run("503, then there", func(t *testing.T) {
		s := newProfiledServer(t)
		s.answer = status(503)
		if got := s.replay(t, beside); !strings.Contains(got, unused) || strings.Count(got, unused) > 1 {
			t.Errorf("logged is %q", got)
		}
		s.answer = content(s.profile(t, ""))
		if got := s.replay(t, beside); !strings.Contains(got, used) {
			t.Errorf("logged is %q, want it to be asked for again", got)
		}
	})
	t.Run("without a cache", func(t *testing.T) {
		s := newProfiledServer(t)
		s.opt.Cache.Size = 0
		s.answer = content(s.profile(t, ""))
		for range 2 {
			if got := s.replay(t, beside); !strings.Contains(got, used) {
				t.Errorf("logged is %q", got)
			}
		}
		if s.asked != 2 {
			t.Errorf("the server was asked %d times, want 2", s.asked)
		}
	})
	t.Run("kept, and damaged", func(t *testing.T) {
		s := newProfiledServer(t)
		s.answer = content(s.profile(t, ""))
		s.replay(t, beside)
		l, err := Open(t.Context(), Location{URL: s.url}, s.opt, 0, slog.New(slog.DiscardHandler))
		if err != nil {
			t.Fatal(err)
		}
		if err := l.file.cached.entry.SetBeside(s.url+".profile", []byte("cloopfs")); err != nil {
			t.Fatal(err)
		}
		l.Close()
		if got := s.replay(t, beside); !strings.Contains(got, used) || s.asked != 2 {
			t.Errorf("logged is %q after %d requests, want it to be asked for again", got, s.asked)
		}
	})
}

// One that is asked for by its URL is asked for each time, and on another server
// without what is the image's.
func TestProfileURL(t *testing.T) {
	s := newProfiledServer(t)
	s.opt.Access.Header = http.Header{"X-Secret": {"geheim"}}
	var secret string
	s.answer = func(w http.ResponseWriter, r *http.Request) {
		secret = r.Header.Get("X-Secret")
		http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(s.profile(t, "")))
	}
	other := serve(t, func(w http.ResponseWriter, r *http.Request) { s.answer(w, r) })
	for from, want := range map[string]string{s.url + ".profile": "geheim", other + "/x.profile": ""} {
		if got := s.replay(t, from); !strings.Contains(got, "fetching what the profile says") {
			t.Errorf("%s: logged is %q", from, got)
		}
		if secret != want {
			t.Errorf("%s was told %q, want %q", from, secret, want)
		}
	}
}

// A profile that is being looked for keeps nobody from ending.
func TestProfileAbandoned(t *testing.T) {
	s := newProfiledServer(t)
	ctx, cancel := context.WithCancel(t.Context())
	s.opt.Timeout = 0
	s.answer = func(_ http.ResponseWriter, r *http.Request) {
		cancel()
		<-r.Context().Done()
	}
	l, err := Open(ctx, Location{URL: s.url}, s.opt, 0, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var logged strings.Builder
	l.ReplayRemote(ctx, beside, s.opt, slog.New(slog.NewTextHandler(&logged, nil)))
	if logged.Len() > 0 {
		t.Errorf("logged is %q", logged.String())
	}
}
