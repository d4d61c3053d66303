package line

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/cloopfs/cloopfs/blockio"
	"github.com/cloopfs/cloopfs/internal/iso9660"
)

func TestImagesAmong(t *testing.T) {
	file := func(path string, size int64) iso9660.File {
		return iso9660.File{Path: path, Extents: []blockio.Extent{{Off: 1 << 20, Len: size}}}
	}
	const large = 1 << 30
	tests := []struct {
		name  string
		files []iso9660.File
		want  []string
	}{
		{"KNOPPIX", []iso9660.File{
			file("boot/isolinux/linux", 5<<20), file("KNOPPIX/KNOPPIX", 2*large), file("KNOPPIX/KNOPPIX1", large),
			file("KNOPPIX/knoppix-cheatcodes.txt", 1<<20), file("index.html", 70<<10),
		}, []string{"KNOPPIX/KNOPPIX", "KNOPPIX/KNOPPIX1"}},
		{"the largest first", []iso9660.File{
			file("KNOPPIX/KNOPPIX2", 5), file("KNOPPIX/KNOPPIX1", large), file("KNOPPIX/KNOPPIX", 2*large),
		}, []string{"KNOPPIX/KNOPPIX", "KNOPPIX/KNOPPIX1"}},
		{"names of others", []iso9660.File{
			file("live/filesystem.squashfs", large), file("LiveOS/squashfs.img", large), file("arch/x86_64/airootfs.sfs", large),
			file("a/rootfs.erofs", large), file("casper/minimal.squashfs", large), file("k.CLOOP", large), file("LiveOS/rootfs.img", large),
		}, []string{
			"live/filesystem.squashfs", "LiveOS/squashfs.img", "arch/x86_64/airootfs.sfs",
			"a/rootfs.erofs", "casper/minimal.squashfs", "k.CLOOP", "LiveOS/rootfs.img",
		}},
		{"too small", []iso9660.File{file("KNOPPIX/KNOPPIX", minImage-1)}, nil},
		{"just large enough", []iso9660.File{file("KNOPPIX/KNOPPIX", minImage)}, []string{"KNOPPIX/KNOPPIX"}},
		{"names that only look alike", []iso9660.File{
			file("boot/minirt.gz", large), file("KNOPPIX.txt", large), file("efi.img", large), file("KNOPPIX/knoppixx", large), file("cloop", large),
		}, nil},
		{"several extents", []iso9660.File{
			{Path: "KNOPPIX/KNOPPIX1", Extents: []blockio.Extent{{Off: 0, Len: large}, {Off: large, Len: large}}},
			file("KNOPPIX/KNOPPIX", large),
		}, []string{"KNOPPIX/KNOPPIX1", "KNOPPIX/KNOPPIX"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, f := range imagesAmong(test.files) {
				got = append(got, f.Path)
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("-want +got:\n%s", diff)
			}
		})
	}
}
