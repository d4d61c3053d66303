package httpblock

import (
	"fmt"
	"net/http"
	"net/url"
)

// maxRedirects is how many redirects are followed in a row.
const maxRedirects = 10

func isRedirect(code int) bool {
	switch code {
	case http.StatusMovedPermanently, http.StatusFound, http.StatusSeeOther,
		http.StatusTemporaryRedirect, http.StatusPermanentRedirect:
		return true
	}
	return false
}

// expired says that a status may mean that a redirect has to be followed anew.
func expired(code int) bool {
	switch code {
	case http.StatusBadRequest, http.StatusUnauthorized, http.StatusForbidden,
		http.StatusNotFound, http.StatusGone:
		return true
	}
	return false
}

// redirectTarget is where location leads from at. A user that location names is
// not used. From https it must not lead to http.
func redirectTarget(at *url.URL, location string) (*url.URL, error) {
	to, err := at.Parse(location)
	switch {
	case err != nil || location == "":
		return nil, fmt.Errorf("%w: no usable Location", ErrRedirect)
	case to.Hostname() == "":
		return nil, fmt.Errorf("%w: to a URL without a host", ErrRedirect)
	case to.Scheme != "http" && to.Scheme != "https":
		return nil, fmt.Errorf("%w: to a URL of scheme %q", ErrRedirect, to.Scheme)
	case at.Scheme == "https" && to.Scheme == "http":
		return nil, fmt.Errorf("%w: from https to http", ErrRedirect)
	}
	to.User, to.Fragment, to.RawFragment = nil, "", ""
	return to, nil
}
