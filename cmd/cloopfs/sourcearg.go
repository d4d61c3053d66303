package main

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"

	"github.com/cloopfs/cloopfs/httpblock"
)

// location is a SOURCE taken apart.
type location struct {
	URL    string // of a file on a web server; empty if Path is set
	Path   string // of a file of this machine
	Inside string // path of a file in the ISO 9660 image that is there; empty means the image itself
}

// parseSource takes a SOURCE apart.
func parseSource(arg string) (location, error) {
	fail := func(reason error) (location, error) {
		return location{}, usage(fmt.Errorf("%s: %w", shown(arg), reason))
	}
	if arg == "" {
		return location{}, usage(errors.New("SOURCE is empty"))
	}
	if !strings.Contains(arg, "://") {
		return parsePath(arg)
	}
	u, err := url.Parse(arg)
	if err != nil {
		return fail(errors.New("not a URL")) // the reason may hold a part of a password
	}
	inside := strings.Trim(u.Fragment, "/")
	if u.Scheme == "file" && (u.Host == "" || u.Host == "localhost") {
		return location{Path: u.Path, Inside: inside}, nil
	}
	if err := httpblock.CheckURL(arg); err != nil {
		return fail(err)
	}
	base, _, _ := strings.Cut(arg, "#")
	return location{URL: base, Inside: inside}, nil
}

// parsePath takes a path apart. One that exists as typed has no fragment; nor
// has one where nothing exists without it.
func parsePath(arg string) (location, error) {
	for at := len(arg); at > 0; at = strings.LastIndex(arg[:at], "#") {
		info, err := os.Stat(arg[:at])
		if err != nil || at < len(arg) && info.IsDir() {
			continue
		}
		inside, err := url.PathUnescape(strings.TrimPrefix(arg[at:], "#"))
		if err != nil {
			return location{}, usage(fmt.Errorf("%s: a %% that escapes nothing", shown(arg)))
		}
		return location{Path: arg[:at], Inside: strings.Trim(inside, "/")}, nil
	}
	return location{Path: arg}, nil
}

// String is what may be shown of the SOURCE: a URL loses its secrets.
func (l location) String() string {
	if l.URL != "" {
		return shown(l.URL) + shownFragment(l.Inside)
	}
	return shown(l.Path) + shownFragment(l.Inside)
}

// of is a SOURCE for a file inside l, as it may be shown.
func (l location) of(inside string) string {
	l.Inside = inside
	return l.String()
}

// absolute is l for a process in another directory.
func (l location) absolute() (location, error) {
	if l.Path == "" {
		return l, nil
	}
	var err error
	l.Path, err = filepath.Abs(l.Path)
	return l, err
}

// shownFragment is the end of a URL that may be shown: a password with a # in it
// would have made a fragment of its rest.
func shownFragment(fragment string) string {
	switch {
	case fragment == "":
		return ""
	case strings.Contains(fragment, "@"):
		return "#..."
	}
	return "#" + (&url.URL{Fragment: fragment}).EscapedFragment()
}

// shown is the form of an argument that may be shown: a URL loses its secrets.
func shown(arg string) string {
	if _, err := os.Lstat(arg); err == nil {
		return arg // a file of this name
	}
	if !strings.Contains(arg, "://") {
		arg, _, _ = strings.Cut(arg, "?")
		if user, _, ok := strings.Cut(arg, "@"); ok && strings.Contains(user, ":") {
			return "SOURCE" // user:password@host without a scheme
		}
		return arg
	}
	u, err := url.Parse(arg)
	if err != nil {
		return "SOURCE" // what can't be parsed may hold a password anywhere
	}
	return httpblock.Redact(u)
}
