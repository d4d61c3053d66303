package httpblock

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

func TestPermanent(t *testing.T) {
	status := func(code int) error { return &StatusError{Code: code} }
	tests := []struct {
		name           string
		err            error
		opening, later bool // want
	}{
		{"no ranges", ErrNoRanges, true, true},
		{"changed", ErrChanged, true, true},
		{"invalid answer", errProtocol, true, true},
		{"empty", blockio.ErrEmpty, true, true},
		{"redirect", ErrRedirect, true, true},
		{"certificate", &tls.CertificateVerificationError{Err: errors.New("expired")}, true, true},
		{"400", status(400), true, true},
		{"401", status(401), true, true},
		{"403", status(403), true, true},
		{"404", status(404), true, true},
		{"410", status(410), true, true},
		{"204", status(204), true, true},
		{"304", status(304), true, true},
		{"408", status(408), false, false},
		{"425", status(425), false, false},
		{"429", status(429), false, false},
		{"500", status(500), false, false},
		{"502", status(502), false, false},
		{"503", status(503), false, false},
		{"504", status(504), false, false},
		{"no such host", &net.DNSError{IsNotFound: true}, true, false},
		{"name server fails", &net.DNSError{IsTemporary: true}, false, false},
		{"stalled", errStalled, false, false},
		{"refused", &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED}, false, false},
		{"reset", syscall.ECONNRESET, false, false},
		{"cut off", io.ErrUnexpectedEOF, false, false},
	}
	for _, tt := range tests {
		for _, err := range []error{tt.err, fmt.Errorf("wrapped: %w", tt.err)} {
			if got := permanent(err, true); got != tt.opening {
				t.Errorf("%s: permanent(%v, opening): got %v, want %v", tt.name, err, got, tt.opening)
			}
			if got := permanent(err, false); got != tt.later {
				t.Errorf("%s: permanent(%v, later): got %v, want %v", tt.name, err, got, tt.later)
			}
		}
	}
}

func TestCause(t *testing.T) {
	stalled, cancel := context.WithCancelCause(t.Context())
	cancel(errStalled)
	tests := []struct {
		name string
		ctx  context.Context
		err  error
		want error
	}{
		{"stalled", stalled, context.Canceled, errStalled},
		{"other", t.Context(), syscall.ECONNRESET, syscall.ECONNRESET},
	}
	for _, tt := range tests {
		if got := cause(tt.ctx, tt.err); got != tt.want {
			t.Errorf("%s: got %v, want %v", tt.name, got, tt.want)
		}
	}
}

// What net/http calls its own functions is nothing for users.
func TestCauseHidesNetHTTP(t *testing.T) {
	said := errors.New("remote error: tls: certificate required")
	if got := cause(t.Context(), fmt.Errorf("readLoopPeekFailLocked: %w", said)); got != said {
		t.Errorf("got %v, want %v", got, said)
	}
	if other := fmt.Errorf("read: %w", said); cause(t.Context(), other) != other {
		t.Error("another error has been changed")
	}
}

// Connections that are refused now and then leave some requests, a plea for less one.
func TestRefusedNowAndThen(t *testing.T) {
	for want, err := range map[int64]error{
		minRefused: &net.OpError{Op: "dial", Err: syscall.ECONNREFUSED},
		1:          &StatusError{Code: 429},
	} {
		synctest.Test(t, func(t *testing.T) {
			var c counter
			c.allowed.Store(32)
			for range 10 {
				c.received(1)
				c.failure(err)
				time.Sleep(halveTime)
			}
			if got := c.allowed.Load(); got != want {
				t.Errorf("after ten times %v: %d requests, want %d", err, got, want)
			}
		})
	}
}
