package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"strings"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/httpblock"
)

// mirrorFlag collects the values of --mirror. It shows no credentials, and leaves errors
// to check: the flags' library would show them.
type mirrorFlag []string

func (m *mirrorFlag) Set(s string) error {
	*m = append(*m, s)
	return nil
}

func (m *mirrorFlag) String() string {
	list := make([]string, len(*m))
	for i, s := range *m {
		list[i] = shown(s)
	}
	return strings.Join(list, ",")
}

func (m *mirrorFlag) Type() string { return "URL" }

// maxMirrors bounds how many mirrors there are: each is asked from time to time.
const maxMirrors = 16

// check says whether the mirrors are of a SOURCE.
func (m *mirrorFlag) check(source location) error {
	switch {
	case len(*m) == 0:
		return nil
	case source.URL == "":
		return usage(errors.New("--mirror: SOURCE is a file of this machine"))
	case len(*m) > maxMirrors:
		return usage(fmt.Errorf("--mirror: more than %d", maxMirrors))
	}
	for _, s := range *m {
		if strings.Contains(s, "#") {
			return usage(fmt.Errorf("--mirror %s: is given without a fragment", shown(s)))
		}
		if err := httpblock.CheckURL(s); err != nil {
			return usage(fmt.Errorf("--mirror %s: %w", shown(s), err))
		}
	}
	return nil
}

// pieceSize is how much is compared of a block of a mirror, or of the end of its index.
const pieceSize = 4 << 10

// joinMirrors lets those mirrors in that have the image: the end of its index and some of
// its blocks, among them the first and the last. It ends with ctx.
func (l *line) joinMirrors(ctx context.Context, log *slog.Logger) {
	var extents []blockio.Extent
	if t := l.index.Table(); t.Len > 0 {
		n := min(t.Len, pieceSize)
		extents = append(extents, blockio.Extent{Off: t.End() - n, Len: n})
	}
	const among = 4
	for i := range int64(among) {
		e, err := l.index.Extent(ctx, i*(l.index.Blocks()-1)/(among-1))
		if err != nil {
			log.Debug("a block to compare mirrors by", "error", err)
			continue
		}
		extents = append(extents, blockio.Extent{Off: e.Off, Len: min(e.Len, pieceSize)})
	}
	var pieces []httpblock.Piece
	for _, e := range extents {
		for at := range blockio.Within(l.parts, e) {
			p := make([]byte, at.Len)
			if _, err := l.file.http.ReadAtContext(ctx, p, at.Off); err != nil {
				log.Debug("bytes to compare mirrors by", "error", err)
				continue
			}
			pieces = append(pieces, httpblock.Piece{Off: at.Off, Bytes: p})
		}
	}
	if ctx.Err() == nil {
		l.file.http.Join(pieces)
	}
}
