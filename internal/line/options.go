package line

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"time"

	"github.com/spf13/pflag"

	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/units"
)

// Options are the flags of every command that takes a SOURCE.
type Options struct {
	Timeout     units.Duration
	Connections int
	Rate        units.Rate
	Format      string
	Mirrors     mirrorFlag
	Access      AccessOptions
	Cache       CacheOptions
	Proof       ProofOptions

	// What follows has no flags here: commands say it.
	Window int64 // of fetch.Options
	Record bool  // what is read
	Ahead  bool  // fetch what is likely to be read

	proving *proving // of the image that is to be opened; nil if it has no manifest
}

const (
	formatAuto  = "auto"
	formatCloop = "cloop"
	formatRaw   = "raw"
)

// Formats are the values of --format.
func Formats() []string { return []string{formatAuto, formatCloop, formatRaw} }

// AddFlags adds all flags. userAgent is what servers are told if nobody says another.
func (o *Options) AddFlags(f *pflag.FlagSet, userAgent string) {
	o.AddSourceFlags(f, userAgent)
	o.Proof.addFlags(f)
}

// AddSourceFlags adds those that say where the image is and how to get it.
func (o *Options) AddSourceFlags(f *pflag.FlagSet, userAgent string) {
	o.Timeout = units.Duration(30 * time.Second)
	f.Var(&o.Timeout, "timeout", "a read that can't be served within this fails; 0 waits for ever")
	f.IntVar(&o.Connections, "connections", 32, "upper limit of parallel requests per server")
	f.Var(&o.Rate, "limit-rate", "bandwidth cap, per second: 2M (default none)")
	f.StringVar(&o.Format, "format", formatAuto, "what SOURCE is: auto, cloop or raw")
	f.Var(&o.Mirrors, "mirror", "a further copy of the file at SOURCE; may be repeated")
	o.Cache.addSourceFlags(f)
	o.Cache.addDirFlags(f)
	o.Access.addFlags(f, userAgent)
}

// Validate checks the flags for these SOURCEs, and reads the files that they name.
func (o *Options) Validate(ctx context.Context, sources ...Location) error {
	if o.Connections < 1 || o.Connections > 1024 {
		return cli.Usage(fmt.Errorf("--connections %d: not between 1 and 1024", o.Connections))
	}
	if !slices.Contains(Formats(), o.Format) {
		return cli.Usage(fmt.Errorf("--format %s: not one of %s", Shown(o.Format), strings.Join(Formats(), ", ")))
	}
	if len(o.Mirrors) > 0 && len(sources) > 1 {
		return cli.Usage(errors.New("--mirror: of which SOURCE?"))
	}
	for _, at := range sources {
		if err := o.Mirrors.check(at); err != nil {
			return err
		}
	}
	if err := o.Cache.Complete(); err != nil {
		return err
	}
	if err := o.Proof.complete(ctx); err != nil {
		return err
	}
	for _, at := range sources {
		if _, err := o.Proof.place(at); err != nil {
			return err
		}
	}
	return o.Access.complete(ctx)
}

// Open opens the image at source for a command that reads it once and keeps no
// log: whole blocks, so no memory is set aside for parts of them.
func (o *Options) Open(ctx context.Context, stderr io.Writer, source string) (*Line, error) {
	return o.OpenWith(ctx, stderr, source, 0)
}

// OpenWith is Open, but keeps so many bytes of decoded blocks in memory.
func (o *Options) OpenWith(ctx context.Context, stderr io.Writer, source string, memory int64) (*Line, error) {
	at, err := Parse(source)
	if err != nil {
		return nil, err
	}
	if err := o.Validate(ctx, at); err != nil {
		return nil, err
	}
	l, err := Open(ctx, at, *o, memory, cli.Warnings(stderr))
	if err != nil {
		return nil, err
	}
	if w := l.Warning(); w != "" {
		cli.Say(stderr, "%s", w)
	}
	return l, nil
}
