package line

import (
	"context"
	"errors"
	"fmt"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/internal/cli"
)

// Store is what is kept on disk of the image's blocks; nil if nothing is.
func (l *Line) Store() *cache.Blocks { return l.store }

// Entry is what is kept on disk of the file; nil if nothing is.
func (l *Line) Entry() *cache.Entry {
	if l.file.cached == nil {
		return nil
	}
	return l.file.cached.entry
}

// CacheDir is where it is kept; nil if nothing is.
func (l *Line) CacheDir() *cache.Dir {
	if l.file.cached == nil {
		return nil
	}
	return l.file.cached.dir
}

// HasBytes says whether an extent of the image that is no block is in the cache: there
// is an Entry.
func (l *Line) HasBytes(e blockio.Extent) bool {
	return l.file.cached.entry.HaveBytes(l.parts, e)
}

// ErrNotStored says that what was fetched could not be kept.
var ErrNotStored = errors.New("what is fetched can't be stored")

// NotStored is ErrNotStored, and where: there is an Entry.
func (l *Line) NotStored() error {
	if l.file.cached.entry.Removed() {
		return fmt.Errorf("%w in %s: the image was removed from there", ErrNotStored, l.file.cached.dir.Path())
	}
	return fmt.Errorf("%w in %s", ErrNotStored, l.file.cached.dir.Path())
}

// piece is how many bytes are read at a time of what is no block.
const piece = 1 << 20

// ReadBytes reads extents of the image that are no blocks, and so brings them into the
// cache. tell hears how many have come.
func (l *Line) ReadBytes(ctx context.Context, list []blockio.Extent, tell func(n int)) error {
	for _, e := range list {
		for e.Len > 0 {
			p := make([]byte, min(e.Len, piece))
			if _, err := l.source.ReadAtContext(ctx, p, e.Off); err != nil {
				return fmt.Errorf("read %d bytes at %d: %w", len(p), e.Off, err)
			}
			tell(len(p))
			e.Off, e.Len = e.Off+int64(len(p)), e.Len-int64(len(p))
		}
	}
	return nil
}

var errNoCache = errors.New("there is no on-disk cache (--cache-size 0)")

// Pin keeps what is in the cache of the image, and what will be.
func (l *Line) Pin() error {
	if l.store != nil {
		return errors.Join(l.file.cached.entry.Pin(), l.proof.pin())
	}
	if err := l.file.uncached; err != nil {
		return &cli.Error{Code: cli.ExitFailure, Err: err, Hint: Hint(err)}
	}
	return errNoCache
}
