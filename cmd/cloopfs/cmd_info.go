package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"text/tabwriter"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/iso9660"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/internal/partition"
	"github.com/cloopfs/cloopfs/internal/signature"
	"github.com/cloopfs/cloopfs/internal/units"
)

func newInfoCmd() *cobra.Command {
	var o line.Options
	var asJSON bool
	cmd := &cobra.Command{
		Use:   "info [flags] SOURCE",
		Short: "Say what an image is and what is on its disk",
		Long: `Say what the image at SOURCE is: its format, sizes and codecs, the partitions and
file systems on its disk, and for an ISO 9660 image the disk images inside it, with
the SOURCE to type for each. It reads the index and little else.`,
		Example: `  cloopfs info https://example.org/knoppix.iso
  cloopfs info --json 'https://example.org/knoppix.iso#KNOPPIX/KNOPPIX'`,
		Args:              args(cobra.ExactArgs(1)),
		ValidArgsFunction: completeArgs(completeFile),
		RunE: func(cmd *cobra.Command, args []string) error {
			l, err := o.Open(cmd.Context(), cmd.ErrOrStderr(), args[0])
			if err != nil {
				return err
			}
			defer l.Close()
			in, err := inspect(cmd.Context(), l)
			if cmd.Context().Err() != nil {
				return cmd.Context().Err()
			}
			if err != nil {
				return line.Failure(fmt.Errorf("read %s: %w", l.At(), err))
			}
			if asJSON {
				enc := json.NewEncoder(cmd.OutOrStdout())
				enc.SetIndent("", "  ")
				return enc.Encode(in)
			}
			return in.print(cmd.OutOrStdout())
		},
	}
	o.AddFlags(cmd.Flags(), userAgent())
	cmd.Flags().BoolVar(&asJSON, "json", false, "for programs")
	return cmd
}

// imageInfo is what there is to say of an image. Its JSON names are part of the
// contract with scripts. Sizes and offsets are bytes.
type imageInfo struct {
	Source     string          `json:"source"`
	Format     string          `json:"format"`      // "cloop V2.0", "cloop V4.0" or "raw"
	HeaderLast bool            `json:"header_last"` // of a cloop image: header and index are at its end
	ImageSize  int64           `json:"image_size"`
	DiskSize   int64           `json:"disk_size"`
	BlockSize  int             `json:"block_size,omitempty"` // of a cloop image
	Blocks     int64           `json:"blocks,omitempty"`
	Ratio      float64         `json:"ratio,omitempty"`  // disk size by stored size, as the index has it: no manifest proves that
	Codecs     []codecInfo     `json:"codecs,omitempty"` // likewise
	Content    string          `json:"content"`          // of the disk: a file system, a partition table; "" if unknown
	Partitions []partitionInfo `json:"partitions,omitempty"`
	Images     []insideInfo    `json:"images,omitempty"`   // in an ISO 9660 image
	Cached     *cachedInfo     `json:"cached,omitempty"`   // of an image on a web server
	Manifest   *manifestReport `json:"manifest,omitempty"` // by which it is checked
}

// cachedInfo is what is kept on disk of the file at the source.
type cachedInfo struct {
	Path     string `json:"path"`
	FileSize int64  `json:"file_size"`
	Bytes    int64  `json:"bytes"` // of the file, in whole pages
}

type codecInfo struct {
	Codec  string `json:"codec"`
	Blocks int64  `json:"blocks"`
	Stored int64  `json:"stored"`
}

type partitionInfo struct {
	Number  int    `json:"number"`
	Offset  int64  `json:"offset"`
	Size    int64  `json:"size"`
	Content string `json:"content"` // "unreadable" if it is; "" if unknown, or not looked at
}

type insideInfo struct {
	Path    string `json:"path"`
	Source  string `json:"source"` // what to type to mount it
	Size    int64  `json:"size"`
	Content string `json:"content"` // "unreadable" if it is, or lies behind the end; "" if unknown, or not looked at
}

// inspect finds out what there is to say.
func inspect(ctx context.Context, l *line.Line) (*imageInfo, error) {
	in := &imageInfo{
		Source: l.At().String(), Format: "raw",
		ImageSize: l.ImageSize(), DiskSize: l.Disk().Size(),
	}
	defer func() { in.Manifest = manifestOf(l.Proof()) }() // with what was compared
	if c := keptOf(l); c != nil {
		in.Cached = &cachedInfo{c.Path, c.FileSize, c.Bytes}
	}
	if !l.Index().Raw() {
		if err := in.addCloop(ctx, l.Index()); err != nil {
			return nil, err
		}
	}
	c, err := l.Contents(ctx)
	switch {
	case isUnreadable(err):
		in.Content = unreadable
	case err != nil:
		return nil, err
	}
	if c.Kind.Disk {
		in.Content = c.Kind.Name
	}
	if err := in.addPartitions(ctx, l, c.Partitions); err != nil {
		return nil, err
	}
	if l.Index().Raw() && c.Kind.Name == signature.ISO9660 {
		return in, in.addImages(ctx, l)
	}
	return in, nil
}

// addCloop adds what a cloop image's header and index say.
func (in *imageInfo) addCloop(ctx context.Context, ix *cloop.Index) error {
	in.Format, in.HeaderLast = "cloop "+ix.Format(), ix.HeaderLast()
	in.BlockSize, in.Blocks = ix.BlockSize(), ix.Blocks()
	stats, err := ix.Stats(ctx)
	if err != nil {
		return err
	}
	var stored int64
	for _, s := range stats {
		in.Codecs = append(in.Codecs, codecInfo{s.Codec, s.Blocks, s.Bytes})
		stored += s.Bytes
	}
	if stored > 0 {
		in.Ratio = float64(in.DiskSize) / float64(stored)
	}
	return nil
}

// unreadable is the content of what can't be read.
const unreadable = "unreadable"

// isUnreadable says that err is the image's own fault: the rest may be told.
func isUnreadable(err error) bool {
	return errors.Is(err, cloop.ErrCorrupt) || errors.Is(err, blockio.ErrBeyondEnd)
}

// startContent says what r is by its start, in one read; by less of it if not all
// can be read.
func startContent(ctx context.Context, r blockio.ReaderAt) (string, error) {
	for _, n := range []int64{signature.StartSize, signature.HeadSize} {
		start := make([]byte, min(r.Size(), n))
		_, err := r.ReadAtContext(ctx, start, 0)
		switch {
		case err == nil:
			return signature.OfStart(start).Name, nil
		case !isUnreadable(err):
			return "", err
		}
	}
	return unreadable, nil
}

// mostLooks is how many partitions, and how many images, of a distant disk are
// looked at: each costs a request.
const mostLooks = 2

// addPartitions adds the partitions, and what is on the largest of them.
func (in *imageInfo) addPartitions(ctx context.Context, l *line.Line, table []partition.Partition) error {
	bySize := slices.Clone(table)
	slices.SortStableFunc(bySize, func(a, b partition.Partition) int { return cmp.Compare(b.Len, a.Len) })
	if l.At().URL != "" {
		bySize = bySize[:min(len(bySize), mostLooks)]
	}
	for _, p := range table {
		info := partitionInfo{Number: p.Number, Offset: p.Off, Size: p.Len}
		if slices.Contains(bySize, p) {
			var err error
			if info.Content, err = startContent(ctx, blockio.Part(l.Disk(), p.Off, p.Len)); err != nil {
				return err
			}
		}
		in.Partitions = append(in.Partitions, info)
	}
	return nil
}

// addImages adds the images inside an ISO 9660 image.
func (in *imageInfo) addImages(ctx context.Context, l *line.Line) error {
	images, err := l.ImagesInside(ctx)
	if errors.Is(err, iso9660.ErrDamaged) {
		return nil
	}
	if err != nil {
		return err
	}
	for i, f := range images {
		info := insideInfo{Path: f.Path, Source: l.At().ForInside(f.Path), Size: f.Size()}
		if l.At().URL == "" || i < mostLooks {
			if info.Content, err = fileContent(ctx, l.Bytes(), f); err != nil {
				return err
			}
		}
		in.Images = append(in.Images, info)
	}
	return nil
}

// fileContent says what a file of a disc is.
func fileContent(ctx context.Context, disc blockio.Source, f iso9660.File) (string, error) {
	section, err := blockio.OpenSection(ctx, disc, f.Extents)
	if isUnreadable(err) {
		return unreadable, nil
	}
	if err != nil {
		return "", err
	}
	head := make([]byte, min(section.Size(), signature.HeadSize))
	if _, err := section.ReadAtContext(ctx, head, 0); err != nil { // what OpenSection has read
		return "", err
	}
	return signature.OfHead(head).Name, nil
}

// print writes the report for people.
func (in *imageInfo) print(w io.Writer) error {
	t := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	cli.Row(t, "source", "%s", in.Source)
	format := in.Format
	if in.HeaderLast {
		format += ", header last"
	}
	cli.Row(t, "format", "%s", format)
	cli.Row(t, "image", "%s", units.ExactSize(in.ImageSize))
	if in.Manifest != nil {
		cli.Row(t, "manifest", "%s", in.Manifest)
	}
	cli.Row(t, "disk", "%s", units.ExactSize(in.DiskSize))
	if in.Blocks > 0 {
		cli.Row(t, "blocks", "%d of %s", in.Blocks, units.FormatSize(int64(in.BlockSize)))
	}
	unproven := ""
	if in.Manifest != nil {
		unproven = " (says the index)" // to prove it all hashes would have to be read
	}
	if in.Ratio > 0 {
		cli.Row(t, "ratio", "%.2f%s", in.Ratio, unproven)
	}
	for _, c := range in.Codecs {
		cli.Row(t, "codec", "%s: %d blocks, %s%s", c.Codec, c.Blocks, units.FormatSize(c.Stored), unproven)
	}
	cli.Row(t, "content", "%s", orUnknown(in.Content))
	if n := in.DiskSize % line.SectorSize; n > 0 {
		cli.Row(t, "size", "no multiple of %d: a loop device leaves out the last %d bytes", line.SectorSize, n)
	}
	for _, p := range in.Partitions {
		cli.Row(t, "partition", "%d: %s at %d, %s", p.Number, units.FormatSize(p.Size), p.Offset, orUnknown(p.Content))
	}
	for _, i := range in.Images {
		cli.Row(t, "inside", "%s: %s, %s", i.Path, units.FormatSize(i.Size), orUnknown(i.Content))
		cli.Row(t, "", "cloopfs mount %s DIR", cli.Quote(i.Source))
	}
	if c := in.Cached; c != nil {
		cli.Row(t, "cached", "%s of %s in %s", units.FormatSize(c.Bytes), units.FormatSize(c.FileSize), c.Path)
	}
	return t.Flush()
}

func orUnknown(s string) string {
	if s == "" {
		return "unknown"
	}
	return s
}
