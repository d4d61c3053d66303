package line

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/units"
	"github.com/cloopfs/cloopfs/profile"
)

// ReplayRemote replays the profile at url, or if that is empty the one that lies beside
// the image. That there is none, or none of this image, is no error.
func (l *Line) ReplayRemote(ctx context.Context, url string, opt Options, log *slog.Logger) {
	at, find := Location{URL: url}, getProfile
	if url == "" {
		at.URL, find = besideURL(l.at, ".profile"), l.profileBeside
	}
	if l.file.remote == nil || at.URL == "" {
		return
	}
	if !sameServer(l.at.URL, at.URL) {
		opt.Access = opt.Access.elsewhere()
	}
	log = log.With("profile", at.String())
	p, err := find(ctx, at, opt, log)
	if err == nil && p != nil {
		err = l.Replay(ctx, p)
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

// profileBeside gets the profile at a place beside the image; nil if there is none. The
// answer is kept, also that what is there is no profile: that is an error but once.
func (l *Line) profileBeside(ctx context.Context, at Location, opt Options, log *slog.Logger) (*profile.Profile, error) {
	c := l.file.cached
	if c != nil {
		content, old, err := c.entry.Beside(at.String())
		if err == nil && old >= 0 && old < profileTime {
			if len(content) == 0 {
				return nil, nil
			}
			if p, err := profile.Read(bytes.NewReader(content)); err == nil {
				return p, nil
			}
		}
	}
	content, err := download(ctx, at, opt, log)
	var p *profile.Profile
	if err == nil {
		p, err = profile.Read(bytes.NewReader(content))
	}
	if ctx.Err() != nil || err != nil && !answered(err) {
		return nil, err
	}
	if err != nil {
		content = nil
	}
	if c != nil {
		if err := c.keepBeside(at.String(), content); err != nil {
			log.Debug("whether there is a profile is not kept", "error", err)
		}
	}
	if errors.As(err, new(blockio.Answer)) {
		return nil, nil
	}
	return p, err
}

// answered says that err, about a profile beside an image, is what a server has said,
// and would say again.
func answered(err error) bool {
	if said, ok := errors.AsType[blockio.Answer](err); ok {
		return !said.Passing()
	}
	for _, bad := range []error{profile.ErrFormat, profile.ErrVersion, profile.ErrDamaged, blockio.ErrEmpty} {
		if errors.Is(err, bad) {
			return true
		}
	}
	return !unreachable(err)
}

// keepBeside keeps what was found beside the image, if there is room for it.
func (c *cached) keepBeside(name string, content []byte) error {
	if len(content) > 0 {
		room, err := c.dir.Fits()
		if err != nil {
			return err
		}
		if room < int64(len(content)) {
			return errors.New("no room")
		}
	}
	return c.entry.SetBeside(name, content)
}

// getProfile gets the profile at a place.
func getProfile(ctx context.Context, at Location, opt Options, log *slog.Logger) (*profile.Profile, error) {
	content, err := download(ctx, at, opt, log)
	if err != nil {
		return nil, err
	}
	return profile.Read(bytes.NewReader(content))
}

// download gets a file that may be a profile.
func download(ctx context.Context, at Location, opt Options, log *slog.Logger) ([]byte, error) {
	opt.Mirrors = nil // they are of the image
	src, err := openRemote(ctx, at, opt, log)
	if err != nil {
		return nil, err
	}
	defer src.Close()
	if src.Size() > profile.MaxSize {
		return nil, fmt.Errorf("%w: it has %s", profile.ErrFormat, units.FormatSize(src.Size()))
	}
	content := make([]byte, src.Size())
	if _, err := src.ReadAtContext(ctx, content, 0); err != nil {
		return nil, err
	}
	return content, nil
}

// Replay fetches what a profile says while no reader waits, if there is a server to
// ask. The error wraps profile.ErrOther if it is of another image.
func (l *Line) Replay(ctx context.Context, p *profile.Profile) error {
	err := l.CheckProfile(ctx, p)
	if err == nil && l.file.remote != nil {
		l.fetch.Replay(p.Spans())
	}
	return err
}

// CheckProfile says whether a profile is of the image.
func (l *Line) CheckProfile(ctx context.Context, p *profile.Profile) error {
	of, err := l.profiled(ctx)
	if err != nil {
		return err
	}
	if of != p.Image {
		return profile.ErrOther
	}
	return nil
}

// profiled is the image, as profiles know it.
func (l *Line) profiled(ctx context.Context) (profile.Image, error) {
	id, err := l.identity(ctx, "cloopfs profile", "")
	return profile.Image{Size: l.source.Size(), Blocks: l.index.Blocks(), Identity: id}, err
}
