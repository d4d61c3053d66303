package httpblock

import (
	"context"
	"hash/maphash"
	"io"
	"net/url"
	"slices"
	"sync"
	"time"

	"golang.org/x/time/rate"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/recent"
)

// server is one copy of the file: at a URL, and where that redirects to. Each of its
// requests is one attempt: who wants another makes it himself.
type server struct {
	opt        *Options
	url        *url.URL // as given, without its user
	identity   *identity
	transports transports
	samples    samples
	limit      *rate.Limiter // of all servers of the file; nil: none

	// Set by readHead, constant afterwards.
	pin  *pinned
	head []byte // the file's first bytes

	count counter
	trips recent.Max // the negative of how long responses took to begin, in seconds
	speed speed

	// Guarded by group.mu.
	health health
	since  time.Time // when health has changed last; zero: never
	why    error     // it is banned
	told   bool      // that it can't join yet
	// notBefore is when it wants the next request at the earliest.
	notBefore time.Time
	woken     chan struct{} // has room for one word that health has become worse

	// mu guards the fields below.
	mu         sync.Mutex
	place      *place      // where the file was found last
	also       []string    // validators of the file at places that it has moved to
	resolution *resolution // nil: nobody searches
}

// newServer returns the server of the file at u, which may name a user.
func newServer(ctx context.Context, u *url.URL, opt *Options, limit *rate.Limiter) (*server, error) {
	id, err := newIdentity(ctx, u, opt)
	if err != nil {
		return nil, err
	}
	u.User = nil
	v := &server{
		opt: opt, url: u, identity: id, transports: newTransports(u, opt, stallTime(opt.Timeout)),
		samples: samples{seed: maphash.MakeSeed()}, limit: limit, trips: recent.Max{Period: tripTime},
		woken: make(chan struct{}, 1),
	}
	v.count.allowed.Store(int64(opt.Connections))
	return v, nil
}

// wake says that health has become worse.
func (v *server) wake() {
	select {
	case v.woken <- struct{}{}:
	default:
	}
}

// dripFactor is how many times the patience the whole head may take where another server
// could be tried.
const dripFactor = 4

// readHeadIn is readHead but, if there are others to be tried, not for long.
func (v *server) readHeadIn(ctx context.Context, p patience, others bool) error {
	if others {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeoutCause(ctx, dripFactor*p.stall, errStalled)
		defer cancel()
	}
	err := v.readHead(ctx, p)
	if err != nil {
		err = cause(ctx, err)
	}
	return err
}

// readHead makes the first request and pins what it finds.
func (v *server) readHead(ctx context.Context, p patience) error {
	a, at, err := v.seek(ctx, blockio.HeadSize, p, func(*url.URL) *pinned { return nil })
	if err != nil {
		return err
	}
	defer a.Close()
	head := make([]byte, a.span.n)
	if _, err := io.ReadFull(a, head); err != nil {
		return err
	}
	pin := pinOf(a.header, a.span.size)
	if pin.size == unknown {
		a.renew()
		if pin.size, err = v.learnSize(a.ctx, at, pin, a.span.n); err != nil {
			return err
		}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	v.head, v.pin, v.place = head, pin, &place{url: at, pin: pin}
	return nil
}

// read reads a small extent of the file, wherever it is by now, by as many requests as
// that takes.
func (v *server) read(ctx context.Context, e blockio.Extent, p patience) ([]byte, error) {
	return readAll(e, func(rest blockio.Extent) (*attempt, error) {
		return v.attempt(ctx, blockio.Range{Extent: rest}, p)
	})
}

// readAll reads a small extent, by as many requests as that takes.
func readAll(e blockio.Extent, open func(rest blockio.Extent) (*attempt, error)) ([]byte, error) {
	got := make([]byte, e.Len)
	for n := int64(0); n < e.Len; {
		a, err := open(blockio.Extent{Off: e.Off + n, Len: e.Len - n})
		if err != nil {
			return nil, err
		}
		_, err = io.ReadFull(a, got[n:n+a.span.n])
		n += a.span.n
		a.Close()
		if err != nil {
			return nil, err
		}
	}
	return got, nil
}

// validator is what the server gave at first to tell the file's versions apart.
func (v *server) validator() string { return v.pin.validator() }

// adopted is what the places to which the file has moved since have given in place of
// that.
func (v *server) adopted() []string {
	v.mu.Lock()
	defer v.mu.Unlock()
	return slices.Clone(v.also)
}

// shown is where the file was found last, as it may be shown.
func (v *server) shown() string {
	if pl := v.where(); pl != nil {
		return Redact(pl.url)
	}
	return Redact(v.url)
}
