// Package cloop reads the cloop container: a disk cut into blocks of equal
// size, each compressed on its own, with an index that locates them.
//
// Open reads and checks header and index through a [blockio.ReaderAt] of the
// image's bytes and returns an [Index]; NewImage joins an Index, a
// [blockio.Runs] that brings stored blocks and a [blockio.BlockCache] to the
// disk itself, an [Image]. Both are safe for concurrent use. The package knows
// nothing of where bytes come from.
//
// It reads version V2.0, where every block is a zlib stream (RFC 1950). All
// integers are big-endian, offsets are from the first byte of the image:
//
//	offset  size  what
//	     0   128  preamble: a shell script; its byte 11 starts the version, "V2.0"
//	   128     4  block size: bytes of a decoded block, a multiple of 512
//	   132     4  number of blocks, n
//	   136   8(n+1)  index: where each stored block starts, then where the last ends
//
// The format is known from its readers and writers: the cloop kernel module
// and create_compressed_fs (cloop 3.14), and QEMU's block/cloop.c. Nothing in
// an image is trusted: what a header claims is compared with the image's size
// before memory is spent on it.
package cloop
