package line

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"strings"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cache"
)

// ErrOffline is what a read gets that would have to ask the network.
var ErrOffline = errors.New("not cached (offline)")

// offline opens what is kept of a file on servers, without a word to that.
func (o *CacheOptions) offline(at Location, log *slog.Logger) (*cached, error) {
	dir, err := o.OpenDir(log, true)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, cache.ErrNoCache) {
		return nil, ErrOffline
	}
	if err != nil {
		return nil, err
	}
	key, address := o.NameOf(at.URL), o.address(at.URL)
	if o.root != "" {
		key, address = rootKey(o.root), ""
	}
	entry, err := dir.Find(key, address)
	if err != nil {
		dir.Close()
		if errors.Is(err, cache.ErrNotCached) {
			err = ErrOffline
		}
		return nil, err
	}
	// What is kept by a root was stored before it was compared, but for what is complete.
	if o.root == "" && strings.HasPrefix(entry.Validator(), rootValidator) && !entry.Complete() {
		entry.Close()
		dir.Close()
		return nil, ErrOffline
	}
	return alone(dir, entry), nil
}

// hasAll says whether all of a file on servers is in the cache, as it was when
// a server was asked last.
func (o *CacheOptions) hasAll(at Location) bool {
	if at.URL == "" || o.Offline || o.Size == 0 {
		return false
	}
	dir, err := o.OpenDir(slog.New(slog.DiscardHandler), true)
	if err != nil {
		return false
	}
	defer dir.Close()
	entry, err := dir.Find(o.NameOf(at.URL), o.address(at.URL))
	if err != nil {
		return false
	}
	defer entry.Close()
	return entry.Complete()
}

// OpenEntry opens the image at a location as far as it is in an entry of the cache.
// Neither is closed with the line.
func OpenEntry(ctx context.Context, dir *cache.Dir, entry *cache.Entry, at Location) (*Line, error) {
	kept := alone(dir, entry)
	l := &Line{at: at, file: &file{source: lent{kept}, cached: kept}}
	err := l.join(ctx, Options{Format: formatAuto, Connections: 1}, 0)
	if errors.As(err, new(*notDiskError)) { // it has blocks nevertheless if somebody wanted them as they are
		err = l.join(ctx, Options{Format: formatRaw, Connections: 1}, 0)
	}
	if err != nil {
		l.Close()
		return nil, err
	}
	return l, nil
}

// lent is what is kept of a file for who does not close it.
type lent struct{ *cached }

func (lent) Close() error { return nil }

// alone is what is kept of a file, and no more of it.
func alone(dir *cache.Dir, entry *cache.Entry) *cached {
	none := absent{size: entry.Size()}
	return &cached{Bytes: entry.Bytes(none), entry: entry, dir: dir, file: none}
}

// absent is a file that can't be asked for anything.
type absent struct{ size int64 }

func (a absent) Size() int64 { return a.size }

func (absent) ModTime() time.Time { return time.Time{} }

func (absent) Close() error { return nil }

func (absent) OpenRange(context.Context, blockio.Range) (io.ReadCloser, error) {
	return nil, ErrOffline
}

func (absent) ReadAtContext(context.Context, []byte, int64) (int, error) { return 0, ErrOffline }
