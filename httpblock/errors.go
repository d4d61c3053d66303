package httpblock

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"time"
)

var (
	// ErrNoRanges says that the server does not do Range requests.
	ErrNoRanges = errors.New("server ignores Range requests")
	// ErrChanged says that the file is no longer the one that was opened.
	ErrChanged = errors.New("image changed on the server")
	// errAnswer says that the server broke the protocol.
	errAnswer = errors.New("invalid answer")
	// errRedirect says that a redirect can't be followed.
	errRedirect = errors.New("redirect refused")
	errStalled  = errors.New("no data arrived")
)

// StatusError is an answer with a status that brings no data.
type StatusError struct {
	Code int
	// RetryAfter is how long the server asks to wait, 0 if it did not say.
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	return fmt.Sprintf("server answered %d %s", e.Code, http.StatusText(e.Code))
}

// Temporary says whether the same request may succeed later.
func (e *StatusError) Temporary() bool {
	switch e.Code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return e.Code >= 500
}

// permanent says that asking again can't help. While a source is being opened
// that includes a host name that does not exist; later it is an outage.
func permanent(err error, opening bool) bool {
	var status *StatusError
	var cert *tls.CertificateVerificationError
	var dns *net.DNSError
	switch {
	case errors.Is(err, ErrNoRanges), errors.Is(err, ErrChanged),
		errors.Is(err, errAnswer), errors.Is(err, errRedirect), errors.As(err, &cert):
		return true
	case errors.As(err, &status):
		return !status.Temporary()
	case errors.As(err, &dns):
		return opening && dns.IsNotFound
	}
	return false
}

// cause is why a request made under ctx failed: err, or errStalled where the
// attempt was given up.
func cause(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	return err
}
