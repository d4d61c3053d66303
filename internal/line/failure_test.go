package line

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"strings"
	"syscall"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/iso9660"
	"github.com/cloopfs/cloopfs/localfile"
)

func TestFailure(t *testing.T) {
	source := func(err error) error { return Failure(fmt.Errorf("open x: %w", err)) }
	tests := []struct {
		name string
		err  error
		want int
	}{
		{"no image", source(cloop.ErrFormat), 3},
		{"unsupported", source(cloop.ErrUnsupported), 3},
		{"corrupt", source(cloop.ErrCorrupt), 3},
		{"no ISO image", source(iso9660.ErrFormat), 3},
		{"damaged ISO image", source(iso9660.ErrDamaged), 3},
		{"not in the ISO image", source(iso9660.ErrNotFound), 4},
		{"not a disk", source(&notDiskError{}), 3},
		{"corrupt block", Failure(&blockio.BlockError{Block: 7, Err: cloop.ErrCorrupt}), 3},
		{"no ranges", source(httpblock.ErrNoRanges), 4},
		{"changed", source(httpblock.ErrChanged), 4},
		{"404", source(&httpblock.StatusError{Code: 404}), 4},
		{"cut off", source(io.ErrUnexpectedEOF), 4},
		{"options", source(blockio.ErrOptions), 2},
		{"beyond the end", source(blockio.ErrBeyondEnd), 3},
		{"empty", source(blockio.ErrEmpty), 3},
		{"ended early", source(blockio.ErrShortSource), 4},
	}
	for _, tt := range tests {
		if got := cli.ExitCode(tt.err); got != tt.want {
			t.Errorf("%s: got exit status %d, want %d", tt.name, got, tt.want)
		}
	}
}

// Hints for what faults_test.go can't make happen everywhere.
func TestSourceHint(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"no such host", &net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", IsNotFound: true}}, "check the name of the host"},
		{"name server fails", &net.DNSError{Err: "server misbehaving", IsTemporary: true}, ""},
		{"other certificate", &tls.CertificateVerificationError{Err: x509.CertificateInvalidError{Reason: x509.IncompatibleUsage}}, "believe every server with --insecure"},
		{"local file", localfile.ErrChanged, "try again; publish new images under new names"},
		{"anything else", io.ErrUnexpectedEOF, ""},
	}
	for _, tt := range tests {
		if got := Hint(fmt.Errorf("open x: %w", tt.err)); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got, tt.want)
		}
	}
}

// refusal is an answer of a server that does not speak HTTP.
type refusal bool

func (refusal) Error() string { return "no" }

func (r refusal) Passing() bool { return bool(r) }

// Who has answered can be asked, whatever he speaks; what passes is no answer yet.
func TestUnreachable(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want bool
	}{
		{"refused for good", refusal(false), false},
		{"refused for now", refusal(true), true},
		{"404", &httpblock.StatusError{Code: 404}, false},
		{"429", &httpblock.StatusError{Code: 429}, true},
		{"503", &httpblock.StatusError{Code: 503}, true},
		{"changed", localfile.ErrChanged, false},
		{"certificate", &tls.CertificateVerificationError{}, false},
		{"connection", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, true},
	}
	for _, tt := range tests {
		if got := unreachable(fmt.Errorf("open x: %w", tt.err)); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// There is no such file, or not for us, says the server, not a proxy.
func TestAnswer(t *testing.T) {
	for code, want := range map[int]error{404: fs.ErrNotExist, 410: fs.ErrNotExist, 401: fs.ErrPermission, 403: fs.ErrPermission, 407: nil, 500: nil} {
		for _, proxy := range []bool{false, true} {
			err := &httpblock.StatusError{Code: code, Proxy: proxy}
			for _, is := range []error{fs.ErrNotExist, fs.ErrPermission} {
				if got := errors.Is(err, is); got != (is == want && !proxy) {
					t.Errorf("%v: is it %v? %v", err, is, got)
				}
			}
		}
	}
}

// answer is an Answer of another kind of server than those of the web.
type answer struct{ error }

func (answer) Passing() bool   { return false }
func (a answer) Unwrap() error { return a.error }

// What any kind of server may answer has a hint.
func TestHintOfAnswer(t *testing.T) {
	for err, want := range map[error]string{fs.ErrNotExist: "check the URL", fs.ErrPermission: "give credentials", errors.New("?"): ""} {
		if got := Hint(fmt.Errorf("open x: %w", answer{err})); !strings.HasPrefix(got, want) || (want == "") != (got == "") {
			t.Errorf("%v: hint %q, want %q", err, got, want)
		}
	}
}
