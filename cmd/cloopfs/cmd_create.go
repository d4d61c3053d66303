package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/line"
	"github.com/cloopfs/cloopfs/internal/units"
	"github.com/cloopfs/cloopfs/localfile"
)

// What --codec and --layout can be.
var (
	codecs  = cloop.Methods()
	layouts = []string{cloop.V2: "v2", cloop.V4: "v4", cloop.V4Footer: "v4-footer"}
)

// createOptions are the flags of create, and what they come to.
type createOptions struct {
	codec, layout string
	blockSize     units.Size
	encoding      cloop.Encoding
	force         bool
}

func newCreateCmd() *cobra.Command {
	o := createOptions{blockSize: cloop.DefaultBlockSize}
	cmd := &cobra.Command{
		Use:   "create [flags] INPUT|- OUTPUT|-",
		Short: "Make a cloop image of a disk",
		Long: `Make a cloop image of the disk in the file or block device INPUT, on all cores. The
same disk and flags make the same image. OUTPUT gets its name when it is complete;
what is there is replaced with --force only.

Debian's tools and QEMU read what the flags make unless told otherwise: version 2.0,
zlib. Other codecs need version 4.0 (--layout v4), whose header can be at the end
(--layout v4-footer), as it has to be if OUTPUT is the standard output.`,
		Example: `  cloopfs create debian.raw debian.cloop
  cloopfs create --codec best --block-size 256K /dev/sdb1 debian.cloop
  zcat debian.raw.gz | cloopfs create - debian.cloop`,
		Args:              args(cobra.ExactArgs(2)),
		ValidArgsFunction: completeArgs(completeFile, completeFile),
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := o.resolve(cmd, args[1]); err != nil {
				return cli.Usage(err)
			}
			if args[1] == "-" && isTerminal(cmd.OutOrStdout()) {
				return cli.Usage(errors.New("create: not writing an image to a terminal"))
			}
			if args[0] == "-" && isTerminal(cmd.InOrStdin()) {
				return cli.Usage(errors.New("create: not reading a disk from a terminal"))
			}
			in, err := openInput(args[0], cmd.InOrStdin())
			if err != nil {
				return err
			}
			defer in.close()
			if in.info != nil && args[1] != "-" && leadsTo(args[1], in.info) {
				return misplaced(args[1], "it is INPUT, too")
			}
			return o.create(cmd, in, args[1])
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.codec, "codec", codecs[cloop.Zlib], oneOf(codecs)+": the smallest of these, block by block")
	f.IntVar(&o.encoding.Level, "level", 9, "of zlib: 0 (fast) to 9 (small)")
	f.Var(&o.blockSize, "block-size", "bytes of a block: a multiple of 512 up to 64MiB")
	f.StringVar(&o.layout, "layout", "", oneOf(layouts)+" (v2 if that can be)")
	f.BoolVar(&o.force, "force", false, "replace OUTPUT")
	return cmd
}

// oneOf is a choice in words.
func oneOf(names []string) string {
	last := len(names) - 1
	return strings.Join(names[:last], ", ") + " or " + names[last]
}

// resolve turns the flags into an encoding.
func (o *createOptions) resolve(cmd *cobra.Command, output string) error {
	method := slices.Index(codecs, o.codec)
	if method < 0 {
		return fmt.Errorf("--codec %s: not %s", line.Shown(o.codec), oneOf(codecs))
	}
	e := &o.encoding
	e.Method, e.BlockSize = cloop.Method(method), int(o.blockSize)
	layout := slices.Index(layouts, o.layout)
	switch {
	case layout >= 0:
		e.Layout = cloop.Layout(layout)
	case cmd.Flags().Changed("layout"):
		return fmt.Errorf("--layout %s: not %s", line.Shown(o.layout), oneOf(layouts))
	case output == "-":
		e.Layout = cloop.V4Footer
	case e.Method != cloop.Zlib:
		e.Layout = cloop.V4
	}
	switch {
	case e.Level < 0 || e.Level > 9:
		return fmt.Errorf("--level %d: not 0 to 9", e.Level)
	case cmd.Flags().Changed("level") && e.Method != cloop.Zlib && e.Method != cloop.Best:
		return fmt.Errorf("--level is for zlib, not for --codec %s", o.codec)
	case e.Layout == cloop.V2 && e.Method != cloop.Zlib:
		return fmt.Errorf("--layout v2 has zlib alone, not %s", o.codec)
	case e.Layout != cloop.V4Footer && output == "-":
		return fmt.Errorf("--layout %s can't be written to the standard output", o.layout)
	case e.Check() != nil:
		return fmt.Errorf("--block-size %v: not a multiple of 512 up to 64MiB", int64(o.blockSize))
	}
	return nil
}

// input is a disk to be packed: a file, or a stream.
type input struct {
	name   string
	info   os.FileInfo     // nil if it is no file
	file   *localfile.File // nil for a stream
	stream io.Reader
}

// openInput opens the disk at path.
func openInput(path string, stdin io.Reader) (*input, error) {
	if path == "-" {
		in := &input{name: "the standard input", stream: stdin}
		if f, ok := stdin.(*os.File); ok {
			in.info, _ = f.Stat()
		}
		return in, nil
	}
	info, err := os.Stat(path)
	in := &input{name: path, info: info}
	if err == nil && !info.Mode().IsRegular() && !info.IsDir() && !isBlockDevice(info) {
		return nil, &cli.Error{
			Code: cli.ExitFailure, Err: in.failed(errors.New("neither a file nor a block device")),
			Hint: "INPUT - is the standard input",
		}
	}
	if err == nil {
		in.file, err = localfile.Open(path)
	}
	if err != nil {
		return nil, in.failed(err)
	}
	return in, nil
}

func isBlockDevice(info os.FileInfo) bool {
	return info.Mode()&(os.ModeDevice|os.ModeCharDevice) == os.ModeDevice
}

// failed says that the disk could not be read.
func (in *input) failed(err error) error {
	if path, ok := errors.AsType[*os.PathError](err); ok {
		err = path.Err // the path is said
	}
	return fmt.Errorf("read %s: %w", in.name, err)
}

func (in *input) close() {
	if in.file != nil {
		in.file.Close()
	}
}

// size is the size of the disk in bytes; -1: not known yet.
func (in *input) size() int64 {
	if in.file == nil {
		return -1
	}
	return in.file.Size()
}

// pack writes the image of the disk to out.
func (in *input) pack(ctx context.Context, out io.WriterAt, e cloop.Encoding, done func(int64)) (cloop.Summary, error) {
	if in.file == nil {
		return cloop.CreateStream(ctx, out, in.stream, e, done)
	}
	sum, err := cloop.Create(ctx, out, in.file, e, done)
	if err == nil {
		// One more read sees whether the file has changed since the last.
		_, err = in.file.ReadAtContext(ctx, make([]byte, 1), 0)
	}
	return sum, err
}

// create makes the image and says what may surprise.
func (o *createOptions) create(cmd *cobra.Command, in *input, output string) error {
	ctx, stderr := cmd.Context(), cmd.ErrOrStderr()
	var sum cloop.Summary
	write := func(out io.WriterAt) (err error) {
		done, end := watchBytes(stderr, in.size())
		defer end()
		sum, err = in.pack(ctx, taggedOutput{out}, o.encoding, done)
		var bad *outputError
		switch {
		case err == nil, errors.Is(err, context.Canceled) && ctx.Err() != nil:
			return err
		case errors.As(err, &bad):
			return bad.err
		}
		return &inputError{in.failed(err)}
	}
	var err error
	if output == "-" {
		out := cmd.OutOrStdout()
		if err = write(cloop.Sequential(out)); err == nil {
			err = syncOutput(out)
		}
	} else {
		err = newFile(output, o.force, func(f *os.File) error { return write(f) })
	}
	var bad *inputError
	switch {
	case errors.As(err, &bad):
		return bad.error
	case err != nil:
		return writeFailure("image", err)
	}
	if sum.Padding > 0 {
		sayPadding(stderr, sum)
	}
	if isTerminal(stderr) {
		cli.Say(stderr, "%s in %s", units.FormatSize(sum.DiskSize), units.FormatSize(sum.ImageSize))
	}
	return nil
}

// sayPadding says that the disk got longer.
func sayPadding(w io.Writer, sum cloop.Summary) {
	cli.Say(w, "the disk has %d bytes: %d zeros behind them make the last block whole", sum.DiskSize-sum.Padding, sum.Padding)
}

// inputError is an error of the disk that is read.
type inputError struct{ error }

// misplaced says that an image would destroy what it is made of.
func misplaced(output, why string) error {
	return &cli.Error{
		Code: cli.ExitFailure, Err: fmt.Errorf("write the image: %s: %s", output, why),
		Hint: "the new image needs a place of its own",
	}
}
