//go:build integration

package test

import (
	"encoding/json"
	"slices"
	"testing"
)

// fio(1) writes to random places, reads all of it back and compares checksums: on a
// mount's disk, and on a loop device above it.
func TestOverlayFio(t *testing.T) {
	const size = 32 * mib
	s := makeImage(t, 64*kib, blocks(size/(64*kib), 4*kib)...)
	_, url := serve(t, s.image)
	overlay, flags := makeOverlay(t)
	dir := mount(t, url, flags...)
	for _, test := range []struct {
		name  string
		loop  []string // flags of losetup; nil for none
		flags []string
	}{
		{"disk.img", nil, []string{"--direct=0", "--ioengine=psync"}},
		{"disk.img, O_DIRECT", nil, []string{"--direct=1", "--ioengine=libaio", "--iodepth=16"}},
		{"odd sizes", nil, []string{"--direct=0", "--ioengine=psync", "--bsrange=512-20k", "--bs_unaligned"}},
		{"loop device", []string{}, []string{"--direct=0", "--ioengine=psync"}},
		{"loop device with direct I/O", []string{"--direct-io=on"}, []string{"--direct=1", "--ioengine=libaio", "--iodepth=16"}},
	} {
		t.Run(test.name, func(t *testing.T) {
			file := diskOf(dir)
			if test.loop != nil {
				file = attachWith(t, file, test.loop...)
			}
			out := must(t, "fio", slices.Concat([]string{
				"--name=verify", "--filename=" + file, "--size=32m", "--rw=randwrite", "--bs=4k",
				"--verify=crc32c", "--verify_fatal=1", "--verify_state_save=0", "--fdatasync=64", "--output-format=json",
			}, test.flags)...)
			var said struct {
				Jobs []struct {
					Error       int
					Read, Write struct {
						Bytes int64 `json:"io_bytes"`
					}
				}
			}
			if err := json.Unmarshal([]byte(out), &said); err != nil || len(said.Jobs) != 1 {
				t.Fatalf("fio prints %q: %v", brief(out), err)
			}
			if j := said.Jobs[0]; j.Error != 0 || j.Write.Bytes < size/2 || j.Read.Bytes < size/2 {
				t.Errorf("fio: error %d, %d bytes written, %d read; want about %d", j.Error, j.Write.Bytes, j.Read.Bytes, size)
			}
			if test.loop != nil {
				must(t, "losetup", "--detach", file)
			}
		})
	}
	written := must(t, "sha256sum", diskOf(dir))
	umount(t, dir)
	mountAt(t, url, dir, flags...)
	if again := must(t, "sha256sum", diskOf(dir)); again != written {
		t.Errorf("after a mount the disk's sum is %q, want %q", again, written)
	}
	umount(t, dir)
	if got, want := overlayInfo(t, overlay, "state"), "clean"; got != want {
		t.Errorf("overlay info says %q, want %q", got, want)
	}
}
