// Package iso9660 finds files in an ISO 9660 image (ECMA-119), by their Rock
// Ridge, Joliet or plain names. The parsing is go-diskfs's.
package iso9660

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"strings"

	"github.com/diskfs/go-diskfs/backend"
	"github.com/diskfs/go-diskfs/filesystem/iso9660"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/diskfs"
)

var (
	// ErrFormat says that there is no ISO 9660 file system.
	ErrFormat = errors.New("not an ISO 9660 image")
	// ErrDamaged says that there is one that contradicts itself.
	ErrDamaged = errors.New("damaged ISO 9660 image")
	// ErrNotFound says that there is no such file.
	ErrNotFound = errors.New("not in the ISO 9660 image")
)

// sectorSize is the unit in which files are located.
const sectorSize = 2048

// maxDepth is how many names a path found by List has.
const maxDepth = 4

// maxEntries bounds how many files and directories List looks at.
const maxEntries = 20_000

// File is a file in an image.
type File struct {
	// Path is its path, without a slash at the start.
	Path string
	// Extents are where its bytes lie in the image, in their order.
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
	var found File
	err := read(ctx, r, func(image *iso9660.FileSystem) error {
		dir := "."
		names := strings.Split(strings.Trim(path.Clean("/"+name), "/"), "/")
		for i, want := range names {
			files, dirs, err := list(image, dir)
			if err != nil {
				return err
			}
			last := i == len(names)-1
			switch sub, file := pick(dirs, want), pick(files, want); {
			case last && file >= 0:
				found = files[file]
				return nil
			case sub >= 0 && !last:
				dir = dirs[sub].Path
			case sub >= 0:
				return fmt.Errorf("%s: is a directory", name)
			default:
				return fmt.Errorf("%s: %w", name, ErrNotFound)
			}
		}
		return nil
	})
	return found.Extents, err
}

// pick returns the index of the file whose name is want, -1 if there is none.
func pick(files []File, want string) int {
	like := -1
	for i, f := range files {
		switch base := path.Base(f.Path); {
		case base == want:
			return i
		case strings.EqualFold(base, want), base == strings.TrimPrefix(want, "."): // the library drops the dot of a file's name
			like = i
		}
	}
	return like
}

// List returns the files of the image in r that lie at most four names deep,
// the directories nearest the root first.
func List(ctx context.Context, r blockio.ReaderAt) ([]File, error) {
	var all []File
	err := read(ctx, r, func(image *iso9660.FileSystem) error {
		entries := 0
		level := []string{"."}
		for range maxDepth {
			var next []string
			for _, dir := range level {
				files, dirs, err := list(image, dir)
				if err != nil {
					return err
				}
				if entries += len(files) + len(dirs); entries > maxEntries {
					return nil
				}
				all = append(all, files...)
				for _, d := range dirs {
					next = append(next, d.Path)
				}
			}
			level = next
		}
		return nil
	})
	return all, err
}

// read opens the file system in r for use.
func read(ctx context.Context, r blockio.ReaderAt, use func(*iso9660.FileSystem) error) error {
	const markOff, mark = 16*sectorSize + 1, "CD001"
	err := diskfs.Read(ctx, r, func(s backend.Storage) error {
		var got [len(mark)]byte
		if r.Size() < markOff+sectorSize {
			return ErrFormat
		}
		if _, err := s.ReadAt(got[:], markOff); err != nil || string(got[:]) != mark {
			return ErrFormat
		}
		image, err := iso9660.Read(s, 0, 0, 0)
		if err != nil {
			return fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		return use(image)
	})
	if errors.Is(err, diskfs.ErrDamaged) {
		return fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	return err
}

// list returns the files and the directories in dir. A file of several extents
// is several records of one name, one behind the other.
func list(image *iso9660.FileSystem, dir string) (files, dirs []File, err error) {
	entries, err := image.ReadDir(dir)
	if err != nil {
		return nil, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	for _, e := range entries {
		info, err := e.Info()
		if err != nil {
			return nil, nil, fmt.Errorf("%w: %w", ErrDamaged, err)
		}
		name := path.Join(dir, e.Name())
		switch info.Mode().Type() {
		case fs.ModeDir:
			dirs = append(dirs, File{Path: name})
		case 0:
			files, err = addRecord(files, name, info)
		}
		if err != nil {
			return nil, nil, err
		}
	}
	return files, dirs, nil
}

// addRecord appends a file, or one more extent to the last.
func addRecord(files []File, name string, info fs.FileInfo) ([]File, error) {
	stat, ok := info.Sys().(*iso9660.StatT)
	if !ok {
		return nil, errors.ErrUnsupported
	}
	extent := blockio.Extent{Off: (int64(stat.Location) + int64(stat.ExtAttrSize)) * sectorSize, Len: info.Size()}
	last := len(files) - 1
	if last < 0 || files[last].Path != name {
		return append(files, File{name, []blockio.Extent{extent}}), nil
	}
	f := &files[last]
	if f.Extents[len(f.Extents)-1].Len%sectorSize != 0 {
		return nil, fmt.Errorf("%w: %s has an extent that ends within a sector", ErrDamaged, name)
	}
	f.Extents = append(f.Extents, extent)
	return files, nil
}
