package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/fetch"
	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/localfile"
)

// sourceOptions are the flags of every command that takes a SOURCE.
type sourceOptions struct {
	Timeout     durationValue
	Connections int
	Access      accessOptions
}

func (o *sourceOptions) addFlags(f *pflag.FlagSet) {
	o.Timeout = durationValue(30 * time.Second)
	f.Var(&o.Timeout, "timeout", "a read that can't be served within this fails; 0 waits for ever")
	f.IntVar(&o.Connections, "connections", 32, "upper limit of parallel requests")
	o.Access.addFlags(f)
}

func (o *sourceOptions) validate() error {
	if o.Connections < 1 || o.Connections > 1024 {
		return usage(fmt.Errorf("--connections %d: not between 1 and 1024", o.Connections))
	}
	return o.Access.complete()
}

// open opens the image at source for a command that reads it once and keeps no
// log: whole blocks, so no memory is set aside for parts of them.
func (o *sourceOptions) open(ctx context.Context, source string) (*line, error) {
	if err := checkSource(source); err != nil {
		return nil, err
	}
	if err := o.validate(); err != nil {
		return nil, err
	}
	return openLine(ctx, source, *o, 0, slog.New(slog.DiscardHandler))
}

// line is the whole way from the image's bytes to the disk.
type line struct {
	source source
	fetch  *fetch.Scheduler
	disk   *cloop.Image
	index  *cloop.Index
}

// source is the image's bytes, wherever they are.
type source interface {
	blockio.Ranges
	blockio.ReaderAt
	ModTime() time.Time // zero if it is not known
	Close() error
}

// openLine opens the image at source and joins the layers over it. memory is
// the bound of the decoded blocks kept, in bytes.
func openLine(ctx context.Context, source string, opt sourceOptions, memory int64, log *slog.Logger) (*line, error) {
	if opt.Timeout > 0 {
		// Each wait is bounded by itself, and says why it failed; this is for
		// a server that drips.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(opt.Timeout)+time.Second)
		defer cancel()
	}
	src, err := openSource(ctx, source, opt, log)
	if err != nil {
		return nil, sourceFailure(fmt.Errorf("open %s: %w", shown(source), err))
	}
	index, err := cloop.Open(ctx, src)
	if err != nil {
		src.Close()
		return nil, sourceFailure(fmt.Errorf("open %s: %w", shown(source), err))
	}
	l := &line{source: src, index: index}
	l.fetch = fetch.New(src, index, fetch.Options{Requests: opt.Connections})
	l.disk = cloop.NewImage(index, l.fetch, cache.NewMemory(memory, index.BlockSize()))
	return l, nil
}

// openSource opens the bytes of the image at arg.
func openSource(ctx context.Context, arg string, opt sourceOptions, log *slog.Logger) (source, error) {
	if path, ok := localPath(arg); ok {
		f, err := localfile.Open(path)
		if err != nil {
			return nil, withoutPath(err)
		}
		return f, nil
	}
	options := httpblock.Options{
		Timeout:     time.Duration(opt.Timeout),
		Connections: opt.Connections,
		Logger:      log,
	}
	if err := opt.Access.apply(&options); err != nil {
		return nil, err
	}
	src, err := httpblock.Open(ctx, arg, options)
	if err != nil {
		return nil, err
	}
	if !src.Validated() {
		log.Warn("the server gives neither ETag nor Last-Modified: only a change of the file's size will be noticed", "source", shown(arg))
	}
	return src, nil
}

// localPath says whether arg names a file of this machine: a path, or a URL
// with the scheme file.
func localPath(arg string) (path string, ok bool) {
	if !strings.Contains(arg, "://") {
		return arg, true
	}
	u, err := url.Parse(arg)
	if err != nil || u.Scheme != "file" || u.Host != "" && u.Host != "localhost" {
		return "", false
	}
	return u.Path, true
}

// Close ends everything that is under way.
func (l *line) Close() {
	l.fetch.Close()
	l.source.Close()
}

// checkSource says whether source is of a kind that can be opened.
func checkSource(source string) error {
	if _, ok := localPath(source); ok && source != "" {
		return nil
	}
	if err := httpblock.CheckURL(source); err != nil {
		return usage(fmt.Errorf("%s: %w", shown(source), err))
	}
	return nil
}

// shown is the form of an argument that may be shown: a URL loses its secrets.
func shown(arg string) string {
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
	u, err := url.Parse(arg)
	if err != nil {
		return "SOURCE" // what can't be parsed may hold a password anywhere
	}
	return httpblock.Redact(u)
}
