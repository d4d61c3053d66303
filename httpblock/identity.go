package httpblock

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/base64"
	"encoding/hex"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"sync"

	"github.com/cloopfs/cloopfs/blockio"
)

// identity is what tells a server who we are. It goes to the scheme, host and
// port of the URL that was opened, and nowhere else.
type identity struct {
	origin *url.URL
	header http.Header            // of every request
	basic  string                 // Authorization, unless there is a token; may be empty
	read   func() (string, error) // the token; nil: there is none

	// mu guards the fields below.
	mu      sync.Mutex
	token   string   // empty: it has never been read
	reading *reading // nil: nobody reads the token
}

// reading is a look at the token that is under way.
type reading struct {
	done chan struct{} // closed at its end
	err  error         // set before that
}

// newIdentity finds out who to be for u. Of several ways to say it the first
// counts: a header Authorization, a token, u's own user, netrc.
func newIdentity(ctx context.Context, u *url.URL, opt *Options) (*identity, error) {
	id := &identity{origin: u, header: opt.Header.Clone()}
	for name, values := range id.header {
		for _, v := range values {
			if err := CheckHeader(name, v); err != nil {
				return nil, fmt.Errorf("%w: %w", blockio.ErrOptions, err)
			}
		}
	}
	switch {
	case opt.Token != nil && u.User != nil:
		return nil, fmt.Errorf("%w: a bearer token and a user in the URL exclude each other", blockio.ErrOptions)
	case id.header.Get("Authorization") != "":
		return id, nil
	case opt.Token != nil:
		id.read = opt.Token
		if _, err := id.look(ctx, ""); err != nil {
			if ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return nil, fmt.Errorf("%w: %w", blockio.ErrOptions, err)
		}
		return id, nil
	}
	user, err := withNetrc(u, opt.Netrc)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", blockio.ErrOptions, err)
	}
	if user != nil {
		password, _ := user.Password()
		id.basic = "Basic " + base64.StdEncoding.EncodeToString([]byte(user.Username()+":"+password))
	}
	return id, nil
}

// sign makes req ours, if it goes to where we are known. It returns the token
// that it used, if any.
func (id *identity) sign(req *http.Request) (token string) {
	if !sameOrigin(req.URL, id.origin) {
		return ""
	}
	maps.Copy(req.Header, id.header)
	switch {
	case id.read != nil:
		token = id.current()
		req.Header.Set("Authorization", "Bearer "+token)
	case id.basic != "":
		req.Header.Set("Authorization", id.basic)
	}
	return token
}

// renew says whether there is a token by now that is another than the one that
// was refused. It waits for that no longer than ctx.
func (id *identity) renew(ctx context.Context, refused string) bool {
	if refused == "" {
		return false
	}
	if began, _ := id.look(ctx, refused); !began && ctx.Err() == nil {
		_, _ = id.look(ctx, refused) // who was there before may have looked too early
	}
	return id.current() != refused
}

func (id *identity) current() string {
	id.mu.Lock()
	defer id.mu.Unlock()
	return id.token
}

// look reads the token, unless it is another than old by now. Of several
// callers one begins to read, the others wait for the outcome. Whoever reads
// may get stuck, in a file on a disk that is gone: nobody waits beyond ctx.
func (id *identity) look(ctx context.Context, old string) (began bool, _ error) {
	id.mu.Lock()
	if id.token != old {
		id.mu.Unlock()
		return false, nil
	}
	r := id.reading
	if began = r == nil; began {
		r = &reading{done: make(chan struct{})}
		id.reading = r
		go id.readToken(r)
	}
	id.mu.Unlock()
	select {
	case <-r.done:
		return began, r.err
	case <-ctx.Done():
		return began, ctx.Err()
	}
}

// readToken is r: it reads the token and says the outcome.
func (id *identity) readToken(r *reading) {
	token, err := id.read()
	if err == nil {
		err = checkToken(token)
	}
	r.err = err
	id.mu.Lock()
	if err == nil {
		id.token = token
	}
	id.reading = nil
	id.mu.Unlock()
	close(r.done)
}

// digest is a name for who we are, from which that can't be told.
func (id *identity) digest(cfg *tls.Config) string {
	h := sha256.New()
	for _, name := range slices.Sorted(maps.Keys(id.header)) {
		fmt.Fprintf(h, "%q %q\n", name, id.header[name])
	}
	fmt.Fprintf(h, "%q %q\n", id.basic, id.current())
	if cfg != nil {
		for _, c := range cfg.Certificates {
			fmt.Fprintf(h, "%q\n", c.Certificate)
		}
	}
	return hex.EncodeToString(h.Sum(nil))
}

// sameOrigin says whether a and b have the same scheme, host and port.
func sameOrigin(a, b *url.URL) bool {
	return a.Scheme == b.Scheme && strings.EqualFold(a.Hostname(), b.Hostname()) && port(a) == port(b)
}

func port(u *url.URL) string {
	switch {
	case u.Port() != "":
		return u.Port()
	case u.Scheme == "https":
		return "443"
	}
	return "80"
}
