// Package iso9660 finds files in an ISO 9660 image (ECMA-119), by their Rock
// Ridge, Joliet or plain names.
package iso9660

import (
	"context"
	"errors"
	"fmt"
	"io"
	"path"
	"strings"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/window"
)

var (
	// ErrFormat says that there is no ISO 9660 file system.
	ErrFormat = errors.New("not an ISO 9660 image")
	// ErrDamaged says that there is one that contradicts itself.
	ErrDamaged = errors.New("damaged ISO 9660 image")
	// ErrNotFound says that there is no such file.
	ErrNotFound = errors.New("no such file in the ISO 9660 image")
)

// maxDepth is how many names a path found by List has.
const maxDepth = 4

// maxEntries bounds how many files and directories List looks at.
const maxEntries = 20_000

// File is a file in an image.
type File struct {
	// Path is its path, without a slash at the start.
	Path string
	// Extents are where its bytes lie in the image, in their order. In a damaged
	// image they may lie beyond its end.
	Extents []blockio.Extent
}

// Size is the number of bytes of the file.
func (f File) Size() int64 {
	var n int64
	for _, e := range f.Extents {
		n += e.Len
	}
	return n
}

// Find locates the file at a path of the image in r. Case does not count, unless
// two names differ by nothing else. The error wraps ErrFormat, ErrDamaged,
// ErrNotFound or r's.
func Find(ctx context.Context, r blockio.ReaderAt, name string) ([]blockio.Extent, error) {
	var found []blockio.Extent
	err := read(ctx, r, func(v *volume) error {
		names := strings.Split(strings.Trim(path.Clean("/"+name), "/"), "/")
		at := entry{kind: directory, extents: []blockio.Extent{v.root}}
		for i, want := range names {
			entries, err := v.list(at.extents[0])
			if err != nil {
				return err
			}
			n := pick(entries, want)
			if n < 0 {
				return fmt.Errorf("%s: %w", name, ErrNotFound)
			}
			switch at = entries[n]; {
			case at.kind == directory && i == len(names)-1:
				return fmt.Errorf("%s: %w, only a directory", name, ErrNotFound)
			case at.kind == other:
				return fmt.Errorf("%s: %w, only a link or a device", name, ErrNotFound)
			case at.kind == regular && i < len(names)-1:
				return fmt.Errorf("%s: %w", name, ErrNotFound)
			}
		}
		for _, e := range at.extents {
			if !e.Inside(r.Size()) {
				return fmt.Errorf("%w: %s ends at %d, the image at %d (cut off?)", ErrDamaged, name, e.End(), r.Size())
			}
		}
		found = at.extents
		return nil
	})
	return found, err
}

// pick returns the index of the entry whose name is want, -1 if there is none.
func pick(entries []entry, want string) int {
	like := -1
	for i, e := range entries {
		switch {
		case e.name == want:
			return i
		case like < 0 && strings.EqualFold(e.name, want):
			like = i
		}
	}
	return like
}

// behind is how far behind a directory its long names may lie.
const behind = 16 << 10

// List returns the files of the image in r that lie at most four names deep,
// those nearest the root first. Links and devices are left out.
//
// Of directories it reads the root and those within the first near bytes. What is
// missed is in a tree with so many directories that near
// does not hold them all: most of the packages of a distribution, say. Tools lay
// directories out in the order of their names, a tree after the other, so that
// those of live systems (KNOPPIX, casper, live) come before pool.
func List(ctx context.Context, r blockio.ReaderAt, near int64) ([]File, error) {
	type dir struct {
		path   string
		extent blockio.Extent
	}
	var all []File
	isNear := func(e blockio.Extent) bool { return near >= r.Size() || e.End() <= near-behind }
	walk := func(v *volume) error {
		seen := 0
		level := []dir{{"", v.root}}
		for range maxDepth {
			var next []dir
			for _, d := range level {
				list := v.list
				if !isNear(d.extent) {
					if d.path != "" {
						continue
					}
					list = func(e blockio.Extent) ([]entry, error) { return v.listFar(ctx, r, e) }
				}
				entries, err := list(d.extent)
				if err != nil {
					return err
				}
				if seen += len(entries); seen > maxEntries {
					return nil
				}
				for _, e := range entries {
					name := path.Join(d.path, e.name)
					switch e.kind {
					case directory:
						next = append(next, dir{name, e.extents[0]})
					case regular:
						all = append(all, File{name, e.extents})
					}
				}
			}
			level = next
		}
		return nil
	}
	err := read(ctx, r, func(v *volume) error {
		// No read goes beyond what is near: it would be a request.
		return window.Read(ctx, blockio.Part(r, 0, min(near, r.Size())), func(s io.ReaderAt) error {
			v := *v
			v.r = s
			return walk(&v)
		})
	})
	return all, err
}

// listFar is list by a request of its own.
func (v *volume) listFar(ctx context.Context, r blockio.ReaderAt, dir blockio.Extent) (entries []entry, err error) {
	err = window.Read(ctx, r, func(s io.ReaderAt) error {
		far := *v
		far.r = s
		entries, err = far.list(dir)
		return err
	})
	return entries, err
}

// read opens the file system in r for use.
func read(ctx context.Context, r blockio.ReaderAt, use func(*volume) error) error {
	err := window.Read(ctx, r, func(s io.ReaderAt) error {
		v, err := open(s, r.Size())
		if err != nil {
			return err
		}
		return use(v)
	})
	if errors.Is(err, window.ErrDamaged) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}
