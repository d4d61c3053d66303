package httpblock

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"slices"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

// place is where the file was found: at the URL that was opened, or where that
// redirects to.
type place struct {
	url *url.URL
	pin *pinned // what tells the file's versions apart there

	ill time.Time // since when its responses were 5xx alone, zero if it is well; guarded by server.mu
}

// resolution is a search for the file that is under way.
type resolution struct {
	done chan struct{} // closed at its end
	// Set before that. left says that whoever was searching gave up waiting,
	// which says nothing about the file.
	err  error
	left bool
}

// illTime is how long a place may respond with 5xx before the redirects are followed anew;
// at once if its Retry-After is more than that.
const illTime = 5 * time.Second

// maxAdopted bounds how many validators of other places are remembered.
const maxAdopted = 64

// resolveTime bounds a search, whatever the servers do.
const resolveTime = time.Minute

func (v *server) where() *place {
	v.mu.Lock()
	defer v.mu.Unlock()
	return v.place
}

// moved says whether err, the outcome of a request to pl, is a reason to follow
// the redirects anew. A signed URL expires, a mirror is taken away.
func (v *server) moved(ctx context.Context, pl *place, err error) bool {
	var status *StatusError
	failed := errors.As(err, &status)
	if failed && isRedirect(status.Code) {
		return true
	}
	if pl.url == v.url || ctx.Err() != nil {
		return false
	}
	if failed && status.Code >= 500 && !status.Proxy {
		return v.illFor(pl) >= illTime || status.RetryAfter > illTime
	}
	v.recovered(pl)
	switch {
	case err == nil, failed && !status.Proxy:
		return failed && expired(status.Code)
	case errors.Is(err, ErrChanged), errors.Is(err, ErrNoRanges), errors.Is(err, ErrEncoded), errors.Is(err, errProtocol),
		errors.Is(err, blockio.ErrEmpty):
		return false
	}
	return true // the connection failed
}

// illFor notes a 5xx of pl and returns since when there has been nothing else.
func (v *server) illFor(pl *place) time.Duration {
	v.mu.Lock()
	defer v.mu.Unlock()
	if pl.ill.IsZero() {
		pl.ill = time.Now()
	}
	return time.Since(pl.ill)
}

func (v *server) recovered(pl *place) {
	v.mu.Lock()
	defer v.mu.Unlock()
	pl.ill = time.Time{}
}

// resolve returns where the file is if it is no longer at from. Of several
// callers one searches, the others wait for the outcome.
func (v *server) resolve(ctx context.Context, from *place, p patience) (*place, error) {
	ctx, cancel := p.bound(ctx)
	defer cancel()
	for {
		v.mu.Lock()
		if v.place != from {
			defer v.mu.Unlock()
			return v.place, nil
		}
		r := v.resolution
		if r == nil {
			r = &resolution{done: make(chan struct{})}
			v.resolution = r
			v.mu.Unlock()
			return v.search(ctx, r, from, p)
		}
		v.mu.Unlock()
		select {
		case <-r.done:
			if r.err != nil && !r.left {
				return nil, r.err
			}
		case <-ctx.Done():
			return nil, cause(ctx, ctx.Err())
		}
	}
}

// search is r: it looks for the file and says the outcome.
func (v *server) search(ctx context.Context, r *resolution, from *place, p patience) (*place, error) {
	pl, err := v.find(ctx, from, p)
	r.err, r.left = err, ctx.Err() != nil
	v.mu.Lock()
	if err == nil {
		v.place = pl
		if now := pl.pin.validator(); now != "" && now != v.validator() && len(v.also) < maxAdopted && !slices.Contains(v.also, now) {
			v.also = append(v.also, now)
		}
	}
	v.resolution = nil
	v.mu.Unlock()
	close(r.done)
	v.opt.Logger.Debug("asked for the way anew", "url", Redact(v.url), "error", err)
	return pl, err
}

// find follows the URL that was opened, and compares what it finds with the file
// that was opened. Only at the place that is known the validators have to be the
// same.
func (v *server) find(ctx context.Context, from *place, p patience) (*place, error) {
	same := false
	a, at, err := v.seek(ctx, int64(len(v.head)), p, func(at *url.URL) *pinned {
		if same = at.String() == from.url.String(); same {
			return from.pin
		}
		return &pinned{size: v.pin.size, anyVersion: true}
	})
	if err != nil {
		return nil, err
	}
	defer a.Close()
	head, err := io.ReadAll(a)
	if err != nil {
		return nil, err
	}
	if same {
		return &place{url: from.url, pin: from.pin}, nil
	}
	pl := &place{url: at, pin: pinOf(a.header, v.pin.size)}
	if !bytes.Equal(head, v.head[:len(head)]) {
		return nil, errOtherContent
	}
	return pl, v.compareAt(ctx, pl, int64(len(head)), p)
}

// errOtherContent says that a redirect leads to another file now.
var errOtherContent = fmt.Errorf("%w (it redirects to a file with other content)", ErrChanged)

// compareAt compares what is at pl with the rest of the head, and the samples.
func (v *server) compareAt(ctx context.Context, pl *place, off int64, p patience) error {
	if rest := v.head[off:]; len(rest) > 0 {
		got, err := v.readAt(ctx, pl, blockio.Extent{Off: off, Len: int64(len(rest))}, p)
		if err != nil {
			return err
		}
		if !bytes.Equal(got, rest) {
			return errOtherContent
		}
	}
	for _, one := range v.samples.latest() {
		if one.extent.Len == 0 {
			continue
		}
		got, err := v.readAt(ctx, pl, one.extent, p)
		if err != nil {
			return err
		}
		if v.samples.sum(got) != one.sum {
			return errOtherContent
		}
	}
	return nil
}

// readAt reads a small extent at pl, by as many requests as that takes.
func (v *server) readAt(ctx context.Context, pl *place, e blockio.Extent, p patience) ([]byte, error) {
	return readAll(e, func(rest blockio.Extent) (*attempt, error) {
		a := v.newAttempt(ctx, p)
		resp, err := v.request(a.ctx, pl.url, rangeOf(rest), false)
		if err == nil {
			err = a.take(resp, rest, pl.pin)
		}
		if err != nil {
			a.Close()
			return nil, err
		}
		return a, nil
	})
}

// validator is the better one of a file's validators.
func (p *pinned) validator() string {
	if p.etag != "" {
		return p.etag
	}
	return p.lastModified
}

// pinOf is what the headers of a response tell of a file of size bytes.
func pinOf(h http.Header, size int64) *pinned {
	return &pinned{size: size, etag: h.Get("ETag"), lastModified: h.Get("Last-Modified")}
}
