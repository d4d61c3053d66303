package cloop

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
)

// Sequential returns an io.WriterAt over w for who writes from the start to the
// end, each byte once, as images of the layout V4Footer are written. Any other
// write fails.
func Sequential(w io.Writer) io.WriterAt { return &sequential{w: w} }

type sequential struct {
	w   io.Writer
	off int64
}

func (s *sequential) WriteAt(p []byte, off int64) (int, error) {
	if off != s.off {
		return 0, fmt.Errorf("write at %d, behind %d bytes of a stream", off, s.off)
	}
	n, err := s.w.Write(p)
	s.off += int64(n)
	return n, err
}

const (
	// unknownBlocks stands for the number of blocks of a stream.
	unknownBlocks = -1

	// maxBlocks is what a header's field holds.
	maxBlocks = math.MaxUint32

	// bufferSize is how much is written at a time.
	bufferSize = 256 << 10
)

// errTooManyBlocks says that the header has no room for the number of blocks.
var errTooManyBlocks = errors.New("too many blocks for the format; larger blocks are fewer")

// writer writes stored blocks, in order, and what locates them. Where the
// number of blocks is not known before, or the layout wants the index last, that
// is kept in memory: 8 bytes for each block.
type writer struct {
	out    io.WriterAt
	e      Encoding
	blocks int64 // to come in all, or unknownBlocks

	data    *bufio.Writer
	off     int64         // in out, of the next stored block
	index   *bufio.Writer // nil if it is kept in memory
	kept    bytes.Buffer  // the index, in memory
	written int64         // blocks
}

// newWriter starts an image in out, which is an io.ReaderAt, too, if the header
// comes first although the number of blocks is unknownBlocks.
func newWriter(out io.WriterAt, e Encoding, blocks int64) (*writer, error) {
	if blocks > maxBlocks {
		return nil, errTooManyBlocks
	}
	w := &writer{out: out, e: e, blocks: blocks}
	if e.Layout != V4Footer && blocks != unknownBlocks {
		w.off = dataStart(blocks)
		w.index = bufio.NewWriterSize(io.NewOffsetWriter(out, headerSize), bufferSize)
	}
	w.data = bufio.NewWriterSize(io.NewOffsetWriter(out, w.off), bufferSize)
	return w, nil
}

// dataStart is where stored blocks begin if the header comes first.
func dataStart(blocks int64) int64 { return headerSize + entrySize*(blocks+1) }

// add appends the blocks of c.
func (w *writer) add(c *chunk) error {
	if w.written+int64(len(c.blocks)) > maxBlocks {
		return errTooManyBlocks
	}
	if w.e.Layout == V4Footer && w.written == 0 && likeHeader(c.stored) {
		// Who looks for a header at the start would find one.
		w.off = sectorSize
		if _, err := w.data.Write(make([]byte, sectorSize)); err != nil {
			return err
		}
	}
	stored, copied := c.stored, c.copied
	for _, b := range c.blocks {
		if err := w.entry(b.codec); err != nil {
			return err
		}
		from := &stored
		if b.copied {
			from = &copied
		}
		if _, err := w.data.Write((*from)[:b.size]); err != nil {
			return err
		}
		*from = (*from)[b.size:]
		w.off += int64(b.size)
	}
	w.written += int64(len(c.blocks))
	return nil
}

// likeHeader says whether an image that begins with p seems to begin with a header.
func likeHeader(p []byte) bool {
	version := p[min(versionOffset, len(p)):]
	return bytes.HasPrefix(version, []byte("V2.0")) || bytes.HasPrefix(version, []byte("V4.0")) ||
		bytes.HasPrefix(p, []byte("#!/bin/sh\n#"))
}

// entry appends the index entry of a block that starts at w.off.
func (w *writer) entry(c codec) error {
	entry := binary.BigEndian.AppendUint64(nil, uint64(c)<<(64-codecBits)|uint64(w.off))
	if w.index == nil {
		w.kept.Write(entry)
		return nil
	}
	_, err := w.index.Write(entry)
	return err
}

// finish completes the image and returns its size in bytes.
func (w *writer) finish(ctx context.Context) (int64, error) {
	if w.blocks != unknownBlocks && w.written != w.blocks {
		panic(fmt.Sprintf("cloop: internal error: %d of %d blocks were written", w.written, w.blocks))
	}
	if err := w.entry(codecZlib); err != nil { // the end has no codec
		return 0, err
	}
	if err := w.data.Flush(); err != nil {
		return 0, err
	}
	header := w.e.header(w.written)
	switch {
	case w.e.Layout == V4Footer:
		_, err := w.out.WriteAt(append(w.kept.Bytes(), header...), w.off)
		return w.off + int64(w.kept.Len()) + headerSize, err
	case w.index == nil:
		return w.makeRoom(ctx, header)
	}
	if err := w.index.Flush(); err != nil {
		return 0, err
	}
	_, err := w.out.WriteAt(header, 0)
	return w.off, err
}

// makeRoom moves the stored blocks back by what comes before them, and writes
// that.
func (w *writer) makeRoom(ctx context.Context, header []byte) (int64, error) {
	room := dataStart(w.written)
	if err := moveBack(ctx, w.out, w.off, room); err != nil {
		return 0, err
	}
	index := w.kept.Bytes()
	for i := 0; i < len(index); i += entrySize {
		e := index[i : i+entrySize]
		binary.BigEndian.PutUint64(e, binary.BigEndian.Uint64(e)+uint64(room))
	}
	_, err := w.out.WriteAt(append(header, index...), 0)
	return w.off + room, err
}

// moveBack moves the first n bytes of f to by, the last ones first.
func moveBack(ctx context.Context, f io.WriterAt, n, by int64) error {
	from, ok := f.(io.ReaderAt)
	if !ok {
		return errors.New("the output can't be read again")
	}
	buf := make([]byte, min(n, 16*bufferSize))
	for n > 0 {
		if err := ctx.Err(); err != nil {
			return err
		}
		p := buf[:min(int64(len(buf)), n)]
		n -= int64(len(p))
		if _, err := from.ReadAt(p, n); err != nil {
			return err
		}
		if _, err := f.WriteAt(p, n+by); err != nil {
			return err
		}
	}
	return nil
}
