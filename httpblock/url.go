package httpblock

import (
	"errors"
	"net/url"
	"slices"
	"strings"
)

// Redact returns the form of u that may be shown: scheme, host, path, and the
// names of the query's keys, as far as they have a value.
func Redact(u *url.URL) string {
	shown := url.URL{Scheme: u.Scheme, Host: u.Host, Path: u.Path, RawPath: u.RawPath}
	var keys []string
	for pair := range strings.SplitSeq(u.RawQuery, "&") {
		key, _, hasValue := strings.Cut(pair, "=") // else it may be a token
		if key != "" && hasValue && !slices.Contains(keys, key) {
			keys = append(keys, key)
		}
	}
	if len(keys) == 0 {
		return shown.String()
	}
	return shown.String() + "?" + strings.Join(keys, "&")
}

// CheckURL says whether rawURL is one that Open can open. The error shows no
// part of it.
func CheckURL(rawURL string) error {
	_, err := parse(rawURL)
	return err
}

// parse checks that raw is the URL of a file on a web server.
func parse(raw string) (*url.URL, error) {
	u, err := url.Parse(raw)
	if err != nil {
		return nil, errors.New("not a URL") // the reason may hold a part of a password
	}
	if u.Scheme != "http" && u.Scheme != "https" || u.Hostname() == "" {
		return nil, errors.New("not an http or https URL")
	}
	u.Fragment, u.RawFragment = "", ""
	return u, nil
}
