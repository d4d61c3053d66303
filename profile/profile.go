// Package profile holds access traces: which blocks of an image a session used, in
// the order in which it first wanted them. A [Recorder] makes one, Read and Write know
// its file (docs/format.md, "Profiles, version 1"), and Merge makes one of several.
package profile

import (
	"errors"
	"time"

	"github.com/cloopfs/cloopfs/blockio"
)

var (
	// ErrFormat says that something is not a profile.
	ErrFormat = errors.New("not a cloopfs profile")
	// ErrVersion says that a profile is of a version that is not known here.
	ErrVersion = errors.New("a profile of another version")
	// ErrDamaged says that a profile is cut off, or that its lines make no sense.
	ErrDamaged = errors.New("the profile is damaged")
	// ErrOther says that a profile is of another image.
	ErrOther = errors.New("the profile is of another image")
)

// Image says which image a profile is of, wherever a copy of it lies.
type Image struct {
	Size     int64 // bytes of the image
	Blocks   int64
	Identity string // tells it from others; printable, without spaces, at most 64 bytes
}

// Run is adjacent blocks that were wanted together.
type Run struct {
	First, Count int64
	// Gap is how long nobody had been waiting for a block when these were asked
	// for, in microseconds; 0 if somebody still was.
	Gap time.Duration
}

// end is the block behind the run.
func (r Run) end() int64 { return r.First + r.Count }

// Profile is an access trace. Its runs lie within the image and do not overlap.
type Profile struct {
	Image Image
	Runs  []Run
}

// Blocks is the number of blocks in the profile.
func (p *Profile) Blocks() (n int64) {
	for _, r := range p.Runs {
		n += r.Count
	}
	return n
}

// Spans is the runs' blocks, in their order.
func (p *Profile) Spans() []blockio.Span {
	spans := make([]blockio.Span, len(p.Runs))
	for i, r := range p.Runs {
		spans[i] = blockio.Span{First: r.First, Count: r.Count}
	}
	return spans
}

// Gaps is the time of all gaps in the profile.
func (p *Profile) Gaps() (d time.Duration) {
	for _, r := range p.Runs {
		d += r.Gap
	}
	return d
}
