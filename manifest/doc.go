// Package manifest holds the proof of an image's content: a small text, the Manifest,
// with the root of a tree of hashes over the image's stored blocks; the file of that
// tree, of which each page is proven by the root and loaded alone ([Tree]); signatures
// in minisign's format ([Key]); and a [Checked] layer that lets no stored block pass
// that is not the one that was signed.
//
// docs/manifest.md has the format. The package knows nothing of where bytes come from,
// nor of what is in a stored block.
package manifest
