package cache

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"
	"time"
)

// Stat is what a cache directory has of one image.
type Stat struct {
	Name    string   // of the directory
	Path    string   // of the bytes
	Keys    []string // of the identities under which it was seen
	Sources []string
	// Validators are what servers gave to tell the image's versions apart, but for
	// what stands for a server that gave nothing.
	Validators []string
	ModTime    time.Time // of the image, as a server said first; zero if none did
	Size       int64     // of the image
	Allocated  int64     // of its bytes that are here, in whole pages
	Used       time.Time // when something of it was read or stored last, to the minute
	Kept       bool
	Complete   bool
	InUse      bool // some process has it open
}

// List returns what there is, what was used last first, and how many entries there
// are that only programs of other versions can read.
func (d *Dir) List() (list []Stat, others int, err error) {
	names, err := d.names()
	if err != nil {
		return nil, 0, err
	}
	for _, name := range names {
		if strings.HasPrefix(name, newPrefix) {
			continue
		}
		s, err := d.stat(name)
		switch {
		case err == nil:
			list = append(list, s)
		case errors.Is(err, errVersion):
			others++
		}
	}
	slices.SortFunc(list, func(a, b Stat) int { return b.Used.Compare(a.Used) })
	return list, others, nil
}

// stat looks at one entry.
func (d *Dir) stat(name string) (Stat, error) {
	f, m, err := d.look(name)
	if err != nil {
		return Stat{}, err
	}
	defer f.Close()
	s := Stat{
		Name: name, Path: filepath.Join(d.path, name, dataName),
		Sources: m.Sources, ModTime: m.ModTime, Size: m.Size, Kept: m.Kept, Complete: m.Complete, Used: modTime(f, inUseName),
	}
	for _, seen := range m.Seen {
		s.Keys = append(s.Keys, seen.Key)
		if !strings.HasPrefix(seen.Validator, Trusted) && !slices.Contains(s.Validators, seen.Validator) {
			s.Validators = append(s.Validators, seen.Validator)
		}
	}
	n, err := blocksOf(int(f.Fd()), dataName)
	if err != nil {
		return s, err
	}
	s.Allocated = min(n, m.Size)
	if used := modTime(f, usedName); used.After(s.Used) {
		s.Used = used
	}
	s.InUse = locked(f, inUseName)
	return s, nil
}
