package httpblock

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptrace"
	"net/url"
	"sync/atomic"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// seek asks for the first bytes of the file at the URL that was opened, and
// follows redirects. The response has been judged by what pin returns for the
// place that sent it.
func (v *server) seek(ctx context.Context, n int64, p patience, pin func(at *url.URL) *pinned) (*attempt, *url.URL, error) {
	a, e := v.newAttempt(ctx, p), blockio.Extent{Len: n}
	resp, at, err := v.follow(a, rangeOf(e))
	if err == nil {
		err = a.take(resp, e, pin(at))
	}
	if err != nil {
		a.fail(ctx, err)
		return nil, nil, err
	}
	return a, at, nil
}

// follow sends a request for the range rng to the URL that was opened, and
// follows redirects. It returns the last response and where that came from.
func (v *server) follow(a *attempt, rng string) (*http.Response, *url.URL, error) {
	at := v.url
	for range maxRedirects + 1 {
		a.renew()
		resp, err := v.request(a.ctx, at, rng, false)
		if err != nil || !isRedirect(resp.StatusCode) {
			return resp, at, err
		}
		resp.Body.Close()
		if at, err = redirectTarget(at, resp.Header.Get("Location")); err != nil {
			return nil, nil, err
		}
	}
	return nil, nil, fmt.Errorf("%w: more than %d in a row", ErrRedirect, maxRedirects)
}

// rangeOf is the header Range for e.
func rangeOf(e blockio.Extent) string { return fmt.Sprintf("bytes=%d-%d", e.Off, e.End()-1) }

// request sends a request for the range rng to at: once more if our token has been
// replaced in the meantime. refetch goes past the caches on the way.
func (v *server) request(ctx context.Context, at *url.URL, rng string, refetch bool) (*http.Response, error) {
	resp, token, err := v.send(ctx, at, rng, refetch)
	if err == nil && resp.StatusCode == http.StatusUnauthorized && v.identity.renew(ctx, token) {
		resp.Body.Close()
		resp, _, err = v.send(ctx, at, rng, refetch)
	}
	return resp, err
}

// send sends a request, with the token that it returns.
func (v *server) send(ctx context.Context, at *url.URL, rng string, refetch bool) (_ *http.Response, token string, _ error) {
	req := (&http.Request{Method: http.MethodGet, URL: at, Host: at.Host, Header: make(http.Header)}).WithContext(ctx)
	token = v.identity.sign(req)
	req.Header.Set("Range", rng)
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", v.opt.UserAgent)
	if refetch {
		req.Header.Set("Cache-Control", "no-cache")
	}
	v.count.requests.Add(1)
	var wrote atomic.Pointer[time.Time] // when the request had been sent: then its connection was there
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { now := time.Now(); wrote.Store(&now) },
	}))
	resp, err := v.transports.roundTrip(req)
	if err != nil {
		return nil, "", cause(ctx, err)
	}
	if at := wrote.Load(); at != nil && resp.StatusCode == http.StatusPartialContent { // from who has the file
		v.trips.Add(-time.Since(*at).Seconds())
	}
	return resp, token, nil
}
