package main

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/fetch"
	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/internal/iso9660"
	"github.com/cloopfs/cloopfs/internal/signature"
	"github.com/cloopfs/cloopfs/localfile"
)

// line is the whole way from the image's bytes to the disk.
type line struct {
	at     location
	source source
	http   *httpblock.Source // below source; nil for a local image
	fetch  *fetch.Scheduler
	memory *cache.Memory
	disk   *cloop.Image
	index  *cloop.Index
	kind   signature.Kind // of a raw image, as far as that was looked at
	start  *diskStart     // of a raw image, for whoever takes a closer look
}

// source is the image's bytes, wherever they are.
type source interface {
	blockio.Source
	ModTime() time.Time // zero if it is not known
	Close() error
}

// openLine opens the image at a location and joins the layers over it. memory
// is the bound of the decoded blocks kept, in bytes.
func openLine(ctx context.Context, at location, opt sourceOptions, memory int64, log *slog.Logger) (*line, error) {
	if opt.Timeout > 0 {
		// Each wait is bounded by itself, and says why it failed; this is for
		// a server that drips.
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, time.Duration(opt.Timeout)+time.Second)
		defer cancel()
	}
	fail := func(err error) (*line, error) {
		return nil, sourceFailure(fmt.Errorf("open %s: %w", at, err))
	}
	src, err := openSource(ctx, at, opt, log)
	if err != nil {
		return fail(err)
	}
	index, kind, err := openIndex(ctx, src, opt.Format)
	if err != nil {
		src.Close()
		return fail(err)
	}
	l := &line{at: at, source: src, http: remote(src), index: index, kind: kind}
	l.start = &diskStart{ReaderAt: src}
	l.fetch = fetch.New(src, index, fetch.Options{Requests: opt.Connections})
	l.memory = cache.NewMemory(memory, index.BlockSize())
	l.disk = cloop.NewImage(index, l.fetch, l.memory)
	return l, nil
}

// Close ends everything that is under way.
func (l *line) Close() {
	l.fetch.Close()
	l.source.Close()
}

// openSource opens the bytes of the image.
func openSource(ctx context.Context, at location, opt sourceOptions, log *slog.Logger) (source, error) {
	src, err := openFile(ctx, at, opt, log)
	if err == nil && src.Size() == 0 {
		src.Close()
		err = blockio.ErrEmpty
	}
	if err != nil || at.Inside == "" {
		return src, err
	}
	extents, err := iso9660.Find(ctx, src, at.Inside)
	if err != nil {
		src.Close()
		if errors.Is(err, iso9660.ErrNotFound) {
			at.Inside = ""
			err = &notInsideError{outer: at, err: err}
		}
		return nil, err
	}
	section, err := blockio.OpenSection(ctx, src, extents)
	if err == nil && section.Size() == 0 {
		err = blockio.ErrEmpty
	}
	if err != nil {
		src.Close()
		return nil, err
	}
	return inside{section, src}, nil
}

// notInsideError says that the image outer has no such file in it.
type notInsideError struct {
	outer location
	err   error
}

func (e *notInsideError) Error() string { return e.err.Error() }

func (e *notInsideError) Unwrap() error { return e.err }

// inside is a file inside the image outer.
type inside struct {
	*blockio.Section
	outer source
}

func (s inside) ModTime() time.Time { return s.outer.ModTime() }

func (s inside) Close() error { return s.outer.Close() }

// remote is the file on a web server that src is or lies in, nil if there is none.
func remote(src source) *httpblock.Source {
	if in, ok := src.(inside); ok {
		src = in.outer
	}
	file, _ := src.(*httpblock.Source)
	return file
}

// openFile opens the file that is at a location, be the image itself or
// another's inside.
func openFile(ctx context.Context, at location, opt sourceOptions, log *slog.Logger) (source, error) {
	if at.URL == "" {
		f, err := localfile.Open(at.Path)
		if err != nil {
			return nil, withoutPath(err)
		}
		return f, nil
	}
	options := httpblock.Options{
		Timeout:     time.Duration(opt.Timeout),
		Connections: opt.Connections,
		Logger:      log,
	}
	if err := opt.Access.apply(&options); err != nil {
		return nil, err
	}
	src, err := httpblock.Open(ctx, at.URL, options)
	if err != nil {
		return nil, err
	}
	if !src.Validated() {
		log.Warn("the server gives neither ETag nor Last-Modified: only a change of the file's size will be noticed", "source", at)
	}
	return src, nil
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
func openIndex(ctx context.Context, src source, format string) (*cloop.Index, signature.Kind, error) {
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
