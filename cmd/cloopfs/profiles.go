package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/fetch"
	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/profile"
)

// profileOptions say what is fetched before it is asked for.
type profileOptions struct {
	Profile   nameValue // a file's path, absolute after complete, or URL, or one of the values below; empty: none
	Record    nameValue // absolute after complete; empty: nothing is recorded
	Speculate aheadValue
}

// Values of --profile that are neither a file's path nor a URL.
const (
	profileAuto = "auto"
	profileNone = "none"
)

// aheadValue is the value of --speculate.
type aheadValue fetch.Ahead

func (v *aheadValue) Set(s string) error {
	switch s {
	case "auto":
		*v = aheadValue(fetch.Neighbours)
	case "off":
		*v = aheadValue(fetch.Sequential)
	default:
		return errors.New("neither auto nor off")
	}
	return nil
}

func (v *aheadValue) String() string {
	if fetch.Ahead(*v) == fetch.Neighbours {
		return "auto"
	}
	return "off"
}

func (v *aheadValue) Type() string { return "auto|off" }

func (o *profileOptions) addFlags(f *pflag.FlagSet) {
	o.Profile, o.Speculate = profileAuto, aheadValue(fetch.Neighbours)
	f.Var(&o.Profile, "profile", "access trace to replay: `FILE|URL`, auto (SOURCE.profile, if there is one) or none")
	f.Var(&o.Record, "record", "write which blocks are read, in the order of their first use, to `FILE`")
	f.Var(&o.Speculate, "speculate", "fetch what is likely to be read while the line is idle, or not")
}

func (o *profileOptions) complete() (err error) {
	switch {
	case o.isFile():
		err = makeAbsolute(&o.Profile)
	case o.isURL():
		_, err = parseSource(string(o.Profile))
	}
	if err == nil && o.Record != "" {
		err = makeAbsolute(&o.Record)
	}
	return err
}

func makeAbsolute(path *nameValue) error {
	abs, err := filepath.Abs(string(*path))
	*path = nameValue(abs)
	return err
}

func (o *profileOptions) isURL() bool { return strings.Contains(string(o.Profile), "://") }

func (o *profileOptions) isFile() bool {
	return !o.isURL() && o.Profile != profileAuto && o.Profile != profileNone && o.Profile != ""
}

// file is the profile in the file that is asked for, nil if none is.
func (o *profileOptions) file() (*profile.Profile, error) {
	if !o.isFile() {
		return nil, nil
	}
	p, err := readProfile(string(o.Profile))
	if err != nil {
		return nil, fmt.Errorf("--profile: %w", err)
	}
	return p, nil
}

// readProfile reads the profile in a file.
func readProfile(path string) (*profile.Profile, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	p, err := profile.Read(f)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", quote(path), err)
	}
	return p, nil
}

// profiled is the image, as profiles know it.
func (l *line) profiled(ctx context.Context) (profile.Image, error) {
	id, err := l.identity(ctx, "cloopfs profile", "")
	return profile.Image{Size: l.source.Size(), Blocks: l.index.Blocks(), Identity: id}, err
}

// replay fetches what a profile says while no reader waits. The error wraps
// profile.ErrOther if it is of another image.
func (l *line) replay(ctx context.Context, p *profile.Profile) error {
	of, err := l.profiled(ctx)
	if err != nil {
		return err
	}
	if of != p.Image {
		return profile.ErrOther
	}
	spans := make([]blockio.Span, len(p.Runs))
	for i, r := range p.Runs {
		spans[i] = blockio.Span{First: r.First, Count: r.Count}
	}
	l.fetch.Replay(spans)
	return nil
}

// replayRemote replays the profile that is asked for by its URL, or that lies beside
// the image. That there is none, or none of this image, is no error.
func (o *profileOptions) replayRemote(ctx context.Context, l *line, line sourceOptions, log *slog.Logger) {
	at := location{URL: string(o.Profile)}
	if o.Profile == profileAuto {
		at.URL = besideURL(l.at)
	}
	if at.URL == "" || l.file.http == nil || !o.isURL() && o.Profile != profileAuto {
		return
	}
	log = log.With("profile", at.String())
	p, err := o.find(ctx, l, at, line, log)
	if err == nil && p != nil {
		err = l.replay(ctx, p)
	}
	switch {
	case ctx.Err() != nil:
	case err != nil:
		log.Warn("the profile is not used", "error", err)
	case p != nil:
		log.Info("fetching what the profile says", "blocks", p.Blocks())
	}
}

// profileTime is for how long the answer to the question for a profile beside an image
// counts.
const profileTime = 24 * time.Hour

// find gets the profile at a place; nil if there is none beside the image.
func (o *profileOptions) find(ctx context.Context, l *line, at location, line sourceOptions, log *slog.Logger) (*profile.Profile, error) {
	c := l.file.cached
	auto := o.Profile == profileAuto
	if auto && c != nil {
		if content, old, err := c.entry.Beside(at.String()); err == nil && old >= 0 && old < profileTime {
			return parseFound(content)
		}
	}
	content, err := download(ctx, at, line, profile.MaxSize, log)
	var status *httpblock.StatusError
	if auto && errors.As(err, &status) && !status.Temporary() || errors.Is(err, blockio.ErrEmpty) {
		content, err = nil, nil
	}
	if err != nil {
		return nil, err
	}
	if auto && c != nil {
		if err := c.entry.SetBeside(at.String(), content); err != nil {
			log.Debug("the profile is not kept", "error", err)
		}
	}
	return parseFound(content)
}

// parseFound reads a profile; nil if there is nothing.
func parseFound(content []byte) (*profile.Profile, error) {
	if len(content) == 0 {
		return nil, nil
	}
	return profile.Read(strings.NewReader(string(content)))
}

// download gets a whole file of at most so many bytes.
func download(ctx context.Context, at location, opt sourceOptions, most int64, log *slog.Logger) ([]byte, error) {
	src, err := openURL(ctx, at, opt, log)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	if src.Size() > most {
		return nil, fmt.Errorf("%d bytes, at most %d are read", src.Size(), most)
	}
	content := make([]byte, src.Size())
	if _, err := src.ReadAtContext(ctx, content, 0); err != nil && err != io.EOF {
		return nil, err
	}
	return content, nil
}

// besideURL is where the profile of an image on a web server is; empty if there can be
// none: who needs a query for the image may need another for its profile.
func besideURL(at location) string {
	u, err := url.Parse(at.URL)
	if err != nil || at.URL == "" || u.RawQuery != "" || u.ForceQuery {
		return ""
	}
	u.Fragment, u.RawFragment = "", ""
	name := ".profile"
	if at.Inside != "" {
		name = "." + strings.ReplaceAll(at.Inside, "/", ".") + name
	}
	u.RawPath = u.EscapedPath() + (&url.URL{Path: name}).EscapedPath()
	u.Path += name
	return u.String()
}
