package httpblock

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

var (
	// ErrNoRanges says that the server does not do Range requests.
	ErrNoRanges = errors.New("server ignores Range requests")
	// ErrChanged says that the file is no longer the one that was opened.
	ErrChanged = fmt.Errorf("%w on the server", blockio.ErrChanged)
	// ErrEncoded says that the server sends the file compressed.
	ErrEncoded = errors.New("the server sends the file encoded")
	// ErrRedirect says that a redirect can't be followed.
	ErrRedirect = errors.New("redirect refused")
	// errProtocol says that the server broke the protocol.
	errProtocol = errors.New("invalid answer")
	errStalled  = errors.New("no data arrived")
)

// StatusError is a response with a status that brings no data.
type StatusError struct {
	Code int
	// Proxy says that a proxy responded, in place of the server.
	Proxy bool
	// RetryAfter is how long the server asks to wait, 0 if it did not say.
	RetryAfter time.Duration
}

func (e *StatusError) Error() string {
	who := "server"
	if e.Proxy {
		who = "proxy"
	}
	return fmt.Sprintf("%s answered %d %s", who, e.Code, http.StatusText(e.Code))
}

// Is tells [fs.ErrNotExist] and [fs.ErrPermission], as [blockio.Answer] has them.
func (e *StatusError) Is(target error) bool {
	if e.Proxy {
		return false
	}
	switch e.Code {
	case http.StatusNotFound, http.StatusGone:
		return target == fs.ErrNotExist
	case http.StatusUnauthorized, http.StatusForbidden:
		return target == fs.ErrPermission
	}
	return false
}

// Passing says whether the same request may succeed later.
func (e *StatusError) Passing() bool {
	switch e.Code {
	case http.StatusRequestTimeout, http.StatusTooEarly, http.StatusTooManyRequests:
		return true
	}
	return e.Code >= 500
}

// permanent says that another request can't help. While a source is being opened
// that includes a host name that does not exist, a server that does not speak
// TLS, and one that turns us away in its handshake; later these are outages.
func permanent(err error, opening bool) bool {
	var status *StatusError
	var cert *tls.CertificateVerificationError
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.Is(err, ErrNoRanges), errors.Is(err, ErrChanged), errors.Is(err, ErrEncoded),
		errors.Is(err, errProtocol), errors.Is(err, ErrRedirect), errors.Is(err, blockio.ErrEmpty), errors.As(err, &cert):
		return true
	case opening && (errors.As(err, new(tls.RecordHeaderError)) || errors.As(err, &op) && op.Op == tlsAlert):
		return true
	case errors.As(err, &status):
		return !status.Passing()
	case errors.As(err, &dns):
		return opening && dns.IsNotFound
	}
	return false
}

// tlsAlert is the Op of the errors by which crypto/tls says that the server
// ended the handshake, for want of a client certificate perhaps.
const tlsAlert = "remote error"

// cause is why a request made under ctx failed: err, or errStalled where the
// attempt was given up.
func cause(ctx context.Context, err error) error {
	if errors.Is(context.Cause(ctx), errStalled) {
		return errStalled
	}
	// net/http puts the name of a function of its own before what a connection
	// says while the request is being sent.
	if inner := errors.Unwrap(err); inner != nil && strings.HasPrefix(err.Error(), "readLoopPeekFailLocked: ") {
		return inner
	}
	return err
}
