package main

import (
	"context"
	"errors"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"

	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/daemonlog"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/internal/units"
	"github.com/cloopfs/cloopfs/profile"
)

// DiskOptions are what a process has to know that serves a disk, however that is shown.
// (Exported for gob's sake.)
type DiskOptions struct {
	Source  line.Location // absolute after complete
	Memory  units.Size
	Fill    bool // in the background
	Profile profileOptions
	Write   writeOptions
	Line    line.Options
	Log     daemonlog.Options
}

func (o *DiskOptions) addFlags(f *pflag.FlagSet) {
	o.Memory = 64 << 20
	f.Var(&o.Memory, "memory", "decoded blocks kept in memory")
	f.BoolVar(&o.Write.Ephemeral, "ephemeral", false, "let the disk be written to; unmounted, what was written is gone")
	f.Var(&o.Write.Overlay, "overlay", "let the disk be written to, and keep what was written in `DIR`")
	f.BoolVar(&o.Fill, "background-fill", false, "bring all of the image into the cache while no reader waits")
	o.Profile.addFlags(f)
	o.Line.AddFlags(f, userAgent())
	o.Log.AddFlags(f)
}

// complete checks the flags and fills in what follows from them.
func (o *DiskOptions) complete(ctx context.Context, source string) (err error) {
	if o.Source, err = line.Parse(source); err != nil {
		return err
	}
	if err := o.Line.Validate(ctx, o.Source); err != nil {
		return err
	}
	if err := o.Log.Validate(); err != nil {
		return err
	}
	if o.Fill && o.Line.Cache.Offline {
		return cli.Usage(errors.New("--background-fill and --offline exclude each other"))
	}
	if o.Fill && o.Line.Cache.Size == 0 {
		return cli.Usage(errors.New("--background-fill without an on-disk cache (--cache-size 0)"))
	}
	if err := o.Write.complete(); err != nil {
		return err
	}
	if err := o.Profile.complete(); err != nil {
		return err
	}
	o.Source, err = o.Source.Absolute()
	return err
}

// served is a disk while it is served, however that is shown: the line, what is written
// over it, and what goes on beside its readers.
type served struct {
	options DiskOptions
	log     *slog.Logger
	line    *line.Line
	trace   *profile.Profile // to be replayed; may be nil
	written *writes          // since begin
}

// gcPercent is by how much the heap may grow before garbage is collected. Most of it is
// decoded blocks, which stay; reading makes next to no garbage, so it costs nothing to have
// less of it than Go's 100.
const gcPercent = 25

// openServed opens the image. The caller closes the line.
func openServed(ctx context.Context, o DiskOptions, log *slog.Logger) (*served, error) {
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(gcPercent)
	}
	trace, err := o.Profile.file()
	if err == nil {
		err = o.Profile.tryRecord()
	}
	if err != nil {
		return nil, err
	}
	o.Line.Record, o.Line.Ahead = o.Profile.Record != "", bool(o.Profile.Speculate)
	l, err := line.Open(ctx, o.Source, o.Line, int64(o.Memory), log)
	if err != nil {
		return nil, err
	}
	return &served{options: o, log: log, line: l, trace: trace}, nil
}

// begin replays the trace, and opens what is written. The caller closes that, or gives it up.
func (d *served) begin(ctx context.Context) error {
	if d.trace != nil {
		if err := d.line.Replay(ctx, d.trace); err != nil {
			d.log.Warn("the profile is not used", "profile", string(d.options.Profile.Profile), "error", err)
		}
	}
	written, err := d.options.Write.open(ctx, d.line, d.log)
	if err != nil {
		return err
	}
	d.written = written
	return nil
}

// warn logs what is not as it might be.
func (d *served) warn() {
	source := d.options.Source.String()
	if !d.line.Validated() {
		d.log.Warn("the server gives neither ETag nor Last-Modified: only a change of the file's size will be noticed", "source", source)
	}
	if err := d.line.Uncached(); err != nil {
		args := []any{"source", source, "error", err}
		if hint := line.Hint(err); hint != "" {
			args = append(args, "hint", hint)
		}
		d.log.Warn("nothing is kept in the cache", args...)
	}
	if d.written.unclean {
		d.log.Warn(notClosed, "overlay", d.written.path)
	}
}

// beside begins what goes on beside the readers, until stop is called: recording, replaying,
// filling, watching the servers, and bringing the cache within its bounds.
func (d *served) beside(ctx context.Context) (stop func()) {
	o, l, log := d.options, d.line, d.log
	tasks := []func(context.Context){
		func(ctx context.Context) { o.Profile.replayRemote(ctx, l, o.Line, log) },
		func(ctx context.Context) { watchServers(ctx, func() []serverReport { return serversOf(l) }, log) },
	}
	if dir := l.CacheDir(); dir != nil {
		tasks = append(tasks, func(ctx context.Context) {
			if err := dir.Enforce(ctx); err != nil && ctx.Err() == nil {
				log.Warn("the cache can't be kept within its bounds", "error", err)
			}
		})
	}
	if l.Recorder() != nil {
		tasks = append(tasks, (&recording{path: string(o.Profile.Record), rec: l.Recorder(), log: log}).run)
	}
	if o.Fill {
		tasks = append(tasks, func(ctx context.Context) { fill(ctx, l, log) })
	}
	return line.InBackground(ctx, func(ctx context.Context) {
		var wg sync.WaitGroup
		for _, task := range tasks {
			wg.Go(func() { task(ctx) })
		}
		wg.Wait()
	})
}
