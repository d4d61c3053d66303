package httpblock

import (
	"errors"
	"fmt"
	"net/url"
	"slices"
	"strings"
)

// Redact returns the form of u that may be shown: scheme, host, path, and the
// names of the query's keys.
func Redact(u *url.URL) string {
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	if u.RawQuery == "" {
		return shown.String()
	}
	var keys []string
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		key, _, _ := strings.Cut(pair, "=")
		if key != "" && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	return shown.String() + "?" + strings.Join(keys, "&")
}

// parse checks that raw is the URL of a file on a web server.
func parse(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("not a URL") // the reason may hold a part of a password
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, fmt.Errorf("%s: not an http or https URL", Redact(u))
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}
