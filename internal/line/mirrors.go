package line

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/cli"
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
		list[i] = Shown(s)
	}
	return strings.Join(list, ",")
}

func (m *mirrorFlag) Type() string { return "URL" }

// maxMirrors bounds how many mirrors there are: each is asked from time to time.
const maxMirrors = 16

// check says whether the mirrors are of a SOURCE.
func (m *mirrorFlag) check(source Location) error {
	switch {
	case len(*m) == 0:
		return nil
	case source.URL == "":
		return cli.Usage(errors.New("--mirror: SOURCE is a file of this machine"))
	case len(*m) > maxMirrors:
		return cli.Usage(fmt.Errorf("--mirror: more than %d", maxMirrors))
	}
	of, err := source.kind()
	if err != nil {
		return cli.Usage(err)
	}
	for i, s := range *m {
		if s == source.URL || slices.Contains((*m)[:i], s) {
			return cli.Usage(fmt.Errorf("--mirror %s: is given twice", Shown(s)))
		}
		if strings.Contains(s, "#") {
			return cli.Usage(fmt.Errorf("--mirror %s: is given without a fragment", Shown(s)))
		}
		if err := of.mirror(s); err != nil {
			return cli.Usage(fmt.Errorf("--mirror %s: %w", Shown(s), err))
		}
	}
	return nil
}

// pieceSize is how much is compared of a block of a mirror, or of the end of its index.
const pieceSize = 4 << 10

const (
	// pieceTime bounds how long pieces are waited for: mirrors are needed most where SOURCE
	// does not answer.
	pieceTime = 10 * time.Second
	// pieceBlocks is how many blocks pieces are taken of.
	pieceBlocks = 4
)

// joinMirrors lets those mirrors in that have the image: the end of its index and some of
// its blocks, among them the first and the last. It ends with ctx.
func (l *Line) joinMirrors(ctx context.Context, log *slog.Logger) {
	pieces, err := l.pieces(ctx)
	if ctx.Err() != nil {
		return
	}
	if err != nil {
		log.Warn("mirrors are compared by less than they should be", "pieces", len(pieces), "error", err)
	}
	l.file.remote.Join(pieces)
}

// pieces reads what mirrors are compared by, as far as that comes in time.
func (l *Line) pieces(ctx context.Context) (pieces []blockio.Piece, err error) {
	ctx, cancel := context.WithTimeout(ctx, pieceTime)
	defer cancel()
	var extents []blockio.Extent
	if t := l.index.Table(); t.Len > 0 {
		n := min(t.Len, pieceSize)
		extents = append(extents, blockio.Extent{Off: t.End() - n, Len: n})
	}
	last := l.index.Blocks() - 1
	for i := range min(pieceBlocks, last+1) {
		e, err := l.index.Extent(ctx, i*last/max(1, min(pieceBlocks-1, last)))
		if err != nil {
			return pieces, err
		}
		extents = append(extents, blockio.Extent{Off: e.Off, Len: min(e.Len, pieceSize)})
	}
	for _, e := range extents {
		for at := range blockio.Within(l.parts, e) {
			p := make([]byte, at.Len)
			if _, err := l.file.remote.ReadAtContext(ctx, p, at.Off); err != nil {
				return pieces, err
			}
			pieces = append(pieces, blockio.Piece{Off: at.Off, Bytes: p})
		}
	}
	return pieces, nil
}
