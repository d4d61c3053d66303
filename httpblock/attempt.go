package httpblock

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// maxRedirects is how many redirects are followed in a row.
const maxRedirects = 10

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
	count    *counter
}

// attempt asks for r.
func (s *Source) attempt(ctx context.Context, r blockio.Range, p patience) (_ *attempt, err error) {
	defer func() {
		if err != nil && ctx.Err() == nil {
			s.count.failure(err)
		}
	}()
	a := &attempt{patience: p, count: &s.count}
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
	a.count.received(n)
	switch {
	case err == io.EOF && a.left > 0:
		a.count.failure(io.ErrUnexpectedEOF)
	case err != nil && err != io.EOF:
		err = cause(a.ctx, err)
		if !errors.Is(err, context.Canceled) {
			a.count.failure(err)
		}
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
	s.mu.Lock()
	at := s.target
	s.mu.Unlock()
	redirected := at != s.url
	for range maxRedirects + 1 {
		resp, err := s.getOnce(ctx, at, r)
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
	return nil, fmt.Errorf("%w: more than %d in a row", errRedirect, maxRedirects)
}

func (s *Source) found(at *url.URL) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.target = at
}

func (s *Source) getOnce(ctx context.Context, at *url.URL, r blockio.Range) (*http.Response, error) {
	req := (&http.Request{Method: http.MethodGet, URL: at, Host: at.Host, Header: make(http.Header)}).WithContext(ctx)
	req.Header.Set("Range", fmt.Sprintf("bytes=%d-%d", r.Off, r.End()-1))
	req.Header.Set("Accept-Encoding", "identity")
	req.Header.Set("User-Agent", s.opt.UserAgent)
	if r.Refetch {
		req.Header.Set("Cache-Control", "no-cache")
	}
	if at.User != nil {
		password, _ := at.User.Password()
		req.SetBasicAuth(at.User.Username(), password)
	}
	s.count.requests.Add(1)
	resp, err := s.transport.RoundTrip(req)
	if err != nil {
		return nil, cause(ctx, err)
	}
	return resp, nil
}

func isRedirect(code int) bool {
	switch code {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// expired says that a status may mean that a redirect has to be asked for anew.
func expired(code int) bool {
	switch code {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden,
		http.StatusNotFound, http.StatusGone:
		return true
	}
	return false
}

// redirectTarget is where location leads from at. Credentials go along within
// the same scheme, host and port only. From https it must not lead to http.
func redirectTarget(at *url.URL, location string) (*url.URL, error) {
	to, err := at.Parse(location)
	switch {
	case err != nil || location == "":
		return nil, fmt.Errorf("%w: no usable Location", errRedirect)
	case to.Hostname() == "":
		return nil, fmt.Errorf("%w: to a URL without a host", errRedirect)
	case to.Scheme != "http" && to.Scheme != "https":
		return nil, fmt.Errorf("%w: to a URL of scheme %q", errRedirect, to.Scheme)
	case at.Scheme == "https" && to.Scheme == "http":
		return nil, fmt.Errorf("%w: from https to http", errRedirect)
	}
	if to.Scheme == at.Scheme && to.Host == at.Host {
		to.User = at.User
	}
	return to, nil
}
