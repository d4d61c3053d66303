package cloop

import "context"

// Format is how the image is built: "V2.0" or "V4.0"; "" for a raw image.
func (ix *Index) Format() string {
	switch {
	case ix.raw:
		return ""
	case ix.codecs:
		return "V4.0"
	}
	return "V2.0"
}

// HeaderLast says that header and index are at the image's end.
func (ix *Index) HeaderLast() bool { return ix.footer }

// CodecStats is the blocks of an image that one codec has packed.
type CodecStats struct {
	Codec  string // zlib, stored, xz, lz4 or lzo; "bad" for entries that locate no block
	Blocks int64
	Bytes  int64 // of stored blocks
}

// Stats reads the whole index and counts blocks, by codec. Codecs that the image
// does not use are left out.
func (ix *Index) Stats(ctx context.Context) ([]CodecStats, error) {
	var all [codecs + 1]CodecStats
	for n := range ix.blocks {
		ext, c, bad, err := ix.locate(ctx, n)
		switch {
		case err != nil:
			return nil, err
		case bad != "":
			all[codecs].Blocks++
		default:
			all[c].Blocks++
			all[c].Bytes += ext.Len
		}
	}
	var used []CodecStats
	for c, s := range all {
		if s.Blocks == 0 {
			continue
		}
		s.Codec = "bad"
		if codec(c) < codecs {
			s.Codec = codecNames[c]
		}
		used = append(used, s)
	}
	return used, nil
}
