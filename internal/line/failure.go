package line

import (
	"crypto/tls"
	"errors"
	"fmt"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/httpblock"
	"github.com/cloopfs/cloopfs/internal/cli"
	"github.com/cloopfs/cloopfs/internal/iso9660"
	"github.com/cloopfs/cloopfs/internal/partition"
	"github.com/cloopfs/cloopfs/manifest"
)

// Failure says that an image could not be opened or read.
func Failure(err error) error {
	f := &cli.Error{Code: cli.ExitSource, Err: err, Hint: Hint(err)}
	var notDisk *notDiskError
	var notInside *notInsideError
	switch {
	case notProven(err):
		f.Code, f.Hint = cli.ExitImage, proofHint(err)
	case errors.As(err, &notDisk):
		f.Code, f.Hint = cli.ExitImage, notDisk.kind.Hint
		if notDisk.kind.Name == "" {
			f.Hint = "--format raw presents it as it is"
		}
	case errors.As(err, &notInside):
		f.Hint = fmt.Sprintf("cloopfs info %s lists the images inside", cli.Quote(notInside.outer.String()))
	case errors.Is(err, cloop.ErrUnsupported):
		f.Code, f.Hint = cli.ExitImage, "unpack it with the tools that made it: the disk can be mounted as it is"
	case errors.Is(err, cloop.ErrFormat), errors.Is(err, cloop.ErrCorrupt), errors.Is(err, iso9660.ErrFormat), errors.Is(err, iso9660.ErrDamaged),
		errors.Is(err, partition.ErrDamaged), errors.Is(err, blockio.ErrBeyondEnd), errors.Is(err, blockio.ErrEmpty):
		f.Code = cli.ExitImage
	case errors.Is(err, blockio.ErrOptions):
		f.Code = cli.ExitUsage
	}
	return f
}

// ImageFault says that err is about what is in the image, and not about getting it.
func ImageFault(err error) bool {
	return cli.ExitCode(Failure(err)) == cli.ExitImage || errors.Is(err, iso9660.ErrNotFound)
}

// unreachable says that err is about a server that can't be asked, and not about what
// it has said.
func unreachable(err error) bool {
	if said, ok := errors.AsType[blockio.Answer](err); ok {
		return said.Passing()
	}
	for _, said := range []error{httpblock.ErrNoRanges, blockio.ErrChanged, httpblock.ErrEncoded, httpblock.ErrRedirect, iso9660.ErrNotFound} {
		if errors.Is(err, said) {
			return false
		}
	}
	return !errors.As(err, new(*tls.CertificateVerificationError))
}

// BadBlock says that err is about a block of the image, or its entry in the index, that is
// wrong: others may be right.
func BadBlock(err error) bool {
	return errors.Is(err, cloop.ErrCorrupt) || errors.Is(err, manifest.ErrMismatch)
}
