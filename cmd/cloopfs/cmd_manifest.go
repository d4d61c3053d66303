package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"runtime"
	"strconv"
	"time"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/manifest"
)

func newManifestCmd() *cobra.Command {
	return group("manifest", "Make the proof of an image's content", newManifestCreateCmd())
}

// manifestOptions are the flags of manifest create.
type manifestOptions struct {
	line    line.Options
	name    string
	version int64
	output  string
	force   bool
}

func newManifestCreateCmd() *cobra.Command {
	var o manifestOptions
	cmd := &cobra.Command{
		Use:   "create [flags] --name NAME --image-version N SOURCE -o FILE",
		Short: "Make the manifest of an image, to be signed",
		Long: `Make the manifest of the image at SOURCE: a small text, FILE, with the root of the
hashes of all its stored blocks, and the hashes themselves, FILE.hashes. Every block is
decoded, on all cores: no manifest is made of an image that is bad. The root is printed.

Sign it with minisign, and publish all three files beside the image: FILE is SOURCE with
.manifest behind its name, for --pubkey to find it. Each new version of an image needs a higher number: an older one
is refused where a newer one has been seen. The date is $SOURCE_DATE_EPOCH's, else the
image's.`,
		Example: `  cloopfs manifest create --name debian-live --image-version 3 debian.cloop -o debian.cloop.manifest
  minisign -Sm debian.cloop.manifest
  cloopfs mount --pubkey minisign.pub https://example.org/debian.cloop /media/image`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeArgs(completeFile),
		RunE:              func(cmd *cobra.Command, args []string) error { return o.run(cmd, args[0]) },
	}
	o.line.AddSourceFlags(cmd.Flags(), userAgent())
	f := cmd.Flags()
	f.StringVar(&o.name, "name", "", "`NAME` of the image, the same for all its versions")
	f.Int64Var(&o.version, "image-version", 0, "version of the image: `N` is 1 or more, and higher than that of all before")
	f.StringVarP(&o.output, "output", "o", "", "the manifest: `FILE`; its hashes are FILE.hashes")
	f.BoolVar(&o.force, "force", false, "replace FILE and FILE.hashes")
	return cmd
}

func (o *manifestOptions) run(cmd *cobra.Command, source string) error {
	ctx, stderr := cmd.Context(), cmd.ErrOrStderr()
	m, err := o.begin()
	if err != nil {
		return cli.Usage(err)
	}
	o.line.Window = prefetchWindow
	l, err := o.line.Open(ctx, stderr, source)
	if err != nil {
		return err
	}
	defer l.Close()
	if err := o.mayWrite(l.At()); err != nil {
		return err
	}
	if m.Facts, err = l.Facts(ctx); err != nil {
		return line.Failure(fmt.Errorf("read %s: %w", l.At(), err))
	}
	if m.Date.IsZero() {
		m.Date = l.ModTime().UTC()
	}
	if m.Date.IsZero() {
		m.Date = time.Now().UTC()
	}
	err = newFileOf(cmd, o.hashes(), o.force, l.Disk().Size(), func(out taggedOutput, done func(int64)) (err error) {
		m.Root, err = hash(ctx, l, out, m.Facts, done)
		return err
	})
	if err == nil {
		err = m.Check()
	}
	if err == nil {
		err = newFile(o.output, o.force, func(f *os.File) error { _, err := f.Write(m.Text()); return err })
	}
	if err != nil {
		return writeFailure("manifest", err)
	}
	fmt.Fprintf(cmd.OutOrStdout(), "%s%s\n", line.RootPrefix, m.Root)
	cli.Say(stderr, "hint: minisign -Sm %s", cli.Quote(o.output))
	return nil
}

// begin is what the flags say of the manifest.
func (o *manifestOptions) begin() (*manifest.Manifest, error) {
	switch {
	case o.name == "":
		return nil, errors.New("manifest create: --name is missing")
	case o.version == 0:
		return nil, errors.New("manifest create: --image-version is missing")
	case o.output == "":
		return nil, errors.New("manifest create: -o FILE is missing")
	}
	m := &manifest.Manifest{Name: o.name, Version: o.version}
	m.Facts = manifest.Facts{Container: "any", BlockSize: 1} // until the image is open
	if err := m.Check(); err != nil {
		return nil, fmt.Errorf("--name or --image-version: %w", errors.Unwrap(err))
	}
	if epoch := os.Getenv("SOURCE_DATE_EPOCH"); epoch != "" {
		seconds, err := strconv.ParseInt(epoch, 10, 64)
		if err != nil {
			return nil, fmt.Errorf("$SOURCE_DATE_EPOCH %.30q: not a number of seconds", epoch)
		}
		m.Date = time.Unix(seconds, 0).UTC()
		if err := m.Check(); err != nil {
			return nil, errors.New("$SOURCE_DATE_EPOCH: no date of this age")
		}
	}
	return m, nil
}

func (o *manifestOptions) hashes() string { return o.output + ".hashes" }

// mayWrite says whether the two files can be made: before anything is hashed.
func (o *manifestOptions) mayWrite(source line.Location) error {
	for _, path := range []string{o.hashes(), o.output} {
		if isAt(source, path) {
			return &cli.Error{Code: cli.ExitFailure, Err: fmt.Errorf("write the manifest: %s: it is the image", path)}
		}
		if _, err := os.Lstat(path); err == nil && !o.force {
			return writeFailure("manifest", &os.PathError{Op: "create", Path: path, Err: os.ErrExist})
		}
	}
	return nil
}

// hash writes the hashes of the line's blocks.
func hash(ctx context.Context, l *line.Line, out manifest.File, facts manifest.Facts, done func(int64)) (manifest.Hash, error) {
	tell := func(blocks int64) {
		if done != nil {
			done(min(blocks*facts.BlockSize, l.Disk().Size()))
		}
	}
	return manifest.Build(ctx, out, facts, max(4, 2*runtime.GOMAXPROCS(0)), func(ctx context.Context, first int64, leaves []manifest.Leaf) error {
		return hashLeaves(ctx, l, first, leaves)
	}, tell)
}

// hashLeaves hashes blocks, if they decode.
func hashLeaves(ctx context.Context, l *line.Line, first int64, leaves []manifest.Leaf) error {
	count := int64(len(leaves))
	check, err := l.Index().Checker(ctx, first, count)
	if err != nil {
		return err
	}
	codecs := make([]uint8, count)
	for i := range codecs {
		if _, codecs[i], err = l.Index().Entry(ctx, first+int64(i)); err != nil {
			return &blockio.BlockError{Block: first + int64(i), Err: err}
		}
	}
	return l.Runs().ReadRun(ctx, blockio.ReadAhead, first, count, func(n int64, stored []byte) error {
		if err := check(n, stored); err != nil {
			return err
		}
		leaves[n-first] = manifest.LeafOf(n, codecs[n-first], stored)
		return nil
	})
}
