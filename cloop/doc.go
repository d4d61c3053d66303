// Package cloop reads and writes the cloop container: a disk cut into blocks of equal
// size, each compressed on its own, with an index that locates them.
//
// Open reads the header through a [blockio.ReaderAt] of the image's bytes and
// returns an [Index], which reads the rest of itself when it is needed; NewImage
// joins an Index, a [blockio.Runs] that brings stored blocks and a
// [blockio.BlockCache] to the disk itself, an [Image]. Both are safe for
// concurrent use. The package knows nothing of where bytes come from.
//
// Create writes the image of a disk, CreateStream that of a stream, and Commit that
// of a disk that differs in some blocks from an image.
//
// It knows versions 2.0 and 4.0. All integers are big-endian, offsets are from
// the first byte of the image. The header:
//
//	offset  size  what
//	     0   128  preamble: a shell script; its byte 11 starts the version, "V2.0"
//	   128     4  block size: bytes of a decoded block, a multiple of 512
//	   132     4  number of blocks, n
//
// It is followed by the index, 8(n+1) bytes, and the stored blocks; or it is
// the end of the image, with the index before it and the blocks from offset 0.
// An entry of the index is the offset at which a block starts; the last is
// where the last block ends. In version 2.0 every block is a zlib stream (RFC
// 1950); in 4.0 the top 4 bits of an entry are the block's codec: 0 zlib, 1
// stored as is, 2 xz, 3 LZ4 (a block, no frame), 4 LZO1X.
//
// The format is known from its readers and writers: the cloop kernel module
// and create_compressed_fs (cloop 3.14 and 5.3), and QEMU's block/cloop.c.
// Nothing in an image is trusted: what a header claims is compared with the
// image's size, and memory is spent on what has been read.
package cloop
