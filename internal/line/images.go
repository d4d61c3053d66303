package line

import (
	"cmp"
	"context"
	"path"
	"regexp"
	"slices"

	"github.com/cloopfs/cloopfs/internal/iso9660"
)

// imageName is the names, in small letters, that live systems give to the images
// of their root file systems: KNOPPIX, KNOPPIX1, filesystem.squashfs, squashfs.img,
// airootfs.sfs and the like.
var imageName = regexp.MustCompile(`(?i)^(knoppix\d*|.*\.(cloop|squashfs|sfs|erofs|ext4)|(squashfs|rootfs|ext3fs)\.img)$`)

// minImage is the size of the smallest file that is taken for an image.
const minImage = 64 << 10

// discFiles lists the files of a disc; of a distant one those that the start and
// little more tell of.
func (l *Line) discFiles(ctx context.Context) ([]iso9660.File, error) {
	if l.at.URL == "" {
		return iso9660.List(ctx, l.Bytes(), l.source.Size())
	}
	return iso9660.List(ctx, l.start, startSize)
}

// ImagesInside lists those files of a disc that are likely to be images, the largest
// first; of a distant one those that the start and little more tell of.
func (l *Line) ImagesInside(ctx context.Context) ([]iso9660.File, error) {
	files, err := l.discFiles(ctx)
	return imagesAmong(files), err
}

// imagesAmong returns those files of a disc that are likely to be images, the
// largest first.
func imagesAmong(files []iso9660.File) []iso9660.File {
	images := slices.DeleteFunc(slices.Clone(files), func(f iso9660.File) bool {
		return f.Size() < minImage || !imageName.MatchString(path.Base(f.Path))
	})
	slices.SortStableFunc(images, func(a, b iso9660.File) int { return cmp.Compare(b.Size(), a.Size()) })
	return images
}
