package httpblock

import (
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"time"

	"golang.org/x/time/rate"

	"github.com/cloopfs/cloopfs/blockio"
)

// Options says how to talk to the server. The zero value is usable.
type Options struct {
	// Timeout is how long to go on while no data arrives. 0 means for ever.
	Timeout time.Duration
	// Connections is the largest number of connections to a server at a time; 32
	// if 0.
	Connections int
	// Rate is how many bytes of the file may arrive in a second; 0 means any
	// number.
	Rate int64
	// UserAgent is the header User-Agent; "cloopfs" if empty.
	UserAgent string

	// Mirrors are the URLs of further copies of the file. A user:password@ in one, or
	// what Netrc says, is for that mirror alone; of what follows it gets nothing else.
	Mirrors []string

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

	// Logger gets a line for each failed attempt, at level debug, and for each change of
	// a mirror's state. nil means none.
	Logger *slog.Logger

	// connect makes connections in tests; nil: as net does.
	connect connectFunc
}

// minBurst and maxBurst bound how many bytes may arrive at once under a limit: a
// sixteenth of what may in a second, so that streams take turns.
const (
	minBurst = 4 << 10
	maxBurst = 64 << 10
)

// Source is a file on a web server, or on several. It implements [blockio.Source],
// [blockio.Remote] and [blockio.Blamer].
type Source struct {
	opt     Options
	stall   time.Duration // the patience with a first attempt
	servers []*server     // of the URL that was opened, then the mirrors
	group   *group        // nil before Open has had a response

	// Set by Open, constant afterwards.
	first   *server   // who responded
	modTime time.Time // zero if it did not say
}

// Open asks for the first bytes of the file at rawURL, and learns its size and
// validators from the response. It tries for as long as opt.Timeout allows; a mirror if
// rawURL does not respond. Mirrors are asked for nothing else before Join.
func Open(ctx context.Context, rawURL string, opt Options) (*Source, error) {
	if opt.Connections == 0 {
		opt.Connections = 32
	}
	if opt.UserAgent == "" {
		opt.UserAgent = "cloopfs"
	}
	if opt.Logger == nil {
		opt.Logger = slog.New(slog.DiscardHandler)
	}
	s := &Source{opt: opt, stall: stallTime(opt.Timeout)}
	if len(opt.Mirrors) > 0 {
		s.stall = min(s.stall, minSilence) // who is slow gets more the next time
	}
	limit := newLimiter(opt.Rate)
	elsewhere := opt.elsewhere()
	for i, raw := range append([]string{rawURL}, opt.Mirrors...) {
		u, err := parse(raw)
		if err != nil {
			return nil, err
		}
		of := &s.opt
		if i > 0 {
			of = &elsewhere
		}
		v, err := newServer(ctx, u, of, limit)
		if err != nil {
			return nil, err
		}
		s.servers = append(s.servers, v)
	}
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

// elsewhere is opt for a server that is not the URL's that was opened.
func (opt Options) elsewhere() Options {
	opt.Header, opt.Token = nil, nil
	if opt.TLS != nil {
		opt.TLS = opt.TLS.Clone()
		opt.TLS.Certificates = nil
	}
	return opt
}

// newLimiter returns what lets perSecond bytes arrive in a second; nil for 0.
func newLimiter(perSecond int64) *rate.Limiter {
	if perSecond <= 0 {
		return nil
	}
	return rate.NewLimiter(rate.Limit(perSecond), int(min(maxBurst, max(minBurst, perSecond/16))))
}

// open makes the first request, to the first of the servers that responds.
func (s *Source) open(ctx context.Context) error {
	_, err := s.retry(ctx, time.Now(), func(p patience) (int, error) {
		var failed error
		for i, v := range s.servers {
			if failed != nil && p.over() {
				break
			}
			err := v.readHeadIn(ctx, p.among(len(s.servers)-i), len(s.servers) > 1)
			if err == nil {
				s.opened(v)
				return 0, nil
			}
			failed = s.worse(failed, err)
		}
		return 0, failed
	})
	return err
}

// opened says that v has responded first.
func (s *Source) opened(v *server) {
	s.first = v
	s.group = newGroup(s.servers, v, s.opt.Logger)
	if t, err := http.ParseTime(v.pin.lastModified); err == nil {
		s.modTime = t
	}
}

// Size is the size of the file in bytes.
func (s *Source) Size() int64 { return s.first.pin.size }

// ModTime is the file's Last-Modified when it was opened; zero if the server
// gave none.
func (s *Source) ModTime() time.Time { return s.modTime }

// Copy is the copy that was opened.
func (s *Source) Copy() blockio.Copy {
	return blockio.Copy{URL: s.first.url, Validator: s.first.validator()}
}

// Adopted are the other copies that were seen since to be the same file: mirrors, and
// places that a URL has come to redirect to.
func (s *Source) Adopted() []blockio.Copy {
	var all []blockio.Copy
	for _, v := range s.group.joined() {
		if v != s.first && v.validator() != "" {
			all = append(all, blockio.Copy{URL: v.url, Validator: v.validator()})
		}
		for _, also := range v.adopted() {
			all = append(all, blockio.Copy{URL: v.url, Validator: also})
		}
	}
	return all
}

// tripTime is for how long the line's round trip is believed, or twice that: it is seen
// only while nothing else is under way.
const tripTime = 5 * time.Minute

// Trip is the line's round trip: the least time, lately, from a request to its response, at
// the server that readers' requests go to.
func (s *Source) Trip() time.Duration {
	v, _ := s.group.preferred().trips.Value()
	return time.Duration(-v * float64(time.Second))
}

// Credentials is a digest of all that told the server who we are: another user's
// is another.
func (s *Source) Credentials() string { return s.first.identity.digest(s.first.opt.TLS) }

// Close drops the kept connections, and lets go of mirrors. Streams that are being read
// go on.
func (s *Source) Close() error {
	s.group.close()
	for _, v := range s.servers {
		v.transports.closeIdle()
	}
	return nil
}

// OpenRange starts reading r. The request is made by the first Read.
func (s *Source) OpenRange(ctx context.Context, r blockio.Range) (io.ReadCloser, error) {
	if !r.Inside(s.Size()) {
		return nil, fmt.Errorf("bytes %d+%d of a file of %d", r.Off, r.Len, s.Size())
	}
	return &stream{ctx: ctx, src: s, left: r, avoid: s.group.doubt(r)}, nil
}

// ReadAtContext reads bytes of the file: one request, or none for the first
// few kilobytes.
func (s *Source) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	head := s.first.head
	if off >= 0 && off <= int64(len(head)) && len(p) <= len(head)-int(off) {
		return copy(p, head[off:]), nil
	}
	return blockio.ReadRange(ctx, s, p, off)
}
