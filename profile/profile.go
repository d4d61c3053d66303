// Package profile holds access traces: which blocks of an image a session used, in
// the order in which it first wanted them. A [Recorder] makes one, Read and Write know
// its file (docs/format.md, "Profiles, version 1"), and Merge makes one of several.
package profile

import (
	"errors"
	"fmt"
	"slices"
	"time"
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

// Profile is an access trace. No more than Image.Blocks blocks are in it.
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

// Merge makes one profile of several of one image: first the blocks that are in all
// of them, then those in all but one, and so on; alike ones in the order of the first
// profile that has them. Gaps are lost. The error wraps ErrOther if the images are not
// the same.
func Merge(list ...*Profile) (*Profile, error) {
	if len(list) == 0 {
		return nil, errors.New("nothing to merge")
	}
	in := make(map[int64]int) // in how many profiles a block is
	var order []int64
	for i, p := range list {
		if p.Image != list[0].Image {
			return nil, fmt.Errorf("the first and number %d: %w", i+1, ErrOther)
		}
		have := make(map[int64]bool) // of this one
		for _, r := range p.Runs {
			for n := r.First; n < r.First+r.Count; n++ {
				if have[n] {
					continue
				}
				have[n] = true
				if in[n]++; in[n] == 1 {
					order = append(order, n)
				}
			}
		}
	}
	slices.SortStableFunc(order, func(a, b int64) int { return in[b] - in[a] })
	merged := &Profile{Image: list[0].Image}
	for i, n := range order {
		last := len(merged.Runs) - 1
		if i > 0 && n == order[i-1]+1 && in[n] == in[order[i-1]] {
			merged.Runs[last].Count++
		} else {
			merged.Runs = append(merged.Runs, Run{First: n, Count: 1})
		}
	}
	return merged, nil
}
