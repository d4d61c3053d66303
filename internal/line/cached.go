package line

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"log/slog"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/units"
)

// Defaults of the on-disk cache. They are variables for the tests' sake, which are
// linked with others.
var (
	RootCacheDir     = "/var/cache/cloopfs"
	DefaultCacheSize = "10GiB"
)

// CacheOptions are the flags about the on-disk cache.
type CacheOptions struct {
	Dir       cli.Name // absolute after Complete
	Size      units.Size
	MinFree   units.Size
	Key       cli.Name
	TrustSize bool
	Offline   bool

	root string // that proves all of the file: it names it, wherever it is
}

// addDirFlags adds the flags of the cache as a whole.
func (o *CacheOptions) addDirFlags(f *pflag.FlagSet) {
	if err := o.Size.Set(DefaultCacheSize); err != nil {
		panic("cloopfs: internal error: " + err.Error())
	}
	o.MinFree = 1 << 30
	f.Var(&o.Dir, "cache-dir", "directory of the on-disk cache (default $XDG_CACHE_HOME/cloopfs, for root "+RootCacheDir+")")
	f.Var(&o.Size, "cache-size", "bound of the whole cache directory; 0 means no on-disk cache")
	f.Var(&o.MinFree, "min-free", "leave this much free on the cache's disk")
}

// addSourceFlags adds the flags of one image's place in the cache.
func (o *CacheOptions) addSourceFlags(f *pflag.FlagSet) {
	o.addKeyFlag(f)
	f.BoolVar(&o.TrustSize, "trust-size", false, "use the cache although the server gives no ETag or Last-Modified")
	f.BoolVar(&o.Offline, "offline", false, "never ask the network: what is not in the cache is an error at once")
}

// addKeyFlag adds the flag that names an image.
func (o *CacheOptions) addKeyFlag(f *pflag.FlagSet) {
	f.Var(&o.Key, "cache-key", "the image's `NAME` in the cache, in place of its URL")
}

// Complete finds out where the cache is. Without a home there is none.
func (o *CacheOptions) Complete() error {
	if o.Offline && o.Size == 0 {
		return cli.Usage(errors.New("--offline without an on-disk cache (--cache-size 0)"))
	}
	dir := string(o.Dir)
	if dir == "" {
		var err error
		if dir, err = defaultCacheDir(); err != nil {
			return nil // OpenDir says so
		}
	}
	abs, err := filepath.Abs(dir)
	o.Dir = cli.Name(abs)
	return err
}

// defaultCacheDir is where the cache is if nobody says.
func defaultCacheDir() (string, error) {
	if os.Geteuid() == 0 {
		return RootCacheDir, nil
	}
	home, err := os.UserCacheDir()
	switch {
	case err == nil:
		return filepath.Join(home, "cloopfs"), nil
	case os.Getenv("XDG_CACHE_HOME") != "":
		return "", errors.New("$XDG_CACHE_HOME is no absolute path")
	}
	return "", errors.New("neither $XDG_CACHE_HOME nor $HOME is set")
}

// OpenDir opens the cache directory. existing is for who only looks: see
// cache.Options.
func (o *CacheOptions) OpenDir(log *slog.Logger, existing bool) (*cache.Dir, error) {
	if o.Dir == "" {
		_, err := defaultCacheDir()
		return nil, err
	}
	dir, err := cache.OpenDir(string(o.Dir), cache.Options{Size: int64(o.Size), MinFree: int64(o.MinFree), Existing: existing, Logger: log})
	if err != nil {
		return nil, fmt.Errorf("%s: %w", o.Dir, cli.WithoutPath(err))
	}
	return dir, nil
}

// NameOf is the name of a file on servers in the cache.
func (o *CacheOptions) NameOf(rawURL string) string {
	u, err := url.Parse(rawURL)
	if err != nil {
		return rawURL // it was parsed before
	}
	return o.keyOf(u)
}

// keyOf is NameOf, of a URL taken apart.
func (o *CacheOptions) keyOf(u *url.URL) string {
	if o.Key != "" {
		return "key " + string(o.Key)
	}
	return server(u) + u.EscapedPath()
}

// rootValidator begins the validator of a file that is named by a root. No header can have it.
const rootValidator = "manifest\n"

// rootKey is the name in the cache of a file that is proven by a root.
func rootKey(root string) string { return "manifest " + RootPrefix + root }

// nameProven has a file that is an image with a manifest named by its root. It waits for the
// manifest. An image inside another is a part of a file that nobody has signed.
func (o *Options) nameProven(ctx context.Context, at Location) (err error) {
	if at.Inside == "" {
		o.Cache.root, err = o.proving.root(ctx)
	}
	return err
}

// address is what tells files apart offline that have one key. A name that was
// given stands for one image, whatever the URL.
func (o *CacheOptions) address(rawURL string) string {
	if o.Key != "" {
		return ""
	}
	base, _, _ := strings.Cut(rawURL, "#")
	_, query, _ := strings.Cut(base, "?")
	return digest(o.NameOf(rawURL), query)
}

// cached is a file on servers with what is kept of it on disk.
type cached struct {
	*cache.Bytes
	entry *cache.Entry
	dir   *cache.Dir
	file  source // the file itself
	keyOf func(*url.URL) string
	// proven says that the file is named by a root: no server has to say which it is.
	proven bool
}

func (c *cached) ModTime() time.Time {
	if t := c.entry.ModTime(); !t.IsZero() {
		return t
	}
	return c.file.ModTime()
}

func (c *cached) Close() error {
	if src, ok := c.file.(*counting); ok && !c.proven && !strings.HasPrefix(c.entry.Validator(), cache.Trusted) {
		for _, other := range src.Adopted() {
			// Who may not write it down fetches again what it sees under that.
			if c.entry.Saw(cache.Identity{Key: c.keyOf(other.URL), Validator: other.Validator, Size: src.Size()}) != nil {
				break
			}
		}
	}
	c.entry.Close()
	c.dir.Close()
	return c.file.Close()
}

// errNoValidator is why a file is not kept.
var errNoValidator = errors.New("the server gives neither ETag nor Last-Modified")

// keep puts the cache before a file on servers.
func (o *CacheOptions) keep(ctx context.Context, at Location, src *counting, log *slog.Logger) (*cached, error) {
	found := src.Copy()
	id := cache.Identity{Key: o.keyOf(found.URL), Validator: found.Validator, Size: src.Size(), Address: o.address(at.URL)}
	if o.root != "" {
		id.Key, id.Validator = rootKey(o.root), rootValidator+o.root
	}
	if id.Validator == "" {
		if !o.TrustSize {
			return nil, errNoValidator
		}
		// Who sees which file is up to the server: what one user may see is not
		// another's.
		id.Validator = cache.Trusted + digest(src.Credentials(), id.Address)
	}
	dir, err := o.OpenDir(log, false)
	if err != nil {
		return nil, err
	}
	entry, err := o.find(ctx, dir, id, at, src)
	if err != nil {
		dir.Close()
		return nil, fmt.Errorf("%s: %w", o.Dir, cli.WithoutPath(err))
	}
	if key := o.NameOf(at.URL); o.root != "" { // of which no server has to say that it is the one
		// Where it is, so that it is found there: by cache list and remove, and offline.
		if err := entry.Saw(cache.Identity{Key: key, Validator: id.Validator, Size: id.Size}); err != nil {
			log.Debug("where the image is will not be found in the cache", "error", err)
		}
	}
	entry.Confirm()
	return &cached{Bytes: entry.Bytes(src), entry: entry, dir: dir, file: src, keyOf: o.keyOf, proven: o.root != ""}, nil
}

// find opens the file's entry. Two files with one validator exist: they are told
// apart by their first bytes, which are here already.
func (o *CacheOptions) find(ctx context.Context, dir *cache.Dir, id cache.Identity, at Location, src *counting) (*cache.Entry, error) {
	entry, err := dir.Open(id, at.String(), src.ModTime())
	if err != nil {
		return nil, err
	}
	if o.root != "" {
		return entry, nil // there is but one, and what is in it is proven
	}
	head := make([]byte, min(blockio.HeadSize, src.Size()))
	if _, err := src.ReadAtContext(ctx, head, 0); err != nil || !entry.Contradicts(head) {
		return entry, nil
	}
	entry.Close()
	id.Validator += ", head " + digest(string(head))
	return dir.Open(id, at.String(), src.ModTime())
}

// digest is a name for a list of strings that does not tell them.
func digest(list ...string) string {
	h := sha256.New()
	for _, s := range list {
		fmt.Fprintf(h, "%d:%s\n", len(s), s)
	}
	return hex.EncodeToString(h.Sum(nil)[:16])
}

// unclaimed is the blocks that are kept, for who never fetches any: he neither
// claims nor waits.
type unclaimed struct{ *cache.Blocks }

func (unclaimed) Claim(blockio.Extent, blockio.Class) (release func(), ok bool) {
	return func() {}, true
}
