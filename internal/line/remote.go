package line

import (
	"context"
	"errors"
	"log/slog"
	"net/url"
	"strings"
	"sync/atomic"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/httpblock"
)

// remoteFile is a file on servers, whatever they speak.
type remoteFile interface {
	source
	blockio.Remote
}

// kind is what there is to know of a scheme.
type kind struct {
	open   func(ctx context.Context, at Location, opt Options, log *slog.Logger) (remoteFile, error)
	port   string                    // where a URL names none
	mirror func(rawURL string) error // whether a URL can be that of a mirror; the error shows no part of it
}

// kindOf is the kind of a scheme.
func kindOf(scheme string) (kind, error) {
	switch scheme {
	case "http":
		return kind{openWeb, "80", httpblock.CheckURL}, nil
	case "https":
		return kind{openWeb, "443", httpblock.CheckURL}, nil
	}
	return kind{}, errors.New("not an http or https URL")
}

// kind is the kind of a location that has a URL.
func (l Location) kind() (kind, error) {
	u, err := url.Parse(l.URL)
	if err != nil {
		return kind{}, err
	}
	return kindOf(u.Scheme)
}

// openRemote opens the file at a location that has a URL.
func openRemote(ctx context.Context, at Location, opt Options, log *slog.Logger) (*counting, error) {
	kind, err := at.kind()
	if err != nil {
		return nil, err
	}
	src, err := kind.open(ctx, at, opt, log)
	if err != nil {
		return nil, err
	}
	c := &counting{remoteFile: src}
	requests, failed, bytes := blockio.Fetched(src.Servers())
	c.requests.Store(requests - failed)
	c.bytes.Store(bytes)
	return c, nil
}

// openWeb opens a file on a web server.
func openWeb(ctx context.Context, at Location, opt Options, log *slog.Logger) (remoteFile, error) {
	options := httpblock.Options{
		Timeout:     time.Duration(opt.Timeout),
		Connections: opt.Connections,
		Rate:        int64(opt.Rate),
		Mirrors:     opt.Mirrors,
		Logger:      log,
	}
	if err := opt.Access.apply(&options); err != nil {
		return nil, err
	}
	return httpblock.Open(ctx, at.URL, options)
}

// counting is a file on servers, and counts what is read of it but for streams: header,
// index, directories.
type counting struct {
	remoteFile
	requests, bytes atomic.Int64
}

func (c *counting) ReadAtContext(ctx context.Context, p []byte, off int64) (int, error) {
	n, err := c.remoteFile.ReadAtContext(ctx, p, off)
	if n > 0 && off+int64(len(p)) > blockio.HeadSize { // the rest came when it was opened
		c.requests.Add(1)
		c.bytes.Add(int64(n))
	}
	return n, err
}

// Validated says whether there is something by which a changed file of the same size can
// be told.
func (c *counting) Validated() bool { return c.Copy().Validator != "" }

// Exact says whether any other file can be told: a time and a weak ETag may stay (RFC 9110,
// 8.8.1).
func (c *counting) Exact() bool { return strings.HasPrefix(c.Copy().Validator, `"`) }

// sameServer says whether two URLs are of one server.
func sameServer(a, b string) bool {
	u, err := url.Parse(a)
	v, err2 := url.Parse(b)
	return err == nil && err2 == nil && server(u) == server(v)
}

// server is the scheme, host and port of a URL, each server's in one form only.
func server(u *url.URL) string {
	scheme, host := strings.ToLower(u.Scheme), strings.ToLower(u.Host)
	if kind, err := kindOf(scheme); err == nil {
		host = strings.TrimSuffix(host, ":"+kind.port)
	}
	return scheme + "://" + host
}
