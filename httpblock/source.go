package httpblock

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"log/slog"
	"net/http"
	"net/url"
	"slices"
	"sync"
	"time"

	"github.com/cenkalti/backoff/v5"
	"golang.org/x/time/rate"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/recent"
)

// Options says how to talk to the server. The zero value is usable.
type Options struct {
	// Timeout is how long to go on while no data arrives. 0 means for ever.
	Timeout time.Duration
	// Connections is the largest number of connections at a time; 32 if 0.
	Connections int
	// Rate is how many bytes of the file may arrive in a second; 0 means any
	// number.
	Rate int64
	// UserAgent is the header User-Agent; "cloopfs" if empty.
	UserAgent string

	// What follows says who we are. All of it goes to the scheme, host and port
	// of the URL and nowhere else, wherever the server sends us. A header
	// Authorization counts before Token, that before the URL's own
	// user:password@, that before Netrc. Token and the URL's own exclude each
	// other.

	// Header goes along with each request, see CheckHeader.
	Header http.Header
	// Token returns the bearer token. It is called by Open, and again when the
	// server refuses the token, by one goroutine at a time. It may take as long
	// as it wants: who needs the token waits within its context, the others go
	// on. nil means none.
	Token func() (string, error)
	// Netrc is the text of a netrc file.
	Netrc string
	// TLS says which servers to believe, wherever the server sends us, and its
	// Certificates who we are. nil means those of the system, and none.
	TLS *tls.Config

	// Logger gets a line for each failed attempt, at level debug. nil means none.
	Logger *slog.Logger
}

// minBurst and maxBurst bound how many bytes may arrive at once under a limit: a
// sixteenth of what may in a second, so that streams take turns.
const (
	minBurst = 4 << 10
	maxBurst = 64 << 10
)

// headSize is how much of the file's start the first request brings: a cloop
// header and the first thousand entries of its index, within the ten segments
// that a server sends at once.
const headSize = 8 << 10

// Source is a file on a web server. It implements [blockio.Ranges] and
// [blockio.ReaderAt].
type Source struct {
	opt        Options
	url        *url.URL // as given, without its user
	identity   *identity
	transports transports
	stall      time.Duration // the patience with a first attempt
	illTime    time.Duration
	samples    samples
	limit      *rate.Limiter // nil: none

	// Set by Open, constant afterwards.
	pin     *pinned
	head    []byte    // the file's first bytes
	modTime time.Time // zero if the server did not say

	count counter
	trips recent.Max // the negative of how long a server took to answer, in seconds

	// mu guards the fields below.
	mu         sync.Mutex
	place      *place      // where the file was found last
	also       []string    // validators of the file at places that it has moved to
	resolution *resolution // nil: nobody searches
}

// Open asks for the first bytes of the file at rawURL, and learns its size and
// validators from the answer. It tries for as long as opt.Timeout allows.
func Open(ctx context.Context, rawURL string, opt Options) (*Source, error) {
	u, err := parse(rawURL)
	if err != nil {
		return nil, err
	}
	if opt.Connections == 0 {
		opt.Connections = 32
	}
	if opt.UserAgent == "" {
		opt.UserAgent = "cloopfs"
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Source{opt: opt, stall: stallTime(opt.Timeout), illTime: illTime, samples: samples{seed: maphash.MakeSeed()}, trips: recent.Max{Period: tripTime}}
	if opt.Rate > 0 {
		s.limit = rate.NewLimiter(rate.Limit(opt.Rate), int(min(maxBurst, max(minBurst, opt.Rate/16))))
	}
	if s.identity, err = newIdentity(ctx, u, &opt); err != nil {
		return nil, err
	}
	u.User = nil
	s.url = u
	s.transports = newTransports(u, &opt, s.stall)
	_, err = s.retry(ctx, time.Now(), func(p patience) (int, error) { return 0, s.readHead(ctx, p) })
	if err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// patience is how long to wait for data.
type patience struct {
	stall time.Duration // an attempt is given up after so long without a byte
	until time.Time     // no wait goes on beyond this; zero means no bound
}

// wait is how long to wait from now.
func (p patience) wait() time.Duration {
	if p.until.IsZero() {
		return p.stall
	}
	return min(p.stall, time.Until(p.until))
}

// maxDoublings bounds how the patience with a server grows: to five minutes.
const maxDoublings = 5

// stallTime is the patience with a first attempt: short enough for another
// within the timeout. Each further attempt gets twice that of the one before,
// for servers that are slow to answer.
func stallTime(timeout time.Duration) time.Duration {
	if timeout == 0 {
		return 10 * time.Second
	}
	return max(time.Second, min(10*time.Second, timeout/3))
}

// bound ends a context when there is no patience left, and after resolveTime.
func (p patience) bound(ctx context.Context) (context.Context, context.CancelFunc) {
	until := time.Now().Add(resolveTime)
	if !p.until.IsZero() && p.until.Before(until) {
		until = p.until
	}
	return context.WithDeadlineCause(ctx, until, errStalled)
}

// readHead makes the first request and pins what it finds.
func (s *Source) readHead(ctx context.Context, p patience) error {
	a, at, err := s.seek(ctx, headSize, p, func(*url.URL) *pinned { return nil })
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
		if pin.size, err = s.learnSize(a.ctx, at, pin, a.span.n); err != nil {
			return err
		}
	}
	s.head, s.pin, s.place = head, pin, &place{url: at, pin: pin}
	if t, err := http.ParseTime(pin.lastModified); err == nil {
		s.modTime = t
	}
	return nil
}

// Size is the size of the file in bytes.
func (s *Source) Size() int64 { return s.pin.size }

// ModTime is the file's Last-Modified when it was opened; zero if the server
// gave none.
func (s *Source) ModTime() time.Time { return s.modTime }

// Validated says whether the server gives something by which a changed file of
// the same size can be told: an ETag or a Last-Modified.
func (s *Source) Validated() bool { return s.Validator() != "" }

// Validator is what the server gave, when the file was opened, to tell its
// versions apart: its ETag, else its Last-Modified, else nothing.
func (s *Source) Validator() string { return s.pin.validator() }

// Adopted is what the places to which the file has moved since have given in place
// of Validator, where that was another.
func (s *Source) Adopted() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Clone(s.also)
}

// tripTime is for how long the line's round trip is believed, or twice that: it is seen
// only while nothing else is under way.
const tripTime = 5 * time.Minute

// Trip is the line's round trip: the least time, lately, from a request to its answer.
func (s *Source) Trip() time.Duration {
	v, _ := s.trips.Value()
	return time.Duration(-v * float64(time.Second))
}

// Credentials is a digest of all that told the server who we are: another user's
// is another.
func (s *Source) Credentials() string { return s.identity.digest(s.opt.TLS) }

// Close drops the kept connections. Streams that are being read go on.
func (s *Source) Close() error {
	s.transports.closeIdle()
	return nil
}

// OpenRange starts reading r. The request is made by the first Read.
func (s *Source) OpenRange(ctx context.Context, r blockio.Range) (io.ReadCloser, error) {
	if r.Off < 0 || r.Len < 0 || r.Len > s.Size() || r.Off > s.Size()-r.Len {
		return nil, fmt.Errorf("bytes %d+%d of a file of %d", r.Off, r.Len, s.Size())
	}
	return &stream{ctx: ctx, src: s, left: r}, nil
}

// ReadAtContext reads bytes of the file: one request, or none for the first
// few kilobytes.
func (s *Source) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	if off >= 0 && off <= int64(len(s.head)) && len(p) <= len(s.head)-int(off) {
		return copy(p, s.head[off:]), nil
	}
	return blockio.ReadRange(ctx, s, p, off)
}

// giveUp is when to stop trying if nothing has arrived since start; zero means
// never.
func (s *Source) giveUp(start time.Time) time.Time {
	if s.opt.Timeout == 0 {
		return time.Time{}
	}
	return start.Add(s.opt.Timeout)
}

// retry calls try until it succeeds, fails for good, or Timeout has passed
// since start.
func (s *Source) retry(ctx context.Context, start time.Time, try func(patience) (int, error)) (int, error) {
	until, tries := s.giveUp(start), 0
	if !until.IsZero() {
		var cancel context.CancelFunc
		ctx, cancel = context.WithDeadlineCause(ctx, until, errStalled)
		defer cancel()
	}
	var last error
	n, err := backoff.Retry(ctx, func() (int, error) {
		n, err := try(patience{stall: s.stall << min(tries, maxDoublings), until: until})
		tries++
		if err == nil {
			return n, nil
		}
		if last == nil || !errors.Is(err, errStalled) {
			last = err // being cut short at the end says less than what was wrong before
		}
		var status *StatusError
		switch {
		case permanent(err, s.pin == nil):
			return n, backoff.Permanent(err)
		case errors.As(err, &status) && status.RetryAfter > 0:
			return n, &backoff.RetryAfterError{Duration: status.RetryAfter}
		}
		return n, err
	}, backoff.WithBackOff(newBackOff()), backoff.WithMaxElapsedTime(0),
		backoff.WithNotify(func(_ error, d time.Duration) {
			s.opt.Logger.Debug("asking again", "url", Redact(s.url), "in", d, "error", last)
		}))
	switch {
	case err == nil:
		return n, nil
	case ctx.Err() == nil: // permanent
		return n, last
	case errors.Is(context.Cause(ctx), errStalled):
		return n, fmt.Errorf("gave up after %v: %w", s.opt.Timeout, last)
	default: // not err: that may be the cause, which need not wrap ctx.Err()
		return n, ctx.Err()
	}
}

// newBackOff makes the pauses between attempts: short at first, for a lost
// connection, and never so long that the end of an outage goes unnoticed.
func newBackOff() backoff.BackOff {
	b := backoff.NewExponentialBackOff()
	b.InitialInterval = 100 * time.Millisecond
	b.Multiplier = 2
	b.MaxInterval = 2 * time.Second
	return b
}
