package line

import (
	"errors"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf8"

	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/internal/cli"
)

// Location is a SOURCE taken apart.
type Location struct {
	URL    string // of a file on a server; empty if Path is set
	Path   string // of a file of this machine
	Inside string // path of a file in the ISO 9660 image that is there; empty means the image itself
	Typed  string // Inside as it was given, escaped or not
	File   string // the URL of Path, if it was given so
}

// Text is the location as text: as it may be shown, and if it is a file's, so that
// Parse makes the same of it. A path need not be text.
func (l Location) Text() string {
	if l.URL != "" || utf8.ValidString(l.Path+l.Inside) {
		return l.String()
	}
	return (&url.URL{Scheme: "file", Path: l.Path, Fragment: l.Inside}).String()
}

// Parse takes a SOURCE apart.
func Parse(arg string) (Location, error) {
	fail := func(reason error) (Location, error) {
		return Location{}, cli.Usage(fmt.Errorf("%s: %w", Shown(arg), reason))
	}
	if arg == "" {
		return Location{}, cli.Usage(errors.New("SOURCE is empty"))
	}
	if !strings.Contains(arg, "://") {
		return parsePath(arg)
	}
	u, err := url.Parse(arg)
	if err != nil {
		return fail(errors.New("not a URL")) // the reason may hold a part of a password
	}
	base, typed, _ := strings.Cut(arg, "#")
	l := Location{Inside: strings.Trim(u.Fragment, "/"), Typed: typed}
	if u.Scheme == "file" && (u.Host == "" || u.Host == "localhost") {
		if u.RawQuery != "" || u.ForceQuery {
			return fail(errors.New("a file has no query"))
		}
		l.Path, l.File = u.Path, base
		return l, nil
	}
	if _, err := kindOf(u.Scheme); err != nil {
		return fail(err)
	}
	if u.Hostname() == "" {
		return Location{}, cli.Usage(fmt.Errorf("%s://%s: names no host", u.Scheme, u.EscapedPath()))
	}
	l.URL = base
	return l, nil
}

// parsePath takes a path apart. One that exists as typed has no fragment; nor
// has one where nothing exists without it.
func parsePath(arg string) (Location, error) {
	for at := len(arg); at > 0; at = strings.LastIndex(arg[:at], "#") {
		info, err := os.Stat(arg[:at])
		if err != nil || at < len(arg) && info.IsDir() {
			continue
		}
		typed := strings.TrimPrefix(arg[at:], "#")
		inside, err := url.PathUnescape(typed)
		if err != nil {
			return Location{}, cli.Usage(fmt.Errorf("%s: a %% that escapes nothing", Shown(arg)))
		}
		return Location{Path: arg[:at], Inside: strings.Trim(inside, "/"), Typed: typed}, nil
	}
	return Location{Path: arg}, nil
}

// String is what may be shown of the SOURCE: a URL loses its secrets.
func (l Location) String() string {
	if l.URL != "" {
		return shownURL(l.URL) + l.fragment()
	}
	return Shown(l.Path) + l.fragment()
}

// Mounted is what /proc/mounts shows: the SOURCE as given, so that mount(8) knows
// its line of fstab again, but for credentials and query.
func (l Location) Mounted() string {
	if l.File != "" {
		return l.File + l.fragment()
	}
	u, err := url.Parse(l.URL)
	if l.URL == "" || err != nil {
		return l.String()
	}
	base, _, _ := strings.Cut(l.URL, "?")
	if u.User != nil {
		u.RawQuery, u.ForceQuery, u.User = "", false, nil // the name alone may be a token
		base = u.String()
	}
	return base + l.fragment()
}

// fragment is the end of the SOURCE, as it may be shown: a password with a # in
// it would have made a fragment of its rest.
func (l Location) fragment() string {
	switch {
	case l.Inside == "":
		return ""
	case strings.Contains(l.Typed, "@"):
		return "#..."
	}
	return "#" + l.Typed
}

// ForInside is a SOURCE for a file inside l, as it may be shown: what can't be shown of
// l is left to who reads it.
func (l Location) ForInside(inside string) string {
	if u, err := url.Parse(l.URL); err != nil || u.User != nil || u.RawQuery != "" {
		return "SOURCE#" + (&url.URL{Fragment: inside}).EscapedFragment()
	}
	l.Inside, l.Typed = inside, (&url.URL{Fragment: inside}).EscapedFragment()
	return l.String()
}

// Absolute is l for a process in another directory.
func (l Location) Absolute() (Location, error) {
	if l.Path == "" {
		return l, nil
	}
	var err error
	l.Path, err = filepath.Abs(l.Path)
	return l, err
}

// Shown is the form of an argument that may be shown: a URL loses its secrets.
func Shown(arg string) string {
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
	return shownURL(arg)
}

// shownURL is the form of a URL that may be shown.
func shownURL(arg string) string {
	u, err := url.Parse(arg)
	if err != nil {
		return "SOURCE" // what can't be parsed may hold a password anywhere
	}
	return httpblock.Redact(u)
}

// with is the place of a file beside the one at l: its name has something more at its end.
func (l Location) with(suffix string) Location {
	if l.URL == "" {
		return Location{Path: l.Path + suffix}
	}
	u, err := url.Parse(l.URL)
	if err != nil {
		return Location{URL: l.URL + suffix} // it was parsed before
	}
	u.RawPath = u.EscapedPath() + suffix
	u.Path += suffix
	return Location{URL: u.String()}
}

// besideURL is where the profile of an image on a server is, or the manifest, as suffix
// says; empty if there can be none: who needs a query for the image may need another for that.
func besideURL(at Location, suffix string) string {
	u, err := url.Parse(at.URL)
	if err != nil || at.URL == "" || u.RawQuery != "" || u.ForceQuery {
		return ""
	}
	u.Fragment, u.RawFragment = "", ""
	name := besideName(at, suffix)
	u.RawPath = u.EscapedPath() + (&url.URL{Path: name}).EscapedPath()
	u.Path += name
	return u.String()
}

// besideName is what the name of such a file has behind that of the image's file.
func besideName(at Location, suffix string) string {
	if at.Inside == "" {
		return suffix
	}
	return "." + strings.ReplaceAll(at.Inside, "/", ".") + suffix
}
