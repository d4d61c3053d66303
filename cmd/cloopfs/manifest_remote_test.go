package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/internal/cli"
)

// web is a server of the files of a signed image that can be told to misbehave.
type web struct {
	*httptest.Server
	s *signed

	mu       sync.Mutex
	flips    map[string]int64 // file: at which offset a bit is flipped, once
	down     bool
	untold   bool           // it does not say which version of a file it sends
	requests map[string]int // by file
	headers  http.Header    // of the last request
}

func newWeb(t *testing.T, s *signed) *web {
	w := &web{s: s, flips: make(map[string]int64), requests: make(map[string]int)}
	w.Server = httptest.NewServer(w)
	t.Cleanup(w.Close)
	return w
}

func (w *web) ServeHTTP(out http.ResponseWriter, r *http.Request) {
	w.mu.Lock()
	defer w.mu.Unlock()
	name := strings.TrimPrefix(r.URL.Path, "/")
	w.requests[name]++
	if w.untold {
		out = untold{out}
	}
	w.headers = r.Header
	content, err := os.ReadFile(w.s.path(name))
	if w.down || err != nil {
		http.Error(out, "", map[bool]int{true: http.StatusServiceUnavailable, false: http.StatusNotFound}[w.down])
		return
	}
	if off, ok := w.flips[name]; ok {
		rec := httptest.NewRecorder()
		content[off] ^= 1
		flipped := bytes.Clone(content)
		content[off] ^= 1
		serveAs(rec, r, content)
		right := rec.Body.Bytes()
		rec = httptest.NewRecorder()
		serveAs(rec, r, flipped)
		if !bytes.Equal(rec.Body.Bytes(), right) {
			delete(w.flips, name)
			content = flipped
		}
	}
	serveAs(out, r, content)
}

// untold is a response without validators.
type untold struct{ http.ResponseWriter }

func (u untold) WriteHeader(code int) {
	u.Header().Del("ETag")
	u.ResponseWriter.WriteHeader(code)
}

func serveAs(out http.ResponseWriter, r *http.Request, content []byte) {
	out.Header().Set("ETag", `"same"`)
	http.ServeContent(out, r, "", time.Time{}, bytes.NewReader(content))
}

// set has the server be down, or not, and forget what it was asked.
func (w *web) set(down bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.down, w.headers, w.requests = down, nil, make(map[string]int)
}

// header is a header of the last request.
func (w *web) header(name string) string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.headers.Get(name)
}

// counted is how many requests there were since the last time, by file.
func (w *web) counted() map[string]int {
	w.mu.Lock()
	defer w.mu.Unlock()
	got := w.requests
	w.requests = make(map[string]int)
	return got
}

// A codec that was damaged on its way, once, decodes nothing to what was not signed: neither
// in the middle, nor in the last block, which may be shorter.
func TestSignedCodec(t *testing.T) {
	for _, n := range []int{700, 999} {
		s := newSigned(t)
		w := newWeb(t, s)
		image := s.read("image")
		var sent atomic.Int64
		url := serve(t, func(out http.ResponseWriter, r *http.Request) {
			if r.URL.Path != "/image" {
				w.ServeHTTP(out, r)
				return
			}
			content := image
			if sent.Add(1) == 1 {
				content = bytes.Clone(image)
				content[entry(n)] = content[entry(n)]&0x0f | 0x10
			}
			serveAs(out, r, content)
		})
		for range 2 {
			if got := s.extract(url+"/image", s.flags()...); got.code != 0 || got.stdout != string(s.disk) {
				t.Errorf("block %d: exit status %d, right %v, %q", n, got.code, got.stdout == string(s.disk), got.stderr)
			}
		}
	}
}

// What is damaged on its way, once, is mended before anybody sees it, with a cache and
// without, where the file's versions can't be told apart; and the cache keeps nothing that is
// wrong.
func TestSignedMended(t *testing.T) {
	const n = 700
	for _, file := range []struct {
		name string
		at   func(s *signed) int64
	}{
		{"image" + manifestSuffix, func(*signed) int64 { return 30 }},
		{"image" + signatureSuffix, func(*signed) int64 { return 90 }},
		{"image" + hashesSuffix, func(*signed) int64 { return 5 }},
		{"image" + hashesSuffix, func(*signed) int64 { return 64 + 40*n }},
		{"image", func(s *signed) int64 { return int64(indexOf(s.read("image"))[n] & offsetOf) }},
		{"image", func(*signed) int64 { return int64(entry(n)) + 7 }},
		{"image", func(s *signed) int64 {
			s.run(0, "create", "--force", "--layout", "v4-footer", "--block-size", "1024", s.path("disk"), s.path("image"))
			s.sign("image", 1)
			return int64(len(s.read("image")) - entry(1001) + entry(n) - entry(0) + 7)
		}},
	} {
		for _, cached := range []bool{true, false} {
			t.Run(file.name, func(t *testing.T) {
				t.Parallel()
				s := newSigned(t)
				w := newWeb(t, s)
				w.mu.Lock()
				w.untold = !cached
				at := file.at(s)
				w.flips[file.name] = at
				w.mu.Unlock()
				flags := s.flags()
				if !cached {
					flags = []string{"--pubkey", s.signer.Key()}
				}
				for range 2 {
					if got := s.extract(w.URL+"/image", flags...); got.code != 0 || got.stdout != string(s.disk) {
						t.Errorf("flipped at %d, cached %v: exit status %d, %q", at, cached, got.code, got.stderr)
					}
				}
				w.mu.Lock()
				defer w.mu.Unlock()
				if len(w.flips) > 0 {
					t.Error("nothing was flipped")
				}
			})
		}
	}
}

// An image that is moved, or put there once more, is in the cache already; what is known by
// its address alone is another.
func TestSignedIsFoundAgain(t *testing.T) {
	s := newSigned(t)
	a, b := newWeb(t, s), newWeb(t, s)
	if got := s.extract(a.URL+"/image", s.flags()...); got.code != 0 {
		t.Fatal(got)
	}
	if got := s.extract(b.URL+"/image", s.flags()...); got.code != 0 || got.stdout != string(s.disk) {
		t.Fatal(got)
	}
	if asked := b.counted(); asked["image"] != 1 {
		t.Errorf("from another server: %v; want one request of the image, for what is there", asked)
	}
	cache := s.flags()[2:]
	if got := s.extract(b.URL+"/image", cache...); got.code != 0 || got.stdout != string(s.disk) {
		t.Fatal(got)
	}
	if asked := b.counted(); asked["image"] < 2 {
		t.Errorf("without a manifest: %v; want the blocks, too", asked)
	}
	for _, w := range []*web{a, b} {
		if got := program(t, nil, append([]string{"cache", "list", w.URL + "/image"}, cache[:2]...)...); got.code != 0 || !strings.Contains(got.stdout, w.URL) {
			t.Errorf("cache list: %+v", got)
		}
	}
	if got := program(t, nil, append([]string{"cache", "remove", a.URL + "/image"}, cache[:2]...)...); got.code != 0 {
		t.Errorf("cache remove: %+v", got)
	}
	a.counted()
	if got := s.extract(a.URL+"/image", s.flags()...); got.code != 0 {
		t.Fatal(got)
	}
	if asked := a.counted(); asked["image"] < 2 {
		t.Errorf("after cache remove: %v; want the blocks, too", asked)
	}
}

// What prefetch has brought is enough, without a network and in an outage, signature included.
func TestSignedOffline(t *testing.T) {
	s := newSigned(t)
	w := newWeb(t, s)
	url := w.URL + "/image"
	s.run(0, append([]string{"prefetch", url}, s.flags()...)...)
	list := s.run(0, append([]string{"cache", "list"}, s.flags()[2:4]...)...).stdout
	if got := strings.Count(list, "state   complete, kept\n"); got != len(suffixes) {
		t.Errorf("%d files are complete and kept, want %d:\n%s", got, len(suffixes), list)
	}
	w.set(true)
	for _, flags := range [][]string{s.flags("--offline"), append(s.flags()[2:], "--offline")} {
		if got := s.extract(url, flags...); got.code != 0 || got.stdout != string(s.disk) {
			t.Errorf("%q: %d, %q", flags, got.code, got.stderr)
		}
	}
	if asked := w.counted(); len(asked) > 0 {
		t.Errorf("offline: asked for %v", asked)
	}
	// The manifest's server alone is down.
	w.set(false)
	other := newWeb(t, s)
	flags := s.flags("--manifest", other.URL+"/image"+manifestSuffix, "--timeout", "1s")
	if got := s.extract(url, flags...); got.code != 0 {
		t.Fatal(got)
	}
	other.set(true)
	got := s.extract(url, flags...)
	if got.code != 0 || got.stdout != string(s.disk) || !strings.Contains(got.stderr, "a server can't be asked: what is kept of the file is used") {
		t.Errorf("without the manifest's server: %d, %q", got.code, got.stderr)
	}
	if got := s.extract(url, append(flags, "--cache-size", "0")...); got.code != cli.ExitSource || got.stdout != "" {
		t.Errorf("without the manifest's server, and nothing kept: %d, %q", got.code, got.stderr)
	}
	// A signature that is not there is no outage.
	os.Remove(s.path("image" + signatureSuffix))
	if got := s.extract(url, s.flags()...); got.code != cli.ExitImage || got.stdout != "" {
		t.Errorf("without a signature: %d, %q", got.code, got.stderr)
	}
}

// What is wrong with the proof is said although the image's server is silent.
func TestNotAsSignedAndSilent(t *testing.T) {
	for says, change := range map[string]func(s *signed){
		"not signed: ":     func(s *signed) { s.replace("image"+manifestSuffix, "version: 1", "version: 2") },
		"not a manifest: ": func(s *signed) { s.write("image"+manifestSuffix, []byte("x")); s.resign() },
		"the hashes are not those of the manifest: ": func(s *signed) { s.edit("image"+hashesSuffix, func(p []byte) { p[0] ^= 1 }) },
	} {
		t.Run(says, func(t *testing.T) {
			t.Parallel()
			s := newSigned(t)
			change(s)
			w := newWeb(t, s)
			url := serve(t, func(out http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/image" {
					<-r.Context().Done()
					return
				}
				w.ServeHTTP(out, r)
			})
			begin := time.Now()
			got := s.extract(url+"/image", s.flags("--timeout", "60s")...)
			if took := time.Since(begin); got.code != cli.ExitImage || !strings.Contains(got.stderr, says) || took > 30*time.Second {
				t.Errorf("after %v: exit status %d, %q", took, got.code, got.stderr)
			}
		})
	}
}

// Where there is neither image nor manifest it is the image that is missed.
func TestNothingSigned(t *testing.T) {
	s := newSigned(t)
	got := s.extract(newWeb(t, s).URL+"/none", s.flags()...)
	if got.code != cli.ExitSource || strings.Contains(got.stderr, "manifest") {
		t.Errorf("exit status %d, %q", got.code, got.stderr)
	}
}

// Who we are is for SOURCE's server alone.
func TestSecretsOfManifest(t *testing.T) {
	s := newSigned(t)
	own, other := newWeb(t, s), newWeb(t, s)
	s.write("token", []byte("secret"))
	flags := []string{"--header", "X-Secret: 1", "--bearer-token-file", s.path("token"), "--pubkey", s.signer.Key()}
	if got := s.extract(own.URL+"/image", append(flags, "--manifest", other.URL+"/image"+manifestSuffix)...); got.code != 0 {
		t.Fatal(got)
	}
	if other.header("X-Secret")+other.header("Authorization") != "" {
		t.Error("another server was told")
	}
	own.set(false)
	if got := s.extract(own.URL+"/image", flags...); got.code != 0 {
		t.Fatal(got)
	}
	if own.header("X-Secret") == "" || own.header("Authorization") == "" {
		t.Error("the image's server was not told")
	}
	got := s.extract(s.path("image"), "--manifest", strings.Replace(other.URL, "://", "://user:hunter2@", 1)+"/none?token=hunter2")
	if got.code != cli.ExitImage || strings.Contains(got.stderr, "hunter2") {
		t.Errorf("a manifest that is not there: %d, %q", got.code, got.stderr)
	}
}

// Requests for blocks that were seen to be wrong are made again, and no more than once.
func TestSignedLiar(t *testing.T) {
	s := newSigned(t)
	w := newWeb(t, s)
	image := s.read("image")
	at := indexOf(image)[700] & offsetOf
	var lies atomic.Int64
	liar := serve(t, func(out http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/image" {
			w.ServeHTTP(out, r)
			return
		}
		lies.Add(1)
		wrong := bytes.Clone(image)
		wrong[at] ^= 1
		serveAs(out, r, wrong)
	})
	got := s.extract(liar+"/image", s.flags()...)
	if got.code != cli.ExitImage || !strings.Contains(got.stderr, "read block 700: not as the manifest says") || !strings.HasPrefix(string(s.disk), got.stdout) {
		t.Errorf("exit status %d, %q", got.code, got.stderr)
	}
	if got := program(t, nil, append([]string{"verify", liar + "/image"}, s.flags()...)...); got.code != cli.ExitImage || !strings.Contains(got.stdout, "block 700: not as the manifest says: its bytes are others\n") {
		t.Errorf("verify: %+v", got)
	}
	got = program(t, nil, append([]string{"prefetch", liar + "/image"}, s.flags()...)...)
	if got.code != cli.ExitImage || !strings.Contains(got.stderr, "1 of 1000 blocks are bad at the source: read block 700: not as the manifest says") {
		t.Errorf("prefetch: %+v", got)
	}
	// What the liar has left in the cache does no harm where the image is right.
	if got := s.extract(w.URL+"/image", s.flags()...); got.code != 0 || got.stdout != string(s.disk) {
		t.Errorf("from another server: %d, %q", got.code, got.stderr)
	}
}
