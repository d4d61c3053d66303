package line

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io/fs"
	"net"
	"net/http"
	"syscall"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/httpblock"
)

// credentials are the ways to say who we are.
const credentials = "user:password@ in the URL, --netrc, --header or --bearer-token-file"

// Hint says what may help where an image can't be opened or read.
func Hint(err error) string {
	var answer blockio.Answer
	var cert *tls.CertificateVerificationError
	switch {
	case errors.Is(err, ErrOffline):
		return "cloopfs prefetch, while there is a network"
	case errors.Is(err, errNoValidator):
		return "--trust-size keeps it nevertheless"
	case errors.Is(err, cache.ErrAmbiguous):
		return "give each image a name of its own, with the network and without: --cache-key NAME"
	case errors.Is(err, httpblock.ErrNoRanges):
		return "download the file and mount it locally, or use a mirror that supports ranges"
	case errors.Is(err, blockio.ErrChanged):
		return "try again; publish new images under new names"
	case errors.Is(err, httpblock.ErrEncoded):
		return "the file has to come as it is: turn compression off for it on the server"
	case errors.Is(err, httpblock.ErrRedirect):
		return "give the URL of the file itself"
	case errors.As(err, &answer):
		return answerHint(answer)
	case errors.As(err, &cert):
		return certificateHint(cert)
	}
	return connectionHint(err)
}

func answerHint(err blockio.Answer) string {
	var status *httpblock.StatusError
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "check the URL"
	case errors.Is(err, fs.ErrPermission):
		return "give credentials (" + credentials + "); a signed URL may have expired"
	case !errors.As(err, &status):
		return ""
	case status.Code == http.StatusProxyAuthRequired:
		return "the proxy wants to know who you are: http_proxy or https_proxy=http://USER:PASSWORD@PROXY"
	case status.Proxy:
		return "see http_proxy, https_proxy and no_proxy"
	case status.Code == http.StatusTooManyRequests:
		return "try again later, or with fewer --connections"
	}
	return ""
}

func certificateHint(cert *tls.CertificateVerificationError) string {
	var invalid x509.CertificateInvalidError
	switch {
	case errors.As(cert, new(x509.UnknownAuthorityError)):
		return "name its authority with --cacert FILE, or believe every server with --insecure"
	case errors.As(cert, new(x509.HostnameError)):
		return "use the name that the certificate is for, or believe every server with --insecure"
	case errors.As(cert, &invalid) && invalid.Reason == x509.Expired:
		return "check the clock of this machine, or believe every server with --insecure"
	}
	return "believe every server with --insecure"
}

func connectionHint(err error) string {
	var dns *net.DNSError
	var op *net.OpError
	switch {
	case errors.As(err, &op) && op.Op == "proxyconnect":
		return "see http_proxy, https_proxy and no_proxy"
	case errors.As(err, new(tls.RecordHeaderError)):
		return "no TLS is spoken at that port: is it an http URL?"
	case errors.As(err, &op) && op.Op == "remote error":
		return "the server may want a client certificate: --cert FILE and --key FILE"
	case errors.As(err, &dns) && dns.IsNotFound:
		return "check the name of the host"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "nobody listens there: check host and port"
	}
	return ""
}
