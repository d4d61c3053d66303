package httpblock

import (
	"encoding/base64"
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"strings"
	"sync"
)

// identity is what tells a server who we are. It goes to the scheme, host and
// port of the URL that was opened, and nowhere else.
type identity struct {
	origin *url.URL
	header http.Header            // of every request
	basic  string                 // Authorization, unless there is a token; may be empty
	read   func() (string, error) // the token; nil: there is none

	// mu guards the field below.
	mu    sync.Mutex
	token string
}

// newIdentity finds out who to be for u. Of several ways to say it the first
// counts: a header Authorization, a token, u's own user, netrc.
func newIdentity(u *url.URL, opt *Options) (*identity, error) {
	id := &identity{origin: u, header: opt.Header.Clone()}
	for name, values := range id.header {
		for _, v := range values {
			if err := CheckHeader(name, v); err != nil {
				return nil, fmt.Errorf("%w: %w", ErrOptions, err)
			}
		}
	}
	switch {
	case opt.Token != nil && u.User != nil:
		return nil, fmt.Errorf("%w: a bearer token and a user in the URL exclude each other", ErrOptions)
	case id.header.Get("Authorization") != "":
		return id, nil
	case opt.Token != nil:
		id.read = opt.Token
		token, err := opt.Token()
		if err == nil {
			err = checkToken(token)
		}
		if err != nil {
			return nil, fmt.Errorf("%w: %w", ErrOptions, err)
		}
		id.token = token
		return id, nil
	}
	user, err := withNetrc(u, opt.Netrc)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrOptions, err)
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
		id.mu.Lock()
		token = id.token
		id.mu.Unlock()
		req.Header.Set("Authorization", "Bearer "+token)
	case id.basic != "":
		req.Header.Set("Authorization", id.basic)
	}
	return token
}

// renew says whether there is a token by now that is another than the one that
// was refused.
func (id *identity) renew(refused string) bool {
	if refused == "" {
		return false
	}
	id.mu.Lock()
	defer id.mu.Unlock()
	if id.token != refused {
		return true // another request has been here
	}
	token, err := id.read()
	if err != nil || checkToken(token) != nil || token == refused {
		return false
	}
	id.token = token
	return true
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
