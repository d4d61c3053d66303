package main

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/internal/iso9660"
	"github.com/cloopfs/cloopfs/localfile"
)

func TestOneLine(t *testing.T) {
	tests := []struct{ in, want string }{
		{"", ""},
		{"plain", "plain"},
		{"two\nlines", "two lines"},
		{"a\r\nb", "a  b"},
		{"tab\there", "tab here"},
		{"\x1b[31mred\x1b[0m", " [31mred [0m"},
		{"nul\x00 bell\x07 del\x7f", "nul  bell  del "},
		{"Grüße, 世界", "Grüße, 世界"},
		{"\n", " "},
	}
	for _, tt := range tests {
		if got := oneLine(tt.in); got != tt.want {
			t.Errorf("oneLine(%q): got %q, want %q", tt.in, got, tt.want)
		}
	}
}

func TestReport(t *testing.T) {
	tests := []struct {
		name string
		err  error
		want string
	}{
		{"plain", errors.New("no luck"), "cloopfs: no luck\n"},
		{"two lines", errors.New("no\nluck"), "cloopfs: no luck\n"},
		{"joined", errors.Join(errors.New("no"), errors.New("luck")), "cloopfs: no luck\n"},
		{"failure", &failure{code: 4, err: errors.New("no luck")}, "cloopfs: no luck\n"},
		{"hint", &failure{code: 4, err: errors.New("no luck"), hint: "try again"}, "cloopfs: no luck\ncloopfs: hint: try again\n"},
		{"wrapped hint", fmt.Errorf("now: %w", &failure{err: errors.New("no luck"), hint: "try again"}), "cloopfs: now: no luck\ncloopfs: hint: try again\n"},
	}
	for _, tt := range tests {
		var got strings.Builder
		report(&got, tt.err)
		if got.String() != tt.want {
			t.Errorf("%s: got %q, want %q", tt.name, got.String(), tt.want)
		}
	}
}

func TestExitCode(t *testing.T) {
	source := func(err error) error { return sourceFailure(fmt.Errorf("open x: %w", err)) }
	tests := []struct {
		name string
		err  error
		want int
	}{
		{"anything else", errors.New("getwd: no such file"), 1},
		{"usage", usage(errors.New("x")), 2},
		{"wrapped", fmt.Errorf("x: %w", &failure{code: 5, err: errors.New("y")}), 5},
		{"output", outputFailure(os.ErrPermission), 1},
		{"mount", mountFailure(errors.New("x")), 5},
		{"no image", source(cloop.ErrFormat), 3},
		{"unsupported", source(cloop.ErrUnsupported), 3},
		{"corrupt", source(cloop.ErrCorrupt), 3},
		{"no ISO image", source(iso9660.ErrFormat), 3},
		{"damaged ISO image", source(iso9660.ErrDamaged), 3},
		{"not in the ISO image", source(iso9660.ErrNotFound), 4},
		{"not a disk", source(&notDiskError{}), 3},
		{"corrupt block", sourceFailure(&blockio.BlockError{Block: 7, Err: cloop.ErrCorrupt}), 3},
		{"no ranges", source(httpblock.ErrNoRanges), 4},
		{"changed", source(httpblock.ErrChanged), 4},
		{"404", source(&httpblock.StatusError{Code: 404}), 4},
		{"cut off", source(io.ErrUnexpectedEOF), 4},
		{"options", source(httpblock.ErrOptions), 2},
		{"beyond the end", source(blockio.ErrBeyondEnd), 3},
		{"empty", source(blockio.ErrEmpty), 3},
		{"ended early", source(blockio.ErrShortSource), 4},
	}
	for _, tt := range tests {
		if got := exitCode(tt.err); got != tt.want {
			t.Errorf("%s: got exit status %d, want %d", tt.name, got, tt.want)
		}
	}
	if err := outputFailure(nil); err != nil {
		t.Errorf("outputFailure(nil): got %v, want nil", err)
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
		if got := sourceHint(fmt.Errorf("open x: %w", tt.err)); got != tt.want {
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

// There is no such file, says the server, not a proxy.
func TestMissingAnswer(t *testing.T) {
	for code, want := range map[int]bool{404: true, 410: true, 403: false, 500: false} {
		if got := errors.Is(&httpblock.StatusError{Code: code}, fs.ErrNotExist); got != want {
			t.Errorf("%d: %v, want %v", code, got, want)
		}
	}
	if errors.Is(&httpblock.StatusError{Code: 404, Proxy: true}, fs.ErrNotExist) {
		t.Error("a proxy's 404 is taken for the server's")
	}
}
