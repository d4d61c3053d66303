// Package fusefs shows a disk as a file: a FUSE file system of one directory
// that holds disk.img. It knows nothing of where the disk's bytes come from.
//
// What readers see never changes while the file system is mounted, nor from
// one mount of an image to the next: size, inode number and mtime. The kernel
// may therefore keep everything it has read.
//
// Every read that has to wait is bounded: by Options.Timeout, by its reader's
// end where the kernel tells of it, and in number, so that readers of blocks
// that do not come never keep others from blocks that are here (see parking).
package fusefs
