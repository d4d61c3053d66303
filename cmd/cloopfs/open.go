package main

import (
	"context"
	"fmt"
	"log/slog"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/fetch"
	"github.com/cloopfs/cloopfs/httpblock"
)

// sourceOptions are the flags of every command that takes a SOURCE.
type sourceOptions struct {
	Timeout     durationValue
	Connections int
}

func (o *sourceOptions) addFlags(f *pflag.FlagSet) {
	o.Timeout = durationValue(30 * time.Second)
	f.Var(&o.Timeout, "timeout", "a read that can't be served within this fails; 0 waits for ever")
	f.IntVar(&o.Connections, "connections", 32, "upper limit of parallel requests")
}

func (o *sourceOptions) validate() error {
	if o.Connections < 1 || o.Connections > 1024 {
		return usage(fmt.Errorf("--connections %d: not between 1 and 1024", o.Connections))
	}
	return nil
}

// line is the whole way from a web server to the disk.
type line struct {
	source *httpblock.Source
	fetch  *fetch.Scheduler
	disk   *cloop.Image
	index  *cloop.Index
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
	src, err := httpblock.Open(ctx, source, httpblock.Options{
		Timeout:     time.Duration(opt.Timeout),
		Connections: opt.Connections,
		UserAgent:   "cloopfs/" + version(),
		Logger:      log,
	})
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

// Close ends everything that is under way.
func (l *line) Close() {
	l.fetch.Close()
	l.source.Close()
}

// checkSource says whether source is of a kind that can be opened.
func checkSource(source string) error {
	if err := httpblock.CheckURL(source); err != nil {
		return usage(fmt.Errorf("%s: %w", shown(source), err))
	}
	return nil
}

// shown is the form of an argument that may be shown: a URL loses its secrets.
func shown(arg string) string {
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
