package httpblock_test

import (
	"context"
	"errors"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/httpblock"
)

// bearer returns an Options.Token that always says token.
func bearer(token string) func() (string, error) {
	return func() (string, error) { return token, nil }
}

// Of several ways to say who we are the first counts.
func TestAuthorization(t *testing.T) {
	const netrc = "machine other login o password x\nmachine 127.0.0.1 login n password n\nmachine 127.0.0.1 login u password second\n"
	header := http.Header{"Authorization": {"Digest x"}}
	tests := []struct {
		name, user string
		opt        httpblock.Options
		want       string
	}{
		{name: "nobody"},
		{name: "header", opt: httpblock.Options{Header: header}, want: "Digest x"},
		{name: "token", opt: httpblock.Options{Token: bearer("t0.k_n=")}, want: "Bearer t0.k_n="},
		{name: "URL", user: "u:p@", want: "Basic dTpw"},
		{name: "URL, escaped", user: "u%40h:p%2F%20@", want: "Basic dUBoOnAvIA=="},
		{name: "URL without password", user: "u@", want: "Basic dTo="},
		{name: "netrc", opt: httpblock.Options{Netrc: netrc}, want: "Basic bjpu"},
		{name: "netrc's default", opt: httpblock.Options{Netrc: "machine other login o password x\ndefault login d password d\n"}, want: "Basic ZDpk"},
		{name: "netrc of others", opt: httpblock.Options{Netrc: "machine other login o password x\n"}},
		{name: "netrc with comments and macros", opt: httpblock.Options{Netrc: "# machine 127.0.0.1 login x\nmachine 127.0.0.1\n  login n # me\n  password n\n\nmacdef init\nmachine 127.0.0.1\n\n"}, want: "Basic bjpu"},
		{name: "netrc has the password of the URL's user", user: "u@", opt: httpblock.Options{Netrc: netrc}, want: "Basic dTpzZWNvbmQ="},
		{name: "netrc has another user", user: "v@", opt: httpblock.Options{Netrc: netrc}, want: "Basic djo="},
		{name: "header before token", opt: httpblock.Options{Header: header, Token: bearer("t")}, want: "Digest x"},
		{name: "header before URL", user: "u:p@", opt: httpblock.Options{Header: header, Netrc: netrc}, want: "Digest x"},
		{name: "token before netrc", opt: httpblock.Options{Token: bearer("t"), Netrc: netrc}, want: "Bearer t"},
		{name: "URL before netrc", user: "u:p@", opt: httpblock.Options{Netrc: netrc}, want: "Basic dTpw"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			seen := make(chan []string, 2)
			data := random(100_000)
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				seen <- r.Header["Authorization"]
				content(w, r, data)
			})
			s := open(t, strings.Replace(url, "http://", "http://"+tt.user, 1), tt.opt)
			readRange(t, s, data, 50_000, 1000)
			for range 2 {
				if got := strings.Join(<-seen, ", "); got != tt.want {
					t.Errorf("got Authorization %q, want %q", got, tt.want)
				}
			}
		})
	}
}

// What can't be sent is refused before anything is sent, and not shown.
func TestBadOptions(t *testing.T) {
	tests := []struct {
		name, user string
		opt        httpblock.Options
		says       string
	}{
		{"token and user", "u:SECRET@", httpblock.Options{Token: bearer("SECRET")}, "exclude each other"},
		{"no token", "", httpblock.Options{Token: func() (string, error) { return "", errors.New("no such file") }}, "no such file"},
		{"empty token", "", httpblock.Options{Token: bearer("")}, "token is empty"},
		{"token of two lines", "", httpblock.Options{Token: bearer("SECRET\nSECRET")}, "not one word"},
		{"token of two words", "", httpblock.Options{Token: bearer("Bearer SECRET")}, "not one word"},
		{"header", "", httpblock.Options{Header: http.Header{"X": {"SECRET\r\nY: SECRET"}}}, "control characters"},
		{"header of ours", "", httpblock.Options{Header: http.Header{"Range": {"SECRET"}}}, "Range can't be set"},
		{"netrc", "", httpblock.Options{Netrc: "login SECRET\n"}, "netrc: line 1"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			_, err := httpblock.Open(t.Context(), "http://"+tt.user+"127.0.0.1:1/f", tt.opt)
			if !errors.Is(err, blockio.ErrOptions) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got error %v, want %v with %q", err, blockio.ErrOptions, tt.says)
			}
			if err != nil && strings.Contains(err.Error(), "SECRET") {
				t.Errorf("got error %q, which shows a secret", err)
			}
		})
	}
}

func TestCheckHeader(t *testing.T) {
	for _, name := range []string{"X-Api-Key", "authorization", "Cookie", "Referer", "Cache-Control", "x_y", "Hostess", "Teapot", "Ranger"} {
		for _, value := range []string{"", "a b\tc", "Grüße", `"q"`} {
			if err := httpblock.CheckHeader(name, value); err != nil {
				t.Errorf("%s: %q: got error %v", name, value, err)
			}
		}
		for _, value := range []string{"a\nb", "a\rb", "a\x00b", "\x7f"} {
			if httpblock.CheckHeader(name, value) == nil {
				t.Errorf("%s: %q: got no error", name, value)
			}
		}
	}
	for _, name := range []string{
		"", " ", "X Y", "X:", "Ü", "X\n", "Range", "RANGE", "If-Range", "if-none-match", "Accept-Encoding", "Connection", "Content-Length",
		"Content-Type", "Expect", "Host", "Keep-Alive", "Proxy-Authorization", "Proxy-Connection", "TE", "te", "Trailer",
		"Transfer-Encoding", "Upgrade", "User-Agent",
	} {
		if httpblock.CheckHeader(name, "x") == nil {
			t.Errorf("%q: got no error", name)
		}
	}
}

// A token that the server refuses is asked for anew, once: it may have been
// replaced.
func TestTokenIsRenewed(t *testing.T) {
	data := random(100_000)
	var valid, ours atomic.Pointer[string]
	set := func(p *atomic.Pointer[string], s string) { p.Store(&s) }
	var q requests
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		q.add(r)
		if r.Header.Get("Authorization") != "Bearer "+*valid.Load() {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		content(w, r, data)
	})
	set(&valid, "one")
	set(&ours, "one")
	s := open(t, url, httpblock.Options{Token: func() (string, error) {
		if *ours.Load() == "gone" {
			return "", errors.New("gone")
		}
		return *ours.Load(), nil
	}})
	seen(t, &q, "/")
	set(&valid, "two")
	set(&ours, "two")
	readRange(t, s, data, 50_000, 1000)
	readRange(t, s, data, 50_000, 1000)
	seen(t, &q, "/", "/", "/")

	// A token that can't be read, or is the same one, is no reason to ask again.
	set(&valid, "three")
	for _, token := range []string{"gone", "", "two"} {
		set(&ours, token)
		var status *httpblock.StatusError
		if _, err := readAt(t.Context(), s, 1000, 50_000); !errors.As(err, &status) || status.Code != 401 {
			t.Errorf("got error %v, want 401", err)
		}
		seen(t, &q, "/")
	}
	set(&ours, "three")
	readRange(t, s, data, 50_000, 1000)
	seen(t, &q, "/", "/")
}

// Many requests that are refused at the same time need not each read the token.
func TestTokenIsRenewedOnce(t *testing.T) {
	data := random(100_000)
	var valid atomic.Value
	valid.Store("one")
	var reads atomic.Int64
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer "+valid.Load().(string) {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		content(w, r, data)
	})
	s := open(t, url, httpblock.Options{Token: func() (string, error) {
		reads.Add(1)
		return valid.Load().(string), nil
	}})
	valid.Store("two")
	done := make(chan struct{})
	for range 8 {
		go func() {
			defer func() { done <- struct{}{} }()
			readRange(t, s, data, 50_000, 1000)
		}()
	}
	for range 8 {
		<-done
	}
	if got := reads.Load(); got != 2 {
		t.Errorf("the token was read %d times, want 2", got)
	}
}

// A token that can't be read for the time being keeps nobody from asking with
// the one that there is, and nobody longer than its context.
func TestTokenHangs(t *testing.T) {
	data := random(100_000)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer two" && strings.HasPrefix(r.Header.Get("Range"), "bytes=50000-") {
			w.WriteHeader(http.StatusUnauthorized)
			return
		}
		content(w, r, data)
	})
	reading, release := make(chan struct{}, 10), make(chan struct{})
	var reads atomic.Int64
	s := open(t, url, httpblock.Options{Token: func() (string, error) {
		if reads.Add(1) == 1 {
			return "one", nil
		}
		reading <- struct{}{}
		<-release
		return "two", nil
	}})
	ctx, cancel := context.WithCancel(t.Context())
	refused := make(chan error)
	for range 2 {
		go func() {
			_, err := readAt(ctx, s, 1000, 50_000)
			refused <- err
		}()
	}
	waitFor(t, "the token is asked for", reading)
	within(t, func() { readRange(t, s, data, 20_000, 1000) })
	cancel()
	within(t, func() {
		for range 2 {
			if err := <-refused; !errors.Is(err, context.Canceled) {
				t.Errorf("got error %v, want %v", err, context.Canceled)
			}
		}
	})
	done := make(chan struct{})
	go func() {
		defer close(done)
		readRange(t, s, data, 50_000, 1000)
	}()
	close(release)
	waitFor(t, "the new token is used", done)
	if got := reads.Load(); got != 2 {
		t.Errorf("the token was read %d times, want 2", got)
	}
}

func TestOpenWithTokenThatHangs(t *testing.T) {
	release := make(chan struct{})
	defer close(release)
	ctx, cancel := context.WithCancel(t.Context())
	within(t, func() {
		_, err := httpblock.Open(ctx, "http://127.0.0.1:1/f", httpblock.Options{Token: func() (string, error) {
			cancel()
			<-release
			return "t", nil
		}})
		if !errors.Is(err, context.Canceled) {
			t.Errorf("got error %v, want %v", err, context.Canceled)
		}
	})
}

// Whoever is refused while the token is being read may have seen it replaced
// since: it is read once more.
func TestTokenReplacedWhileRead(t *testing.T) {
	data := random(100_000)
	var refusals sync.WaitGroup
	refusals.Add(2)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Header.Get("Authorization") != "Bearer two" && strings.HasPrefix(r.Header.Get("Range"), "bytes=50000-") {
			w.WriteHeader(http.StatusUnauthorized)
			refusals.Done()
			return
		}
		content(w, r, data)
	})
	var reads atomic.Int64
	s := open(t, url, httpblock.Options{Token: func() (string, error) {
		switch reads.Add(1) {
		case 1:
			return "one", nil
		case 2:
			refusals.Wait()
			time.Sleep(100 * time.Millisecond) // for the answer to arrive
			return "one", nil
		}
		return "two", nil
	}})
	outcomes := make(chan error, 2)
	for range 2 {
		go func() {
			_, err := readAt(t.Context(), s, 1000, 50_000)
			outcomes <- err
		}()
	}
	var status *httpblock.StatusError
	first, second := <-outcomes, <-outcomes
	if first != nil && second != nil {
		t.Errorf("got errors %v, %v, want one success", first, second)
	}
	for _, err := range []error{first, second} {
		if err != nil && !errors.As(err, &status) {
			t.Errorf("got error %v, want 401 or none", err)
		}
	}
}
