// Package clooptest makes cloop images for tests, by an encoder other than the
// decoder that they test.
package clooptest

import (
	"bytes"
	"compress/zlib"
	"encoding/binary"
)

// Build returns a V2.0 image of disk with blocks of blockSize bytes. A last
// block that is short stays short.
func Build(disk []byte, blockSize int) []byte {
	var stored [][]byte
	for off := 0; off < len(disk); off += blockSize {
		stored = append(stored, Deflate(disk[off:min(off+blockSize, len(disk))], zlib.DefaultCompression))
	}
	return Assemble(blockSize, stored)
}

// Deflate returns a zlib stream of p.
func Deflate(p []byte, level int) []byte {
	var buf bytes.Buffer
	w, err := zlib.NewWriterLevel(&buf, level)
	if err != nil {
		panic(err) // a level that does not exist
	}
	_, _ = w.Write(p) // to memory: can't fail
	_ = w.Close()
	return buf.Bytes()
}

// Header returns the header of an image of the given version ("V2.0").
func Header(version string, blockSize, blocks int) []byte {
	header := make([]byte, 128, 136)
	copy(header, "#!/bin/sh\n#"+version+" Format\nmodprobe cloop file=$0 && mount -r -t iso9660 /dev/cloop $1\nexit $?\n")
	header = binary.BigEndian.AppendUint32(header, uint32(blockSize))
	return binary.BigEndian.AppendUint32(header, uint32(blocks))
}

// Assemble returns a V2.0 image of the given stored blocks, whatever they hold.
func Assemble(blockSize int, stored [][]byte) []byte {
	image := Header("V2.0", blockSize, len(stored))
	image = appendIndex(image, len(image)+8*(len(stored)+1), stored)
	return append(image, bytes.Join(stored, nil)...)
}

// AssembleLast returns an image like Assemble's whose index and header follow the
// blocks.
func AssembleLast(blockSize int, stored [][]byte) []byte {
	image := appendIndex(bytes.Join(stored, nil), 0, stored)
	return append(image, Header("V2.0", blockSize, len(stored))...)
}

// appendIndex appends the index of stored blocks that lie one behind the other
// from off on.
func appendIndex(image []byte, off int, stored [][]byte) []byte {
	for _, s := range stored {
		image = binary.BigEndian.AppendUint64(image, uint64(off))
		off += len(s)
	}
	return binary.BigEndian.AppendUint64(image, uint64(off))
}
