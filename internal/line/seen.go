package line

import (
	"errors"
	"fmt"
	"io/fs"
	"log/slog"

	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/manifest"
)

var (
	// errOlder says that a manifest is older than one that was seen.
	errOlder = errors.New("an older version than was seen before")
	// errTwoRoots says that two images were signed under one name and version.
	errTwoRoots = errors.New("another image of this version was seen before")
	// errSeen says that what was seen is damaged.
	errSeen = errors.New("what was seen of it before can't be read")
)

// seenName is the name in the cache directory under which the newest manifest is kept of
// the name of an image and a key.
func seenName(key, name string) string { return digest("cloopfs seen", key, name) }

// notOlder says whether a signed manifest may be used: no newer one of its name and key was
// seen, and none of its version that is another. Nothing is remembered without a cache directory.
func (o *ProofOptions) notOlder(p *Proof, c CacheOptions, log *slog.Logger) error {
	if o.Key == "" || c.Size == 0 {
		return nil
	}
	dir, err := c.OpenDir(log, true)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, cache.ErrNoCache) {
		return nil
	}
	if err != nil {
		log.Warn("whether the manifest is older than one seen before is not known", "error", err)
		return nil
	}
	defer dir.Close()
	seen, err := dir.Recall(seenName(o.Key, p.manifest.Name))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return o.refuse(p, fmt.Errorf("%w: %w", errSeen, err))
	}
	_, err = o.compare(p, seen)
	return err
}

// compare says whether the manifest is newer than what was seen before. It is an error if it
// must not be used.
func (o *ProofOptions) compare(p *Proof, seen []byte) (newer bool, err error) {
	m := p.manifest
	old, err := manifest.Parse(seen)
	switch {
	case err != nil:
		err = o.refuse(p, fmt.Errorf("%w: %w", errSeen, err))
		return err == nil, err
	case m.Version < old.Version:
		err = o.refuse(p, fmt.Errorf("%w: %s, version %d, and version %d was seen", errOlder, m.Name, m.Version, old.Version))
	case m.Version == old.Version && m.Root != old.Root:
		err = o.refuse(p, fmt.Errorf("%w: %s, version %d, with root %s", errTwoRoots, m.Name, m.Version, old.Root))
	}
	return m.Version > old.Version, err
}

// refuse is why a manifest must not be used; nil if that is accepted.
func (o *ProofOptions) refuse(p *Proof, why error) error {
	if o.AllowOlder {
		return nil
	}
	return fmt.Errorf("%s: %w", p.notes[0].at, why)
}

// remember notes the version of a signed manifest whose image has been opened. What can't
// be written down is a warning.
func (o *ProofOptions) remember(p *Proof, c CacheOptions, log *slog.Logger) error {
	if p == nil || o.Key == "" || c.Size == 0 {
		return nil
	}
	var refused error
	dir, err := c.OpenDir(log, false)
	if err == nil {
		defer dir.Close()
		err = dir.Remember(seenName(o.Key, p.manifest.Name), p.manifest.Text(), func(seen []byte) (newer bool) {
			newer, refused = o.compare(p, seen) // again: another process may have been faster
			return newer
		})
	}
	if err != nil {
		log.Warn("the version of the manifest is not remembered", "error", err)
	}
	return refused
}
