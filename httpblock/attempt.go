package httpblock

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// attempt is one request and its answer, given up when patience ends.
type attempt struct {
	ctx      context.Context // of the request; its cause says that it was given up
	cancel   context.CancelCauseFunc
	timer    *time.Timer
	patience patience
	body     io.ReadCloser
	header   http.Header
	span     span
	left     int64 // bytes of span that have not been read
}

// attempt asks for r.
func (s *Source) attempt(ctx context.Context, r blockio.Range, p patience) (*attempt, error) {
	a := &attempt{patience: p}
	a.ctx, a.cancel = context.WithCancelCause(ctx)
	a.timer = time.AfterFunc(p.wait(), func() { a.cancel(errStalled) })
	resp, err := s.get(a.ctx, r)
	if err != nil {
		a.Close()
		return nil, err
	}
	a.body, a.header = resp.Body, resp.Header
	if a.span, err = judge(resp, r.Off, r.Len, s.pin); err != nil {
		a.Close()
		return nil, err
	}
	a.left = a.span.n
	return a, nil
}

// Read reads the answer's body, at most to the end of its range.
func (a *attempt) Read(p []byte) (int, error) {
	if a.left == 0 {
		return 0, io.EOF
	}
	a.timer.Reset(a.patience.wait())
	n, err := a.body.Read(p[:min(int64(len(p)), a.left)])
	a.left -= int64(n)
	if err != nil && err != io.EOF {
		err = cause(a.ctx, err)
	}
	return n, err
}

func (a *attempt) Close() {
	a.timer.Stop()
	if a.body != nil {
		a.body.Close()
	}
	a.cancel(nil)
}

// get sends the request for r to where the file was found last and follows
// redirects. Where the file was found is kept, and forgotten when that place
// refuses: a redirect to a signed URL expires.
func (s *Source) get(ctx context.Context, r blockio.Range) (*http.Response, error) {
	at := s.where()
	redirected := at != s.url
	for range maxRedirects + 1 {
		resp, err := s.ask(ctx, at, rangeOf(r.Extent), r.Refetch)
		switch {
		case err != nil || resp.StatusCode >= 400:
			s.found(s.url)
			if err == nil && redirected && expired(resp.StatusCode) {
				resp.Body.Close()
				at, redirected = s.url, false
				continue
			}
			return resp, err
		case !isRedirect(resp.StatusCode):
			s.found(at)
			return resp, nil
		}
		resp.Body.Close()
		if at, err = redirectTarget(at, resp.Header.Get("Location")); err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("%w: more than %d in a row", ErrRedirect, maxRedirects)
}

func (s *Source) where() *url.URL {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.target
}

func (s *Source) found(at *url.URL) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.target = at
}

// rangeOf is the header Range for e.
func rangeOf(e blockio.Extent) string { return fmt.Sprintf("bytes=%d-%d", e.Off, e.End()-1) }

// ask sends a request for the range rng to at: once more if our token has been
// replaced in the meantime. refetch goes past the caches on the way.
func (s *Source) ask(ctx context.Context, at *url.URL, rng string, refetch bool) (*http.Response, error) {
	resp, token, err := s.send(ctx, at, rng, refetch)
	if err == nil && resp.StatusCode == http.StatusUnauthorized && s.identity.renew(token) {
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
	resp, err := s.transports.roundTrip(req)
	if err != nil {
		return nil, "", cause(ctx, err)
	}
	return resp, token, nil
}
