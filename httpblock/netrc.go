package httpblock

import (
	"fmt"
	"net/url"
	"strings"

	"github.com/git-lfs/go-netrc/netrc"
)

// withNetrc returns the user of u: u's own if it has a password, else the one
// that the netrc file says, if any.
func withNetrc(u *url.URL, text string) (*url.Userinfo, error) {
	name := ""
	if u.User != nil {
		if _, complete := u.User.Password(); complete {
			return u.User, nil
		}
		name = u.User.Username()
	}
	file, err := netrc.Parse(strings.NewReader(text))
	if err != nil {
		return nil, fmt.Errorf("netrc: %w", err)
	}
	m := file.FindMachine(u.Hostname(), name)
	if m == nil || m.Login == "" && m.Password == "" || name != "" && m.Login != name {
		return u.User, nil
	}
	return url.UserPassword(m.Login, m.Password), nil
}
