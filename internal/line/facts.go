package line

import (
	"bytes"
	"context"
	"fmt"
	"io"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/cloop"
	"github.com/cloopfs/cloopfs/manifest"
)

// Facts is what a manifest says of the image.
func (l *Line) Facts(ctx context.Context) (manifest.Facts, error) {
	return factsOf(ctx, l.source.Size(), l.index)
}

// factsOf is what a manifest says of an image.
func factsOf(ctx context.Context, size int64, index *cloop.Index) (manifest.Facts, error) {
	first, err := index.Extent(ctx, 0)
	return manifest.Facts{
		Size: size, Container: containerOf(index), BlockSize: int64(index.BlockSize()),
		Blocks: index.Blocks(), Start: first.Off,
	}, err
}

// containerRaw is what manifests call an image that is the disk itself.
const containerRaw = "raw"

// containerOf is what manifests call the image's format.
func containerOf(index *cloop.Index) string {
	switch index.Format() {
	case "V2.0":
		return "cloop-v2"
	case "V4.0":
		return "cloop-v4"
	case "":
		return containerRaw
	}
	panic("cloopfs: internal error: no name for the format " + index.Format())
}

// rightSize says whether the image has the size that was signed: before anything else of
// it is looked at.
func (p *Proof) rightSize(size int64) error {
	if p == nil {
		return nil
	}
	return differs("the image's bytes", size, p.manifest.Size)
}

// agrees says whether the image is the one that the manifest is of, as far as header and
// index tell.
func (p *Proof) agrees(ctx context.Context, size int64, index *cloop.Index) error {
	if p == nil {
		return nil
	}
	is, err := factsOf(ctx, size, index)
	if err != nil {
		return err
	}
	said := p.manifest.Facts
	for _, err := range []error{
		differs("the format", is.Container, said.Container),
		differs("the bytes of a block", is.BlockSize, said.BlockSize),
		differs("the number of blocks", is.Blocks, said.Blocks),
		differs("the offset of the first block", is.Start, said.Start),
	} {
		if err != nil {
			return err
		}
	}
	return nil
}

// differs says that something is not what was signed.
func differs[T comparable](what string, is, said T) error {
	if is == said {
		return nil
	}
	return fmt.Errorf("%w: %s: %v in the image, %v in the manifest", manifest.ErrMismatch, what, is, said)
}

// Bytes is the bytes of an image that is not compressed. Where they are proven they are
// read as blocks.
func (l *Line) Bytes() blockio.Source {
	if l.proof == nil {
		return l.source
	}
	return provenBytes{l.disk}
}

// provenBytes is a disk as a source.
type provenBytes struct{ blockio.ReaderAt }

// OpenRange reads the bytes at once: who looks into an image wants few.
func (b provenBytes) OpenRange(ctx context.Context, r blockio.Range) (io.ReadCloser, error) {
	p := make([]byte, r.Len)
	if _, err := b.ReadAtContext(ctx, p, r.Off); err != nil {
		return nil, err
	}
	return io.NopCloser(bytes.NewReader(p)), nil
}
