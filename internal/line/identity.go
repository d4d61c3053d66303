package line

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cache"
)

// identityBlocks is how many of the last blocks' places are a part of an image's
// identity: their offsets are the sum of all lengths before them.
const identityBlocks = 64

// Identity is a digest of what tells the image from others and from its other versions.
// Wherever an image is, it is the same if its size, first bytes, last blocks' places and
// date are; without a date what the server says of its version counts.
func (l *Line) Identity(ctx context.Context) (string, error) {
	return l.identity(ctx, "cloopfs base", l.version())
}

// identity is a digest, for the purpose named, of what tells the image from others,
// wherever it is.
func (l *Line) identity(ctx context.Context, purpose, version string) (string, error) {
	head := make([]byte, min(blockio.HeadSize, l.source.Size()))
	if _, err := l.source.ReadAtContext(ctx, head, 0); err != nil {
		return "", err
	}
	list := []string{purpose, strconv.FormatInt(l.source.Size(), 10), strconv.FormatInt(l.index.DiskSize(), 10), string(head), version}
	for n := max(0, l.index.Blocks()-identityBlocks); n < l.index.Blocks(); n++ {
		e, err := l.index.Extent(ctx, n)
		if err != nil {
			return "", err
		}
		list = append(list, fmt.Sprint(e))
	}
	return digest(list...), nil
}

// version tells versions of the file apart that look the same.
func (l *Line) version() string {
	c := l.file.cached
	switch t := l.file.ModTime(); {
	case !t.IsZero():
		return strconv.FormatInt(t.Unix(), 10)
	case c != nil && !strings.HasPrefix(c.entry.Validator(), cache.Trusted):
		return c.entry.Validator()
	case c == nil && l.file.remote != nil:
		return l.file.remote.Copy().Validator
	}
	return ""
}
