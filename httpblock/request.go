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
// follows redirects. The answer has been judged by what pin returns for the
// place that gave it.
func (s *Source) seek(ctx context.Context, n int64, p patience, pin func(at *url.URL) *pinned) (*attempt, *url.URL, error) {
	a, e := s.newAttempt(ctx, p), blockio.Extent{Len: n}
	resp, at, err := s.follow(a, rangeOf(e))
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
// follows redirects. It returns the last answer and where that came from.
func (s *Source) follow(a *attempt, rng string) (*http.Response, *url.URL, error) {
	at := s.url
	for range maxRedirects + 1 {
		a.renew()
		resp, err := s.ask(a.ctx, at, rng, false)
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

// ask sends a request for the range rng to at: once more if our token has been
// replaced in the meantime. refetch goes past the caches on the way.
func (s *Source) ask(ctx context.Context, at *url.URL, rng string, refetch bool) (*http.Response, error) {
	resp, token, err := s.send(ctx, at, rng, refetch)
	if err == nil && resp.StatusCode == http.StatusUnauthorized && s.identity.renew(ctx, token) {
		resp.Body.Close()
		resp, _, err = s.send(ctx, at, rng, refetch)
	}
	return resp, err
}

// send sends a request, with the token that it returns.
func (s *Source) send(ctx context.Context, at *url.URL, rng string, refetch bool) (_ *http.Response, token string, _ error) {
	req := (&http.Request{Method: http.MethodGet, URL: at, Host: at.Host, Header: make(http.Header)}).WithContext(ctx)
	token = s.identity.sign(req)
	req.Header.Set("Range", rng)
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", s.opt.UserAgent)
	if refetch {
		req.Header.Set("Cache-Control", "no-cache")
	}
	s.count.requests.Add(1)
	var wrote atomic.Pointer[time.Time] // when the request had been sent: then its connection was there
	req = req.WithContext(httptrace.WithClientTrace(ctx, &httptrace.ClientTrace{
		WroteRequest: func(httptrace.WroteRequestInfo) { now := time.Now(); wrote.Store(&now) },
	}))
	resp, err := s.transports.roundTrip(req)
	if err != nil {
		return nil, "", cause(ctx, err)
	}
	if at := wrote.Load(); at != nil && resp.StatusCode == http.StatusPartialContent { // from who has the file
		s.trips.Add(-time.Since(*at).Seconds())
	}
	return resp, token, nil
}
