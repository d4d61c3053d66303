package main

import (
	"context"
	"log/slog"
	"os"
	"runtime/debug"
	"sync"

	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/profile"
)

// served is a disk while it is served, however that is shown: the line, what is written
// over it, and what goes on beside its readers.
type served struct {
	options mountOptions // but for those of the mountpoint
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
func openServed(ctx context.Context, o mountOptions, log *slog.Logger) (*served, error) {
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
// filling, and watching the servers.
func (d *served) beside(ctx context.Context) (stop func()) {
	o, l, log := d.options, d.line, d.log
	if dir := l.CacheDir(); dir != nil {
		if err := dir.Enforce(); err != nil {
			log.Warn("the cache can't be kept within its bounds", "error", err)
		}
	}
	tasks := []func(context.Context){
		func(ctx context.Context) { o.Profile.replayRemote(ctx, l, o.Line, log) },
		func(ctx context.Context) { watchServers(ctx, func() []serverReport { return serversOf(l) }, log) },
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
