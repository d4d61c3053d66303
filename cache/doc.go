// Package cache keeps what has been fetched or decoded. [Memory] holds decoded
// blocks in memory. [Dir] is a directory on disk with an [Entry] for each image: its
// stored blocks, and other bytes, as they came from the source; docs/format.md is
// its layout. The package knows nothing of HTTP, FUSE or formats.
package cache
