package main

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/profile"
)

// identityBlocks is how many of the last blocks' places are a part of an image's
// identity: their offsets are the sum of all lengths before them.
const identityBlocks = 64

// identity is a digest, for the purpose named, of what tells the image from others,
// wherever it is.
func (l *line) identity(ctx context.Context, purpose, version string) (string, error) {
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
func (l *line) version() string {
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

// profiled is the image, as profiles know it.
func (l *line) profiled(ctx context.Context) (profile.Image, error) {
	id, err := l.identity(ctx, "cloopfs profile", "")
	return profile.Image{Size: l.source.Size(), Blocks: l.index.Blocks(), Identity: id}, err
}
