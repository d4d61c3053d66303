package profile

import (
	"errors"
	"fmt"
	"slices"
)

// Merge makes one profile of several of one image: first the blocks that are in all
// of them, then those in all but one, and so on; alike ones in the order of the first
// profile that has them. Gaps are lost, and so is what is too much for one profile. The
// error wraps ErrOther if the images are not the same.
func Merge(list ...*Profile) (*Profile, error) {
	if len(list) == 0 {
		return nil, errors.New("nothing to merge")
	}
	for i, p := range list {
		if p.Image != list[0].Image {
			return nil, fmt.Errorf("number 1 and number %d: %w", i+1, ErrOther)
		}
	}
	cuts := cutsOf(list)
	in := make([]int, len(cuts)) // in how many profiles the piece is that begins at a cut
	var order []int              // of the pieces, in that of their first use
	for _, p := range list {
		for _, r := range p.Runs {
			for i, _ := slices.BinarySearch(cuts, r.First); cuts[i] < r.end(); i++ {
				if in[i]++; in[i] == 1 {
					order = append(order, i)
				}
			}
		}
	}
	slices.SortStableFunc(order, func(a, b int) int { return in[b] - in[a] })
	merged := &Profile{Image: list[0].Image}
	for at, i := range order {
		count := cuts[i+1] - cuts[i]
		last := len(merged.Runs) - 1
		switch {
		case at > 0 && i == order[at-1]+1 && in[i] == in[i-1]:
			merged.Runs[last].Count += count
		case len(merged.Runs) == maxRuns:
			return merged, nil
		default:
			merged.Runs = append(merged.Runs, Run{First: cuts[i], Count: count})
		}
	}
	return merged, nil
}

// cutsOf is where runs begin and end, in order. A run of any length costs no more than
// another.
func cutsOf(list []*Profile) []int64 {
	var cuts []int64
	for _, p := range list {
		for _, r := range p.Runs {
			cuts = append(cuts, r.First, r.end())
		}
	}
	slices.Sort(cuts)
	return slices.Compact(cuts)
}
