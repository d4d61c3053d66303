package line

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"math"
	"sync"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cache"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/fetch"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/iso9660"
	"github.com/cloopfs/cloopfs/internal/signature"
	"github.com/cloopfs/cloopfs/profile"
)

// Line is the whole way from the image's bytes to the disk.
type Line struct {
	at     Location
	source blockio.Source   // the image's bytes
	file   *file            // what the image is, or lies in
	parts  []blockio.Extent // of file: the image
	store  *cache.Blocks    // nil if nothing is kept on disk
	fetch  *fetch.Scheduler
	proof  *Proof       // nil if the image is checked by no manifest
	runs   blockio.Runs // the stored blocks, checked if they can be
	memory *cache.Memory
	record *profile.Recorder // nil if nobody wants to know what is read
	disk   *cloop.Image
	index  *cloop.Index
	kind   signature.Kind // of a raw image, as far as that was looked at
	start  *diskStart     // of a raw image, for whoever takes a closer look
	stop   func()         // what goes on in the background; may be nil
}

// Open opens the image at a location and joins the layers over it. memory
// is the bound of the decoded blocks kept, in bytes.
func Open(ctx context.Context, at Location, opt Options, memory int64, log *slog.Logger) (*Line, error) {
	if opt.Timeout > 0 {
		// Each wait is bounded by itself, and says why it failed; this is for
		// a server that drips.
		limit := time.Duration(opt.Timeout) + time.Second
		if opt.Proof.Manifest != "" {
			limit += time.Duration(opt.Timeout) // another server may have to be given up first
		}
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, limit)
		defer cancel()
	}
	l := &Line{at: at}
	err := l.open(ctx, opt, memory, log)
	if err == nil {
		return l, nil
	}
	l.Close()
	err = Failure(fmt.Errorf("open %s: %w", at, err))
	if cli.ExitCode(err) == cli.ExitSource && unreachable(err) && opt.Cache.hasAll(at) {
		err = &cli.Error{Code: cli.ExitSource, Err: err, Hint: "all of it is in the cache: --offline asks no server"}
	}
	return nil, err
}

// open opens the line's file and its proof, and joins the layers over them.
func (l *Line) open(ctx context.Context, opt Options, memory int64, log *slog.Logger) error {
	if err := l.openProven(ctx, opt, log); err != nil {
		return err
	}
	if err := l.join(ctx, opt, memory); err != nil {
		return err
	}
	if err := opt.Proof.remember(l.proof, opt.Cache, log); err != nil {
		return err
	}
	if l.file.remote != nil && len(opt.Mirrors) > 0 {
		l.stop = InBackground(ctx, func(ctx context.Context) { l.joinMirrors(ctx, log) })
	}
	return nil
}

// maxDecodeAhead is how many blocks are decoded before a sequential reader asks for them,
// if a quarter of the memory for decoded blocks can hold them.
const maxDecodeAhead = 8

// join joins the layers over the line's file.
func (l *Line) join(ctx context.Context, opt Options, memory int64) error {
	err := l.find(ctx, opt.Format)
	if c := l.file.cached; err != nil && c != nil && l.file.remote != nil && ImageFault(err) && c.ForgetServed() {
		err = l.find(ctx, opt.Format) // what was kept may have been damaged on its way here
	}
	if err != nil {
		return err
	}
	options := fetch.Options{Window: opt.Window}
	if l.file.remote != nil {
		options.Requests = l.file.remote.Connections
		options.Ahead, options.Spare, options.Trip = opt.Ahead, l.spare, l.file.remote.Trip
	}
	if c := l.file.cached; c != nil {
		// The blocks of a raw file end where chunks do.
		if l.store, err = c.entry.Blocks(l.parts, l.index.Raw() && l.at.Inside == ""); err != nil {
			return err
		}
		options.Store = l.store
		if l.file.remote == nil {
			options.Store = unclaimed{l.store}
		}
	} else if src, ok := l.source.(blockio.Prompt); ok && l.file.remote == nil {
		options.Store = blockio.Nearby(src)
	}
	l.fetch = fetch.New(l.source, l.index, options)
	l.memory = cache.NewMemory(memory, l.index.BlockSize())
	l.runs = l.proof.check(l.fetch, l.index)
	runs := l.runs
	if opt.Record {
		of, err := l.profiled(ctx)
		if err != nil {
			return err
		}
		l.record = profile.NewRecorder(runs, of)
		runs = l.record
	}
	l.disk = cloop.NewImage(l.index, runs, l.memory)
	l.start = &diskStart{ReaderAt: l.Bytes()}
	l.disk.DecodeAhead(int(min(maxDecodeAhead, memory/int64(l.index.BlockSize())/4)))
	return nil
}

// find finds the image and its index.
func (l *Line) find(ctx context.Context, format string) (err error) {
	if l.parts, err = l.openSource(ctx); err != nil {
		return err
	}
	if err := l.proof.rightSize(l.source.Size()); err != nil {
		return err
	}
	var src blockio.ReaderAt = l.source
	if !l.mayReadAgain() {
		src = readOnce{src}
	}
	if l.index, l.kind, err = openIndex(ctx, src, format); err != nil {
		return err
	}
	if l.proof != nil {
		l.kind = signature.Kind{} // that was told by bytes which nobody has compared
	}
	return l.proof.agrees(ctx, l.source.Size(), l.index)
}

// mayReadAgain says whether parts of the index that make no sense are read again. There is
// nothing better where nobody can be asked, nor where the file may be replaced unnoticed: what
// makes no sense may lie in another by now. As long as the index is that of one version, its
// blocks are found to be bad in any other; only a proof of each block tells without that.
func (l *Line) mayReadAgain() bool {
	return l.file.remote != nil && (l.proof != nil || l.file.remote.Exact())
}

// readOnce is the bytes of an image, and nothing else that their source can do.
type readOnce struct{ blockio.ReaderAt }

// spare says how many bytes may be fetched that perhaps nobody will ask for.
func (l *Line) spare() int64 {
	switch c := l.file.cached; {
	case l.file.remote.Overloaded():
		return 0
	case c == nil:
		return math.MaxInt64
	default:
		return c.dir.Spare()
	}
}

// Close ends everything that is under way, also of a line that was not opened whole.
func (l *Line) Close() {
	if l.stop != nil {
		l.stop()
	}
	if l.disk != nil {
		l.disk.Close()
	}
	if l.fetch != nil {
		l.fetch.Close()
	}
	l.proof.close()
	if l.file != nil {
		l.file.Close()
	}
}

// openSource finds the bytes of the image: parts of the line's file.
func (l *Line) openSource(ctx context.Context) (parts []blockio.Extent, err error) {
	l.source = l.file.source // which can do more than its interface says
	if l.file.Size() == 0 {
		return nil, blockio.ErrEmpty
	}
	if l.at.Inside == "" {
		return []blockio.Extent{{Len: l.file.Size()}}, nil
	}
	extents, err := iso9660.Find(ctx, l.file, l.at.Inside)
	if errors.Is(err, iso9660.ErrNotFound) {
		outer := l.at
		outer.Inside = ""
		return nil, &notInsideError{outer: outer, err: err}
	}
	if err != nil {
		return nil, err
	}
	section, err := blockio.OpenSection(ctx, l.file.source, extents)
	if err == nil && section.Size() == 0 {
		err = blockio.ErrEmpty
	}
	if err != nil {
		return nil, err
	}
	l.source = section
	return section.Parts(), nil
}

// notInsideError says that the image outer has no such file in it.
type notInsideError struct {
	outer Location
	err   error
}

func (e *notInsideError) Error() string { return e.err.Error() }

func (e *notInsideError) Unwrap() error { return e.err }

// InBackground runs f beside the caller, until stop is called.
func InBackground(ctx context.Context, f func(context.Context)) (stop func()) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	var wg sync.WaitGroup
	wg.Go(func() { f(ctx) })
	return func() {
		cancel()
		wg.Wait()
	}
}
