// Package fusefs shows a disk as a file: a FUSE file system of one directory
// that holds disk.img. It knows nothing of where the disk's bytes come from, nor
// where those go to that are written.
//
// What readers see never changes while the file system is mounted but by writes through
// it, nor from one mount of an image to the next: size, inode number and mtime. The
// kernel may therefore keep everything it has read.
//
// Every read or write that has to wait is bounded: by Options.Timeout, by its caller's
// end where the kernel tells of it, and in number, so that readers of blocks
// that do not come never keep others from blocks that are here (see parking).
package fusefs
