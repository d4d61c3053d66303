package httpblock

import (
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
)

// reserved are the headers that would make another request of ours, by names
// that start so: they are set here, or by net/http, or make responses that can't
// be used.
var reserved = []string{
	"Accept-Encoding", "Connection", "Content-", "Expect", "Host", "If-", "Keep-Alive", "Proxy-", "Range", "Te",
	"Trailer", "Transfer-Encoding", "Upgrade",
}

// CheckHeader says whether a header can be sent along, as one of
// Options.Header. The error does not show the value.
func CheckHeader(name, value string) error {
	if name == "" || strings.ContainsFunc(name, notToken) {
		return errors.New("not the name of a header") // it may be a part of the value
	}
	name = http.CanonicalHeaderKey(name)
	if slices.ContainsFunc(reserved, func(r string) bool {
		return name == r || strings.HasSuffix(r, "-") && strings.HasPrefix(name, r)
	}) {
		return fmt.Errorf("the header %s can't be set", name)
	}
	if name == "User-Agent" {
		return errors.New("the header User-Agent has an option of its own")
	}
	if strings.ContainsFunc(value, control) {
		return fmt.Errorf("the value of the header %s has control characters", name)
	}
	return nil
}

// checkToken says whether a bearer token can be sent.
func checkToken(token string) error {
	switch {
	case token == "":
		return errors.New("the bearer token is empty")
	case strings.ContainsFunc(token, func(r rune) bool { return r <= ' ' || r >= 0x7f }):
		return errors.New("the bearer token is not one word")
	}
	return nil
}

// notToken says that r can't be in the name of a header (RFC 9110, section
// 5.6.2).
func notToken(r rune) bool {
	alnum := r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9'
	return !alnum && !strings.ContainsRune("!#$%&'*+-.^_`|~", r)
}

// control says that r can't be in the value of a header.
func control(r rune) bool { return r < ' ' && r != '\t' || r == 0x7f }
