package line

import (
	"context"
	"errors"
	"log/slog"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/signature"
	"github.com/cloopfs/cloopfs/localfile"
)

// source is a file's bytes, wherever they are.
type source interface {
	blockio.Source
	ModTime() time.Time // zero if it is not known
	Close() error
}

// file is a file as it was found at a location, be it the image or another's
// inside.
type file struct {
	source
	remote *counting // nil for a local file, and for one that is not asked
	cached *cached   // nil if nothing of it is kept on disk
	// uncached is why, if something should be.
	uncached error
}

// openFile opens the file that is at a location, with what is kept of it.
func openFile(ctx context.Context, at Location, opt Options, log *slog.Logger) (*file, error) {
	if at.URL == "" {
		f, err := localfile.Open(at.Path)
		if err != nil {
			return nil, cli.WithoutPath(err)
		}
		return &file{source: f}, nil
	}
	if opt.Cache.Offline {
		if err := opt.nameProven(ctx, at); err != nil {
			return nil, err
		}
		c, err := opt.Cache.offline(at, log)
		if err != nil {
			return nil, err
		}
		return &file{source: c, cached: c}, nil
	}
	src, err := openRemote(ctx, at, opt, log)
	if err != nil {
		return nil, err
	}
	f := &file{source: src, remote: src}
	if opt.Cache.Size == 0 || src.Size() == 0 {
		return f, nil
	}
	if err := opt.nameProven(ctx, at); err != nil {
		f.Close()
		return nil, err
	}
	c, err := opt.Cache.keep(ctx, at, src, log)
	if err != nil {
		f.uncached = err
		return f, nil
	}
	f.source, f.cached = c, c
	return f, nil
}

// notDiskError says what an image is instead of a disk.
type notDiskError struct{ kind signature.Kind }

func (e *notDiskError) Error() string {
	if e.kind.Name == "" {
		return "neither a cloop image nor a disk of a known kind"
	}
	return e.kind.Name + ", neither a cloop image nor a disk"
}

// openIndex finds out what the image is, unless format says it, and opens its
// index. A cloop image may have its header at the end and anything at the start,
// so that is looked for first.
func openIndex(ctx context.Context, src blockio.ReaderAt, format string) (*cloop.Index, signature.Kind, error) {
	var kind signature.Kind
	if format != formatRaw {
		index, err := cloop.Open(ctx, src)
		if format == formatCloop || !errors.Is(err, cloop.ErrFormat) {
			return index, kind, err
		}
		if kind, err = signature.Detect(ctx, src); err != nil {
			return nil, kind, err
		}
		if !kind.Disk {
			return nil, kind, &notDiskError{kind}
		}
	}
	index, err := cloop.Raw(src.Size())
	return index, kind, err
}
