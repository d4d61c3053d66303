package httpblock_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/httpblock"
)

// seen checks which paths were asked for since it was last called.
func seen(t *testing.T, q *requests, want ...string) {
	t.Helper()
	if diff := cmp.Diff(want, q.take()); diff != "" {
		t.Errorf("requests (-want +got):\n%s", diff)
	}
}

// A redirect is followed once, not for each request.
func TestRedirectIsKept(t *testing.T) {
	for _, code := range []int{301, 302, 303, 307, 308} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			data := random(100_000)
			var q requests
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				q.add(r)
				if r.URL.Path == "/dir/f" {
					http.Redirect(w, r, "../g", code)
					return
				}
				content(w, r, data)
			})
			s := open(t, url+"/dir/f", httpblock.Options{})
			seen(t, &q, "/dir/f", "/g")
			for range 10 {
				readRange(t, s, data, 50_000, 1000)
			}
			seen(t, &q, slices.Repeat([]string{"/g"}, 10)...)
		})
	}
}

// Where a redirect led to may refuse some day: then the way is asked for anew.
func TestRedirectExpires(t *testing.T) {
	for _, code := range []int{400, 401, 403, 404, 410} {
		t.Run(strconv.Itoa(code), func(t *testing.T) {
			data := random(100_000)
			var q requests
			var target atomic.Pointer[string]
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				q.add(r)
				switch at := *target.Load(); r.URL.Path {
				case "/f":
					http.Redirect(w, r, at, http.StatusFound)
				case at:
					content(w, r, data)
				default:
					w.WriteHeader(code)
				}
			})
			first, second := "/g", "/h"
			target.Store(&first)
			s := open(t, url+"/f", httpblock.Options{})
			readRange(t, s, data, 50_000, 1000)
			seen(t, &q, "/f", "/g", "/g")
			target.Store(&second)
			readRange(t, s, data, 50_000, 1000)
			readRange(t, s, data, 50_000, 1000)
			seen(t, &q, "/g", "/f", "/h", "/h", "/h", "/h") // the head and a sample are compared
		})
	}
}

// If the way asked for anew leads nowhere either, that is the error.
func TestRedirectExpiresForGood(t *testing.T) {
	data := random(100_000)
	var q requests
	var gone atomic.Bool
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		q.add(r)
		switch {
		case r.URL.Path == "/f":
			http.Redirect(w, r, "/g", http.StatusFound)
		case gone.Load():
			w.WriteHeader(http.StatusForbidden)
		default:
			content(w, r, data)
		}
	})
	s := open(t, url+"/f", httpblock.Options{Timeout: soon})
	seen(t, &q, "/f", "/g")
	gone.Store(true)
	if _, err := readAt(t.Context(), s, 1000, 50_000); err == nil || !strings.Contains(err.Error(), "server answered 403 Forbidden") {
		t.Errorf("got error %v, want 403", err)
	}
	seen(t, &q, "/g", "/f", "/g")
}

// When the server that a redirect led to is gone the way is asked for anew.
func TestRedirectTargetFails(t *testing.T) {
	data := random(100_000)
	handler := func(w http.ResponseWriter, r *http.Request) { content(w, r, data) }
	first, second := httptest.NewServer(http.HandlerFunc(handler)), serve(t, handler)
	defer first.Close()
	var target atomic.Pointer[string]
	target.Store(&first.URL)
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, *target.Load(), http.StatusFound)
	})
	s := open(t, url, httpblock.Options{Timeout: soon})
	readRange(t, s, data, 50_000, 1000)
	target.Store(&second)
	first.Close()
	readRange(t, s, data, 50_000, 1000)
}

func TestRedirectsAreBounded(t *testing.T) {
	data := random(100_000)
	for _, hops := range []int{httpblock.MaxRedirects, httpblock.MaxRedirects + 1} {
		t.Run(strconv.Itoa(hops), func(t *testing.T) {
			var q requests
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				q.add(r)
				n, _ := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/"))
				if n < hops {
					http.Redirect(w, r, fmt.Sprintf("/%d", n+1), http.StatusFound)
					return
				}
				content(w, r, data)
			})
			s, err := httpblock.Open(t.Context(), url+"/0", httpblock.Options{Timeout: soon})
			if got, want := len(q.take()), httpblock.MaxRedirects+1; got != want {
				t.Errorf("got %d requests, want %d", got, want)
			}
			switch {
			case err == nil:
				s.Close()
				if hops > httpblock.MaxRedirects {
					t.Error("got no error")
				}
			case hops <= httpblock.MaxRedirects, !strings.Contains(err.Error(), "redirect refused: more than 10 in a row"):
				t.Errorf("got error %v", err)
			}
		})
	}
}

func TestRedirectLoop(t *testing.T) {
	var q requests
	url := serve(t, func(w http.ResponseWriter, r *http.Request) {
		q.add(r)
		http.Redirect(w, r, "/f", http.StatusFound)
	})
	_, err := httpblock.Open(t.Context(), url+"/f", httpblock.Options{Timeout: soon})
	if err == nil || !strings.Contains(err.Error(), "redirect refused: more than 10 in a row") {
		t.Errorf("got error %v, want that the redirect is refused", err)
	}
	if got := len(q.take()); got != httpblock.MaxRedirects+1 {
		t.Errorf("got %d requests, want %d", got, httpblock.MaxRedirects+1)
	}
}

// A redirect that can't be followed is an error at once.
func TestRedirectRefused(t *testing.T) {
	for _, location := range []string{"ftp://h/f", "file:///etc/passwd", "", "http://h/%zz", "http://h:port/f", "http:///f"} {
		t.Run(location, func(t *testing.T) {
			var q requests
			url := serve(t, func(w http.ResponseWriter, r *http.Request) {
				q.add(r)
				w.Header().Set("Location", location)
				w.WriteHeader(http.StatusFound)
			})
			_, err := httpblock.Open(t.Context(), url, httpblock.Options{Timeout: soon / 100})
			if err == nil || !strings.Contains(err.Error(), "redirect refused") {
				t.Errorf("got error %v, want that the redirect is refused", err)
			}
			if got := len(q.take()); got != 1 {
				t.Errorf("got %d requests, want 1", got)
			}
		})
	}
}

// The user and password of the URL go to its scheme, host and port, and
// nowhere else, wherever the server sends us.
func TestCredentialsOfRedirects(t *testing.T) {
	data := random(1000)
	var auth atomic.Pointer[string]
	note := func(w http.ResponseWriter, r *http.Request) {
		a := r.Header.Get("Authorization")
		auth.Store(&a)
		content(w, r, data)
	}
	other := serve(t, note)
	const basic = "Basic dTpw" // u:p
	for name, want := range map[string]string{"relative": basic, "absolute": basic, "other port": ""} {
		t.Run(name, func(t *testing.T) {
			var first atomic.Pointer[string]
			var url string
			url = serve(t, func(w http.ResponseWriter, r *http.Request) {
				if r.URL.Path == "/g" {
					note(w, r)
					return
				}
				a := r.Header.Get("Authorization")
				first.Store(&a)
				w.Header().Set("Location", map[string]string{"relative": "/g", "absolute": url + "/g", "other port": other + "/g"}[name])
				w.WriteHeader(http.StatusFound)
			})
			open(t, strings.Replace(url, "http://", "http://u:p@", 1)+"/f", httpblock.Options{})
			if got := *first.Load(); got != basic {
				t.Errorf("before the redirect: got Authorization %q, want %q", got, basic)
			}
			if got := *auth.Load(); got != want {
				t.Errorf("after the redirect: got Authorization %q, want %q", got, want)
			}
		})
	}
}
