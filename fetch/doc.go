// Package fetch decides which stored blocks are asked for, when, and together
// with which others. It is the one place for single flight, coalescing and
// classes.
//
// A [Scheduler] implements [blockio.Runs] over the bytes of an image
// ([blockio.Ranges]) and its index ([blockio.Extents]):
//
//   - adjacent blocks are asked for in one request, up to a cap;
//   - all readers of a block share one flight. A flight belongs to nobody: no
//     reader's end cancels it, only a request that has not been made yet and
//     that nobody wants any more is forgotten;
//   - a reader gets a block as soon as that block's bytes have arrived, not at
//     the end of the request;
//   - a block that the reader can't decode is fetched once more;
//   - requests beyond the limit wait, and start in the order of their classes:
//     demand first, fill last;
//   - the stored blocks that arrived last are kept for late readers, and a
//     block that failed stays failed for a second: the kernel asks for a failed
//     page again at once;
//   - while the line has room, blocks are brought before anybody asks for them: a
//     policy says which.
//
// The package knows nothing of HTTP, files or formats.
package fetch
