// Package overlay keeps what is written to a disk that can't be written to: a
// copy-on-write device over any blockio.ReaderAt.
//
// An overlay is a directory (docs/format.md): data, a sparse file laid out as the
// disk is; map, a bit for each cluster of 4 KiB that says whether data has it; meta,
// what the overlay lies over. Reads take a cluster from data if its bit is set, else
// from below.
//
// The order of a flush is what makes a crash harmless: first data is made durable,
// then the bits that had been set before that began are written, then the map is
// made durable. A bit that is on the disk names a cluster that is there. Bits are
// never taken back.
//
// Words: a cluster is 4096 bytes of the disk, the last one maybe fewer, and numbered
// from 0. A fresh cluster is one whose bit is not set.
package overlay
